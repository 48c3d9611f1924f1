//! Owns the record of one host as the monitor publishes it. Whether a read may go there is `route`'s.

use super::{HistoryId, HostId, Lsn, Place, Ramp};
use std::sync::Arc;
use std::time::Instant;

/// What a server is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It replays the primary's WAL.
    Replica,
}

impl Role {
    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// Whether a host answers. `Unknown` is not `Up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HostHealth {
    /// Not probed yet, or its last proof has lapsed.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It may be failing. A replica gets reads only where none that is up will do; a primary keeps its role until its
    /// lease lapses.
    Suspect,
    /// It does not answer, or takes no part.
    Down,
    /// It answers, but has failed too often of late.
    Quarantined,
}

impl HostHealth {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Up, Self::Suspect, Self::Down, Self::Quarantined];

    /// Whether it may get requests: it is up, or was so far.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }

    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Quarantined => "quarantined",
        }
    }
}

/// What is known of one host: a plain record, replaced as a whole.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Its index in the cluster.
    pub id: HostId,
    /// Its configured name.
    pub name: Arc<str>,
    /// Its role; `None` until it was read.
    pub role: Option<Role>,
    /// Whether it gets requests.
    pub health: HostHealth,
    /// The history that it is proved to be on.
    pub history: Option<HistoryId>,
    /// A replica's replayed position; a primary's insert position.
    pub replay: Option<Lsn>,
    /// When the probe that read `replay` was sent.
    pub measured_at: Option<Instant>,
    /// When the probe that read the newest sample of the primary that this host has passed was sent; of the same
    /// history only.
    pub passed_sample_at: Option<Instant>,
    /// Whether it has passed the newest sample of all.
    pub passed_last_sample: bool,
    /// Changes when the server behind the name restarted or is another one.
    pub incarnation: u64,
    /// Changes with the host's role.
    pub epoch: u64,
    /// The slow start that it is in, or was in last; see [`HostView::ramp`].
    pub ramp: Option<Ramp>,
    /// Until when it is quarantined.
    pub quarantined_until: Option<Instant>,
    /// Its part in the cluster's calls.
    pub place: Place,
    /// Whether an operator keeps new reads from it while it is a replica.
    pub drained: bool,
    /// Why the server behind the name takes no part, if it takes none.
    pub refused: Option<Arc<str>>,
}

impl HostView {
    /// A host of which nothing is known yet.
    #[must_use]
    pub const fn unknown(id: HostId, name: Arc<str>) -> Self {
        Self {
            id,
            name,
            role: None,
            health: HostHealth::Unknown,
            history: None,
            replay: None,
            measured_at: None,
            passed_sample_at: None,
            passed_last_sample: false,
            incarnation: 0,
            epoch: 0,
            ramp: None,
            quarantined_until: None,
            place: Place { weight: Place::DEFAULT_WEIGHT, is_near: true, priority: 0 },
            drained: false,
            refused: None,
        }
    }

    /// Whether it answers and is a replica that was not drained.
    #[must_use]
    pub fn is_up_replica(&self) -> bool {
        self.health == HostHealth::Up && self.role == Some(Role::Replica) && !self.drained
    }

    /// Whether it is a replica that may get reads; one that is up is to be preferred.
    #[must_use]
    pub fn is_usable_replica(&self) -> bool {
        self.health.is_usable() && self.role == Some(Role::Replica) && !self.drained
    }

    /// The percentage of its normal share of the reads that it is to get at `now`, 1 to 100: less than the whole while it
    /// has come back a short time ago.
    #[must_use]
    pub fn ramp(&self, now: Instant) -> u8 {
        self.ramp.map_or(100, |ramp| ramp.percent(now))
    }
}
