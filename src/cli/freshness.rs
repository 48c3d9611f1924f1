//! The flags that say how fresh a read must be, for the commands that ask for one.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tidegate_client::{Consistency, ReadOptions};

use super::sql::duration;

/// How fresh a read must be.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Freshness {
    /// How fresh a read must be
    #[arg(long, value_name = "LEVEL", conflicts_with = "write")]
    consistency: Option<Level>,
    /// How far behind a replica may be, such as 500ms or 2s: means --consistency bounded
    #[arg(
        long, value_name = "DURATION", value_parser = duration, conflicts_with = "write",
        required_if_eq("consistency", "bounded")
    )]
    max_staleness: Option<Duration>,
    /// How long a read may wait for a replica to catch up before the primary is asked, such as 200ms
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "write")]
    max_wait: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Sees the writes of the session and of the tokens
    Session,
    /// The same, and what the session's reads at this level have seen
    Causal,
    /// The primary
    Strong,
    /// Any healthy replica
    Eventual,
    /// A replica at most --max-staleness behind
    Bounded,
}

impl Freshness {
    /// As the client takes it. A level that is given is stated, so that no rule of the broker's replaces it.
    ///
    /// # Errors
    /// What is wrong with the flags, beyond what their parser sees.
    pub(super) fn options(&self) -> Result<ReadOptions, &'static str> {
        let options = match (self.consistency, self.max_staleness) {
            (None | Some(Level::Bounded), Some(limit)) => ReadOptions::new().max_staleness(limit),
            (Some(_), Some(_)) => return Err("--max-staleness is for --consistency bounded only"),
            // BOUNDED without a limit: its parser refuses it.
            (None | Some(Level::Bounded), None) => ReadOptions::new(),
            (Some(Level::Session), None) => ReadOptions::new().consistency(Consistency::Session),
            (Some(Level::Causal), None) => ReadOptions::new().consistency(Consistency::Causal),
            (Some(Level::Strong), None) => ReadOptions::new().consistency(Consistency::Strong),
            (Some(Level::Eventual), None) => ReadOptions::new().consistency(Consistency::Eventual),
        };
        Ok(match self.max_wait {
            Some(limit) => options.max_wait(limit),
            None => options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_given_is_stated() {
        let told = |consistency, max_staleness| {
            let flags = Freshness { consistency, max_staleness, max_wait: None };
            flags.options().map(|options| tidegate_client::proto::ReadOptions::from(&options).consistency())
        };
        let limit = Some(Duration::from_secs(1));
        assert_eq!(told(None, None), Ok(Consistency::Unspecified));
        assert_eq!(told(Some(Level::Session), None), Ok(Consistency::Session));
        assert_eq!(told(None, limit), Ok(Consistency::Bounded));
        assert!(told(Some(Level::Session), limit).is_err());
    }
}
