//! A timeline that several primaries have gone on under: its number says of no replica whose it is. A checkpoint does,
//! that the present primary has written since. Who is the primary is `elect`'s.

use std::{collections::VecDeque, time::Instant};

use super::{ClusterState, elect::Branch};
use crate::{
    model::{HostId, Said, Timeline},
    postgres::{Checkpoint, Reading},
    topology::host::{HostState, Measured, Named, Proof},
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
    /// When branches beside the primary's may have begun unseen.
    doubts: Vec<Doubt>,
    /// The primary's newest checkpoint; the first one that was read may be older than the branches.
    newest: Option<Checkpoint>,
    /// Those that the primary has written after the first.
    own: VecDeque<Checkpoint>,
}

/// Between these, a server went on as a primary beside the one that was known, and nobody had heard of it: a replica that was
/// proved meanwhile may be its.
#[derive(Debug)]
struct Doubt {
    /// It was asked then, and in recovery; None: it was never heard so.
    after: Option<Instant>,
    /// Its claim was heard.
    until: Instant,
}

impl Doubt {
    fn concerns(&self, proof: &Proof) -> bool {
        self.after.is_none_or(|after| after < proof.seen_by) && proof.seen_by <= self.until
    }
}

impl Fork {
    pub(super) fn new(timeline: Timeline, now: Instant) -> Fork {
        Fork { timeline, since: now, rivals: Vec::new(), doubts: Vec::new(), newest: None, own: VecDeque::new() }
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

    /// That server is a primary on that timeline too; false: that is known. It may have been copied from the present one
    /// until it was started.
    fn heed(&mut self, rival: (HostId, u64), now: Instant) -> bool {
        let is_new = !self.rivals.contains(&rival);
        if is_new {
            self.rivals.retain(|(host, _)| *host != rival.0);
            self.rivals.push(rival);
            self.begin_anew(now);
        }
        is_new
    }

    /// A branch has begun beside the one that replicas are proved for: after that moment, or nobody knows when.
    fn doubt(&mut self, after: Option<Instant>, now: Instant) {
        // What the new one covers.
        self.doubts.retain(|known| known.after < after);
        self.doubts.push(Doubt { after, until: now });
    }

    fn trusts(&self, proof: &Proof) -> bool {
        !self.doubts.iter().any(|doubt| doubt.concerns(proof))
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

    pub(super) fn checkpointed(&mut self, host: HostId, checkpoint: Checkpoint, sent_at: Instant, now: Instant) {
        if let Some(fork) = self.fork.as_mut().filter(|_| self.primary == Some(host)) {
            fork.take(&checkpoint, sent_at);
        }
        self.hosts[host.index()].named = Some(Named { checkpoint, seen_by: now });
    }

    /// From a conflict on there are several branches; and each server that says it is a primary too may be a new one, whose
    /// replicas were taken for the present branch's until now.
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
            let state = &self.hosts[index];
            let (Some(host), Some(identity)) = (host, &state.identity) else { continue };
            let is_new = fork.heed((host, identity.started_us), now);
            let is_beside = |branch: Branch| {
                branch.timeline == fork.timeline && !branch.is_of(host, identity.started_us, fork.timeline)
            };
            if is_new && self.branch.is_some_and(is_beside) {
                fork.doubt(state.in_recovery_at, now);
                let (cluster, host) = (&self.name, &self.host_names[index]);
                tracing::warn!(%cluster, %host, "another primary on this timeline: replicas that were proved since this one was \
                    last seen in recovery take no reads until a checkpoint proves them");
            }
        }
    }

    /// Which replicas of `hosts` are on that branch: those on its timeline. Where several servers went on under one number it
    /// takes a checkpoint that only that branch has; what was proved before any of them began goes on to count for
    /// the branch that it was proved for.
    pub(super) fn prove(hosts: &mut [HostState], branch: Option<Branch>, fork: Option<&Fork>) {
        let Some(branch) = branch else { return };
        let fork = fork.filter(|fork| fork.timeline >= branch.timeline);
        for host in hosts {
            if fork.is_some_and(|fork| host.proof.is_some_and(|proof| !fork.trusts(&proof))) {
                host.proof = None;
            }
            let Some(Measured { reading: Reading::Replica { timeline, .. }, received_at, .. }) = &host.reading else {
                continue;
            };
            let seen_by = match fork {
                _ if *timeline != Some(branch.timeline) => None,
                None => Some(*received_at),
                Some(fork) => host.named.as_ref().filter(|it| fork.is_own(&it.checkpoint)).map(|it| it.seen_by),
            };
            match seen_by {
                // What showed it first shows most.
                Some(_) if host.is_proved_on(branch.history) => {}
                Some(seen_by) => host.proof = Some(Proof { history: branch.history, seen_by }),
                None if fork.is_none() => host.proof = None,
                None => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "fork_tests.rs"]
mod tests;
