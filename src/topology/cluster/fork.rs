//! A timeline that several primaries have gone on under: its number says of no replica whose it is. A checkpoint does,
//! that the present primary has written since. Who is the primary is `elect`'s.

use std::{collections::VecDeque, time::Instant};

use super::{ClusterState, elect::Branch};
use crate::{
    model::{HostId, Said, Timeline},
    postgres::{Checkpoint, Reading},
    topology::host::{HostState, Measured},
};

/// How many of the primary's checkpoints are remembered: a replica makes a restartpoint of one that it has replayed, which
/// need not be one of the last.
const REMEMBERED: usize = 256;

/// The newest timeline with several branches.
#[derive(Debug)]
pub(super) struct Fork {
    timeline: Timeline,
    /// By then every branch but the primary's own had begun: what the primary writes later is in no other.
    since: Instant,
    /// Whose branches these are: the hosts that say they are primaries on this timeline, beside the one that was chosen, with
    /// their postmasters' starts.
    rivals: Vec<(HostId, u64)>,
    /// The primary's newest checkpoint; the first one that was read may be older than the branches.
    newest: Option<Checkpoint>,
    /// Those that the primary has written after the first.
    own: VecDeque<Checkpoint>,
}

impl Fork {
    pub(super) fn new(timeline: Timeline, now: Instant) -> Fork {
        Fork { timeline, since: now, rivals: Vec::new(), newest: None, own: VecDeque::new() }
    }

    pub(super) const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Another server is the primary on that timeline, or another branch has begun.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.since = now;
        self.newest = None;
        self.own.clear();
    }

    /// That server is a primary on that timeline too. It may have been copied from the present one until it was started.
    fn heed(&mut self, rival: (HostId, u64), now: Instant) {
        if !self.rivals.contains(&rival) {
            self.rivals.retain(|(host, _)| *host != rival.0);
            self.rivals.push(rival);
            self.begin_anew(now);
        }
    }

    /// Of the primary, asked for at `sent_at`.
    fn take(&mut self, checkpoint: &Checkpoint, sent_at: Instant) {
        if sent_at < self.since || self.newest.as_ref().is_some_and(|newest| checkpoint.lsn <= newest.lsn) {
            return;
        }
        if self.newest.replace(checkpoint.clone()).is_some() {
            self.own.truncate(REMEMBERED - 1);
            self.own.push_front(checkpoint.clone());
        }
    }

    /// Whether who has replayed that checkpoint is on the primary's branch.
    fn is_own(&self, checkpoint: &Checkpoint) -> bool {
        self.own.contains(checkpoint)
    }
}

impl ClusterState {
    /// Whether it takes more than a timeline's number to prove a replica: then probers ask for checkpoints.
    pub(in crate::topology) fn is_forked(&self) -> bool {
        self.fork.is_some()
    }

    pub(super) fn checkpointed(&mut self, host: HostId, checkpoint: Checkpoint, sent_at: Instant) {
        if let Some(fork) = self.fork.as_mut().filter(|_| self.primary == Some(host)) {
            fork.take(&checkpoint, sent_at);
        }
        self.hosts[host.index()].checkpoint = Some(checkpoint);
    }

    /// From a conflict on there are several branches; and each server that says it is a primary too may be a new one.
    pub(super) fn heed_rivals(&mut self, said: &[Said], chosen: Option<HostId>, now: Instant) {
        let conflict_on = self.election.timeline().filter(|_| self.election.is_conflict());
        if let Some(timeline) = conflict_on
            && self.fork.as_ref().is_none_or(|fork| fork.timeline != timeline)
        {
            self.fork = Some(Fork::new(timeline, now));
        }
        let Some(fork) = &mut self.fork else { return };
        for (index, said) in said.iter().enumerate() {
            let is_rival = matches!(said, Said::Primary { timeline, .. } if *timeline == fork.timeline);
            let host = self.seats.at(index).filter(|host| is_rival && chosen != Some(*host));
            if let (Some(host), Some(identity)) = (host, &self.hosts[index].identity) {
                fork.heed((host, identity.started_us), now);
            }
        }
    }

    /// Which replicas of `hosts` are on that branch: those on its timeline. Where several servers went on under one number it
    /// takes a checkpoint that only that branch has; what was proved before goes on to count for the branch that it
    /// was proved for.
    pub(super) fn prove(hosts: &mut [HostState], branch: Option<Branch>, fork: Option<&Fork>) {
        let Some(branch) = branch else { return };
        let fork = fork.filter(|fork| fork.timeline >= branch.timeline);
        for host in hosts {
            let Some(Measured { reading: Reading::Replica { timeline, .. }, .. }) = &host.reading else { continue };
            let is_on_timeline = *timeline == Some(branch.timeline);
            match fork {
                None => host.proved_on = is_on_timeline.then_some(branch.history),
                Some(fork) if is_on_timeline && host.checkpoint.as_ref().is_some_and(|it| fork.is_own(it)) => {
                    host.proved_on = Some(branch.history);
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "fork_tests.rs"]
mod tests;
