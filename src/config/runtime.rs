//! `[runtime]`: what the broker takes of its machine.

use super::read::Reader;

/// How many threads work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Threads that serve calls; None: one for each core that the process may use.
    pub threads: Option<usize>,
}

/// Reads the section.
pub(super) fn runtime(reader: &mut Reader<'_>) -> RuntimeConfig {
    RuntimeConfig { threads: Some(reader.count("runtime.threads", 0, 0..=1024)).filter(|&threads| threads > 0) }
}
