//! Owns the election of a cluster's primary: of all that say they are it, which one may be written to. It remembers who
//! claimed the role, so that a split does not heal by itself merely because one side was out of reach for a moment.

use super::{HostId, HostSet, Timeline};
use std::time::Instant;

/// What a host has said of its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing that counts now: it is away, or was never heard.
    Nothing,
    /// That it is a replica.
    Replica,
    /// That it is the primary.
    Primary {
        /// Its timeline.
        timeline: Timeline,
        /// Until when that counts without being said again.
        until: Instant,
    },
    /// It takes no part: it is not of the cluster, or was removed from it.
    NoPart,
}

/// Who may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This host, until its lease lapses.
    Primary {
        /// The host.
        host: HostId,
        /// The lease's end.
        until: Instant,
    },
    /// Nobody: no host holds the role, or its holder is away or has not confirmed it in time.
    Vacant,
    /// Nobody until an operator decides: several hosts have claimed the role on one timeline.
    Conflict,
}

/// Of one cluster. The newest timeline wins, whoever else claims the role; on one timeline there can be only one, and
/// who has claimed it keeps his claim until he is seen as a replica, on another timeline, or takes no part any more.
#[derive(Debug, Clone, Default)]
pub struct Election {
    timeline: Option<Timeline>,
    claimants: HostSet,
    /// Claimants on this timeline that an operator has decided against.
    dismissed: HostSet,
}

impl Election {
    /// The newest timeline that a primary was seen on.
    #[must_use]
    pub const fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// Who claims the role on that timeline; more than one is a conflict.
    #[must_use]
    pub const fn claimants(&self) -> HostSet {
        self.claimants
    }

    /// Whether several hosts claim the role on one timeline.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        self.claimants.len() > 1
    }

    /// Decides by what all hosts have said; `said` gives it by host, from 0.
    pub fn decide(&mut self, said: &[Said], now: Instant) -> Verdict {
        let hosts = || (0..).map(HostId::new).zip(said.iter().copied());
        let newest = said.iter().filter_map(|said| said.timeline()).max();
        if newest > self.timeline {
            *self = Self { timeline: newest, ..Self::default() };
        }
        for (host, said) in hosts() {
            match said {
                Said::Nothing => {}
                Said::Primary { timeline, .. } if Some(timeline) == self.timeline => {
                    if !self.dismissed.contains(host) {
                        self.claimants = self.claimants.with(host);
                    }
                }
                Said::Replica | Said::NoPart | Said::Primary { .. } => {
                    self.claimants = self.claimants.without(host);
                    self.dismissed = self.dismissed.without(host);
                }
            }
        }
        if self.is_conflict() {
            return Verdict::Conflict;
        }
        let holder = hosts().find_map(|(host, said)| match said {
            Said::Primary { until, .. } if self.claimants.contains(host) && now < until => Some((host, until)),
            _ => None,
        });
        holder.map_or(Verdict::Vacant, |(host, until)| Verdict::Primary { host, until })
    }

    /// Another host has that one's place from now on, and is to be judged by what it says itself.
    pub const fn forget(&mut self, host: HostId) {
        self.claimants = self.claimants.without(host);
        self.dismissed = self.dismissed.without(host);
    }

    /// An operator's decision for one of the claimants; false, and nothing is changed, if `host` is none. The others are
    /// heeded again once they are replicas, or on a newer timeline.
    pub fn settle(&mut self, host: HostId) -> bool {
        if !self.claimants.contains(host) {
            return false;
        }
        self.dismissed = self.dismissed.union(self.claimants).without(host);
        self.claimants = HostSet::EMPTY.with(host);
        true
    }
}

impl Said {
    const fn timeline(self) -> Option<Timeline> {
        match self {
            Self::Primary { timeline, .. } => Some(timeline),
            _ => None,
        }
    }
}
