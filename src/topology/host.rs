//! One host's state as the monitor keeps it, and what it claims to be.

use std::time::Instant;

use crate::{
    model::{HostHealth, HostId, Lsn, Role, Timeline},
    postgres::{Identity, Reading},
};

#[derive(Debug, Default)]
pub(super) struct HostState {
    pub(super) health: HostHealth,
    pub(super) identity: Option<Identity>,
    pub(super) reading: Option<Measured>,
    pub(super) epoch: u64,
    /// The role that was read last, over whichever probe connection.
    pub(super) last_role: Option<Role>,
    /// Whether it has answered a probe, or failed one, since the start.
    pub(super) reported: bool,
    /// It says that it is a primary, and is not the one that was chosen.
    pub(super) outvoted: bool,
    /// Why the server behind this name takes no part; logged once.
    pub(super) refused: Option<String>,
}

/// A probe's answer, between the moments when it was asked for and when it was here.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) reading: Reading,
    pub(super) sent_at: Instant,
    pub(super) received_at: Instant,
}

/// A host that says it is a primary.
pub(super) struct Claim {
    pub(super) host: HostId,
    pub(super) system_identifier: u64,
    pub(super) timeline: Timeline,
    pub(super) insert: Lsn,
    pub(super) promoted_at: Option<Lsn>,
    pub(super) sent_at: Instant,
}

impl HostState {
    pub(super) fn role(&self) -> Option<Role> {
        self.reading.as_ref().map(|measured| match measured.reading {
            Reading::Primary { .. } => Role::Primary,
            Reading::Replica { .. } => Role::Replica,
        })
    }

    pub(super) fn as_primary(&self, host: HostId) -> Option<Claim> {
        let identity = self.identity.as_ref()?;
        match &self.reading {
            Some(Measured { reading: Reading::Primary { insert, promoted_at, timeline, .. }, sent_at, .. })
                if self.health == HostHealth::Up && self.refused.is_none() =>
            {
                Some(Claim {
                    host,
                    system_identifier: identity.system_identifier,
                    timeline: *timeline,
                    insert: *insert,
                    promoted_at: *promoted_at,
                    sent_at: *sent_at,
                })
            }
            _ => None,
        }
    }
}
