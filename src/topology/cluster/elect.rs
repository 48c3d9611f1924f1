//! Which host of the cluster may be written to, and the history that it is on. The rule itself is `model::Election`'s;
//! here it is asked after each event, and what follows from it is kept.

use std::time::Instant;

use super::{ClusterState, Effects, fork::Fork};
use crate::{
    model::{Floor, Histories, HistoryId, HostHealth, HostId, Lsn, Role, Said, Sample, SwitchPoint, Timeline, Verdict},
    postgres::Reading,
    topology::host::{HostState, Measured},
};

/// The history that is current, and the server that it was read on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Branch {
    pub(super) history: HistoryId,
    pub(super) timeline: Timeline,
    host: HostId,
    started_us: u64,
}

impl Branch {
    /// Whether that server goes on with it when it says that it is a primary on `timeline`.
    pub(super) fn is_of(&self, host: HostId, started_us: u64, timeline: Timeline) -> bool {
        self.timeline == timeline && (self.host == host || self.started_us == started_us)
    }
}

impl ClusterState {
    /// Finds the primary, and the history it is on.
    pub(in crate::topology) fn elect(&mut self, histories: &mut Histories, now: Instant, effects: &mut Effects) {
        self.settle_identity(effects);
        if self.branch.is_none() && !self.hosts.iter().all(|host| host.reported) {
            // At the start a primary that was left behind could answer first: every host is heard before one is chosen.
            return;
        }
        let said: Vec<_> = (0..self.hosts.len()).map(|index| self.said(index)).collect();
        let was_conflict = self.election.is_conflict();
        let verdict = self.election.decide(&said, now);
        let (chosen, until) = match verdict {
            Verdict::Primary { host, until } => (self.seats.at(host.index()), Some(until)),
            Verdict::Vacant | Verdict::Conflict => (None, None),
        };
        self.outvote(&said, verdict, effects);
        self.tell_of(was_conflict, chosen, now, effects);
        self.primary = chosen;
        self.lease_until = until;
        self.heed_rivals(&said, chosen, now);
        if let Some(host) = chosen {
            self.begin_history(host, histories, now, effects);
        }
        Self::prove(&mut self.hosts, self.branch, self.fork.as_ref());
    }

    /// An operator has decided for one of the hosts that claim the role; false: it is none of several.
    pub(super) fn settle_conflict(&mut self, host: HostId) -> bool {
        let settled = self.election.is_conflict() && self.election.settle(host);
        if settled {
            let name = &self.host_names[host.index()];
            tracing::warn!(cluster = %self.name, host = %name, "an operator has decided that this host is the primary");
        }
        settled
    }

    fn said(&self, index: usize) -> Said {
        if self.seats.at(index).is_none() {
            return Said::NoPart;
        }
        let state = &self.hosts[index];
        let Some(identity) = &state.identity else { return Said::Nothing };
        if self.system_identifier.is_none() {
            return Said::Nothing;
        }
        if state.refused.is_some() || Some(identity.system_identifier) != self.system_identifier {
            return Said::NoPart;
        }
        match &state.reading {
            Some(Measured { reading: Reading::Replica { .. }, .. }) => Said::Replica,
            Some(Measured { reading: Reading::Primary { timeline, .. }, sent_at, .. }) => {
                Said::Primary { timeline: *timeline, until: *sent_at + self.settings.lease }
            }
            None if self.answers_elsewhere(index) => Said::NoPart,
            None => Said::Nothing,
        }
    }

    /// Whether the server that this name led to answers under another one: then the name claims nothing any more.
    fn answers_elsewhere(&self, index: usize) -> bool {
        let server = |host: &HostState| host.identity.as_ref().map(|it| (it.system_identifier, it.started_us));
        let is_it = |other: &HostState| other.reading.is_some() && other.refused.is_none();
        let own = server(&self.hosts[index]);
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != index);
        own.is_some() && others.map(|(_, other)| other).any(|other| is_it(other) && server(other) == own)
    }

    /// Connections to a primary that was not chosen are not handed out again: what was written there would be lost
    /// (rule 7). The one that only has yet to confirm its role keeps them: each is judged again before it is used.
    fn outvote(&mut self, said: &[Said], verdict: Verdict, effects: &mut Effects) {
        for (index, said) in said.iter().enumerate() {
            let Some(host) = self.seats.at(index).filter(|_| matches!(said, Said::Primary { .. })) else { continue };
            let outvoted = match verdict {
                Verdict::Primary { host: chosen, .. } => index != chosen.index(),
                Verdict::Conflict => true,
                Verdict::Vacant => !self.election.claimants().contains(host),
            };
            if outvoted && !self.hosts[index].outvoted {
                self.bump_epoch(host, effects);
            }
            self.hosts[index].outvoted = outvoted;
        }
    }

    fn tell_of(&self, was_conflict: bool, chosen: Option<HostId>, now: Instant, effects: &mut Effects) {
        let cluster = &self.name;
        let name = |host: HostId| self.host_names[host.index()].as_ref();
        if self.election.is_conflict() && !was_conflict {
            effects.new_conflict = true;
            let hosts: Vec<_> = self.election.claimants().iter().map(name).collect();
            let timeline = self.election.timeline().map(Timeline::get);
            tracing::error!(%cluster, ?hosts, timeline, "several hosts claim to be the primary on one timeline: no writes \
                until an operator decides, by making all but one of them replicas, or taking them out of the configuration");
        } else if was_conflict && !self.election.is_conflict() {
            tracing::warn!(%cluster, "no more than one host claims to be the primary now");
            if self.fork.as_ref().map(Fork::timeline) == self.election.timeline() {
                tracing::warn!(%cluster, "replicas that are not proved yet take reads once they have replayed a checkpoint of it \
                    that is still to come (CHECKPOINT there, then on each of them, saves the wait)");
            }
        }
        match (self.primary, chosen) {
            (before, Some(host)) if before != chosen => {
                let timeline = self.election.timeline().map(Timeline::get);
                tracing::info!(%cluster, host = name(host), timeline, "primary");
            }
            (Some(before), None) if self.lease_until.is_some_and(|until| until <= now) => {
                tracing::warn!(%cluster, host = name(before), "the primary has not confirmed its role within its lease");
            }
            (Some(before), None) => tracing::warn!(%cluster, host = name(before), "the primary is lost"),
            _ => {}
        }
    }

    /// The chosen host's reading is the newest sample; and if its branch of history is not the current one, that begins.
    fn begin_history(&mut self, host: HostId, histories: &mut Histories, now: Instant, effects: &mut Effects) {
        let state = &self.hosts[host.index()];
        let (Some(identity), Some(measured)) = (&state.identity, &state.reading) else { return };
        let Reading::Primary { insert, timeline, .. } = measured.reading else { return };
        let (started_us, sent_at, start) = (identity.started_us, measured.sent_at, state.switch_point(insert));
        let goes_on = self.branch.filter(|branch| branch.is_of(host, started_us, timeline));
        let history = goes_on.map_or_else(
            || histories.begin(self.id, identity.system_identifier, timeline, start),
            |branch| branch.history,
        );
        if goes_on.is_none() {
            self.fork_off(host, timeline, now);
            self.samples.clear();
            effects.new_history = self.branch.is_some();
            self.renew_floor(history, insert, now);
        } else if self.branch.is_some_and(|branch| branch.started_us != started_us)
            && let Some(fork) = &mut self.fork
        {
            // Its name may lead to a copy now, with less than what its checkpoints showed.
            fork.begin_anew(now);
        }
        // A newer number is unique again.
        self.fork.take_if(|fork| fork.timeline() < timeline);
        self.branch = Some(Branch { history, timeline, host, started_us });
        self.samples.push(Sample { sent_at, insert });
    }

    /// Another server goes on under the number that the branch before had: a standby that was promoted beside it, a copy, or
    /// that one's own data directory at another address, which nobody can tell. Who was left may live on with its replicas.
    fn fork_off(&mut self, host: HostId, timeline: Timeline, now: Instant) {
        let is_beside = self.branch.is_some_and(|branch| branch.timeline == timeline);
        match &mut self.fork {
            Some(fork) => fork.begin_anew(now),
            None if is_beside => {
                self.fork = Some(Fork::new(timeline, now));
                let (cluster, host) = (&self.name, &self.host_names[host.index()]);
                tracing::warn!(%cluster, %host, %timeline, "another server has taken the primary's place on its timeline: \
                    replicas take reads once they have replayed a checkpoint of it that is still to come (CHECKPOINT there, \
                    then on each of them, saves the wait)");
            }
            None => {}
        }
    }

    /// Read after this broker had forgotten everything: all that was acknowledged before lies below (rule 10). Again
    /// when another primary appears while that still binds: an older one may have been read first.
    fn renew_floor(&mut self, history: HistoryId, insert: Lsn, now: Instant) {
        let binds = match self.floor {
            Floor::Unknown => true,
            Floor::At { until, .. } => now < until,
            Floor::NotNeeded => false,
        };
        if binds {
            self.floor = Floor::At { history, lsn: insert, until: now + self.settings.stick_timeout };
        }
    }

    /// Finds out which cluster this is, once: the one that the host configured as the primary belongs to, whatever its
    /// role is by now. Only while that one is away, or when none is configured, the first to say that it is a primary
    /// decides: it could be another cluster's, behind a wrong name.
    fn settle_identity(&mut self, effects: &mut Effects) {
        if self.system_identifier.is_some() {
            return;
        }
        let by_name = self.configured_primary.map(|host| &self.hosts[host.index()]);
        let deciding = match by_name {
            Some(HostState { identity: Some(identity), .. }) => Some(identity),
            Some(host) if host.health.now() == HostHealth::Unknown => None,
            _ => self.hosts.iter().find(|host| host.last_role == Some(Role::Primary)).and_then(|h| h.identity.as_ref()),
        };
        let Some(identity) = deciding else { return };
        self.system_identifier = Some(identity.system_identifier);
        self.geometry = identity.geometry;
        effects.system_identifier = self.system_identifier;
        self.check_identities(effects);
    }
}

impl HostState {
    /// Where this host, now a primary whose insert position is `insert`, left its parent's history.
    ///
    /// `pg_last_wal_replay_lsn()` says it exactly only if the promotion was watched over one connection: a crash of the
    /// promoted server replays WAL too, and moves it up. All that it had replayed as a replica before is in any case kept.
    fn switch_point(&self, insert: Lsn) -> SwitchPoint {
        let promoted_at = match self.reading.as_ref().map(|measured| &measured.reading) {
            Some(Reading::Primary { promoted_at, .. }) => *promoted_at,
            _ => None,
        };
        let latest = promoted_at.unwrap_or(insert).min(insert);
        let sure = if self.promotion_watched && promoted_at.is_some() { Some(latest) } else { self.last_replay };
        SwitchPoint { sure: sure.unwrap_or(Lsn::ZERO).min(latest), latest }
    }
}
