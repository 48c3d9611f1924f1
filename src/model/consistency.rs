//! Owns what a caller may ask of a read's freshness.

use std::time::Duration;

/// What a read must see. These are session guarantees by WAL position, not snapshot isolation across hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The writes of its session and of the positions it carries.
    #[default]
    Session,
    /// As [`Consistency::Session`], and what the session's earlier reads saw.
    Causal,
    /// A replica at most this far behind the primary. Positions do not matter.
    Bounded {
        /// How far the replica may be behind.
        max_staleness: Duration,
    },
    /// Any healthy replica. Positions do not matter.
    Eventual,
    /// The primary.
    Strong,
}

impl Consistency {
    /// Whether positions decide where such a read goes.
    #[must_use]
    pub const fn heeds_positions(self) -> bool {
        matches!(self, Self::Session | Self::Causal)
    }

    /// Whether a replica may become fresh enough for such a read while it waits.
    #[must_use]
    pub const fn can_wait(&self) -> bool {
        matches!(self, Self::Session | Self::Causal | Self::Bounded { .. })
    }
}
