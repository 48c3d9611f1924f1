//! One host's state as the monitor keeps it.

use std::time::Instant;

use crate::{
    model::{Health, HistoryId, Lsn, Role, Timeline},
    postgres::{Checkpoint, Identity, Reading},
};

#[derive(Debug, Default)]
pub(super) struct HostState {
    pub(super) health: Health,
    pub(super) identity: Option<Identity>,
    pub(super) reading: Option<Measured>,
    /// How far it had replayed when it was last read as a replica, by this postmaster.
    pub(super) last_replay: Option<Lsn>,
    /// When it was asked last of the times that it said it was in recovery, this postmaster.
    pub(super) in_recovery_at: Option<Instant>,
    /// The history that it was proved to be on, by this postmaster.
    pub(super) proof: Option<Proof>,
    /// The checkpoint that its control file names, by this postmaster; asked for only where it takes that for a proof.
    pub(super) named: Option<Named>,
    /// Its promotion happened between two readings over one connection.
    pub(super) promotion_watched: bool,
    pub(super) epoch: u64,
    /// The role that was read last, over whichever probe connection.
    pub(super) last_role: Option<Role>,
    /// Whether it has answered a probe, or failed one, since the start.
    pub(super) reported: bool,
    /// It says that it is a primary, and is not the one that was chosen.
    pub(super) outvoted: bool,
    /// Why the server behind this name takes no part; logged once.
    pub(super) refused: Option<String>,
    /// An operator keeps new reads from it.
    pub(super) drained: bool,
}

/// What showed first that a replica is on a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof {
    pub(super) history: HistoryId,
    /// By then it was there.
    pub(super) seen_by: Instant,
}

/// A checkpoint that a control file names.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) checkpoint: Checkpoint,
    /// By then it did.
    pub(super) seen_by: Instant,
}

/// A probe's answer, between the moments when it was asked for and when it was here.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) reading: Reading,
    pub(super) sent_at: Instant,
    pub(super) received_at: Instant,
}

impl HostState {
    pub(super) fn role(&self) -> Option<Role> {
        self.reading.as_ref().map(|measured| match measured.reading {
            Reading::Primary { .. } => Role::Primary,
            Reading::Replica { .. } => Role::Replica,
        })
    }

    /// The timeline that a replica is proved to follow.
    pub(super) fn follows_timeline(&self) -> Option<Timeline> {
        match self.reading.as_ref()?.reading {
            Reading::Replica { timeline, .. } => timeline,
            Reading::Primary { .. } => None,
        }
    }

    /// Whether it is proved to be on that history.
    pub(super) fn is_proved_on(&self, history: HistoryId) -> bool {
        self.proof.is_some_and(|proof| proof.history == history)
    }

    /// Takes a probe's answer in, with what follows from the one before over the same connection.
    pub(super) fn take(&mut self, measured: Measured) {
        let was = self.role();
        match measured.reading {
            Reading::Replica { replay, .. } => {
                self.promotion_watched = false;
                self.last_replay = replay;
                self.in_recovery_at = Some(measured.sent_at);
            }
            // A crash in between would have ended the connection, and with it what was read.
            Reading::Primary { .. } => self.promotion_watched |= was == Some(Role::Replica),
        }
        self.reading = Some(measured);
    }
}
