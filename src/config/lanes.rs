//! `[lanes]`: connections to replicas that many short reads share.

use std::time::Duration;

use super::read::Reader;

/// How many short reads share how many connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanesConfig {
    /// Lanes to one replica for one database; 0: none, and no statement counts as clean.
    pub connections: usize,
    /// Reads in flight on one lane: at least 1.
    pub depth: usize,
    /// How long the read at the head of a lane may hold up those behind it.
    pub patience: Duration,
}

impl Default for LanesConfig {
    fn default() -> Self {
        Self { connections: 2, depth: 32, patience: Duration::from_millis(50) }
    }
}

/// Reads the section.
pub(super) fn lanes(reader: &mut Reader<'_>) -> LanesConfig {
    const PATIENCE_MIN: Duration = Duration::from_millis(5);
    const PATIENCE_MAX: Duration = Duration::from_secs(10);
    let default = LanesConfig::default();
    LanesConfig {
        connections: reader.count("lanes.connections", default.connections, 0..=16),
        depth: reader.count("lanes.depth", default.depth, 1..=1024),
        patience: reader.duration("lanes.patience", default.patience, PATIENCE_MIN..=PATIENCE_MAX),
    }
}
