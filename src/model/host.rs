//! Owns the record of one host as the monitor publishes it. Whether a read may go there is `route`'s.

use super::{HistoryId, HostId, Lsn, Place};
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
    /// It answers. Only such a host gets requests.
    Up,
    /// It does not answer, or is in quarantine.
    Down,
}

impl HostHealth {
    /// For logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
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
    /// Its part in the cluster's calls.
    pub place: Place,
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
            place: Place { weight: Place::DEFAULT_WEIGHT, is_near: true },
        }
    }

    /// Whether it answers and is a replica.
    #[must_use]
    pub fn is_up_replica(&self) -> bool {
        self.health == HostHealth::Up && self.role == Some(Role::Replica)
    }
}
