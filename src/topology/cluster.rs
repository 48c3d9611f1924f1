//! One cluster's state as the monitor keeps it: a pure function of the events. No I/O; the clock is an argument.

mod drain;
mod elect;
mod follow;
mod fork;

use std::{sync::Arc, time::Instant};

use self::{elect::Branch, follow::Following, fork::Fork};
use super::{
    HostNews, ProbeSettings, Told,
    host::{HostState, Measured},
    membership::Seats,
};
use crate::{
    model::{
        ClusterId, ClusterView, Election, Floor, HealthChange, HealthEvent, Histories, HostHealth, HostId, HostView,
        LeftPrimary, Place, Role, SampleRing, WalGeometry,
    },
    postgres::{Facts, Identity, Reading},
};

/// What the monitor has to do after an event, beside publishing the view.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Hosts whose connections made before are not to be handed out again, with the new epoch.
    pub(super) epochs: Vec<(HostId, u64)>,
    /// The cluster's identity has become known.
    pub(super) system_identifier: Option<u64>,
    /// A failover: positions that were waited for belong to the past.
    pub(super) new_history: bool,
    /// Something contradicts what is known: ask again at once.
    pub(super) probe_now: bool,
    /// The name of this host led to another server: ask that one.
    pub(super) contradicted: Option<HostId>,
    /// Hosts whose health has changed.
    pub(super) health: Vec<(HostId, HealthChange)>,
    /// Several hosts claim the primary's role, and did not before.
    pub(super) new_conflict: bool,
    /// Whom to answer once the view is published.
    pub(super) told: Option<Told>,
}

#[derive(Debug)]
pub(super) struct ClusterState {
    pub(super) id: ClusterId,
    name: Arc<str>,
    /// Who is at each place; by place are the names, weights and states too.
    pub(super) seats: Seats,
    pub(super) host_names: Vec<Arc<str>>,
    pub(super) places: Vec<Place>,
    pub(super) hosts: Vec<HostState>,
    pub(super) settings: ProbeSettings,
    /// The cluster whose primary its hosts follow; None: it has its own.
    follows: Option<ClusterId>,
    following: Following,
    /// The host whose server decides which cluster this is.
    pub(super) configured_primary: Option<HostId>,
    pub(super) system_identifier: Option<u64>,
    branch: Option<Branch>,
    geometry: WalGeometry,
    pub(super) election: Election,
    /// The newest timeline on which several primaries were seen: its number alone proves no replica's history.
    fork: Option<Fork>,
    pub(super) primary: Option<HostId>,
    /// The primary that was taken out of the configuration.
    pub(super) left_primary: Option<LeftPrimary>,
    pub(super) lease_until: Option<Instant>,
    samples: SampleRing,
    floor: Floor,
}

impl ClusterState {
    /// A cluster without hosts: see [`ClusterState::set_members`].
    pub(super) fn new(id: ClusterId, name: &str, settings: ProbeSettings) -> ClusterState {
        ClusterState {
            id,
            name: name.into(),
            seats: Seats::default(),
            host_names: Vec::new(),
            places: Vec::new(),
            hosts: Vec::new(),
            settings,
            follows: None,
            following: Following::default(),
            configured_primary: None,
            system_identifier: None,
            branch: None,
            geometry: WalGeometry::default(),
            election: Election::default(),
            fork: None,
            primary: None,
            left_primary: None,
            lease_until: None,
            samples: SampleRing::new(SampleRing::DEFAULT_CAPACITY),
            floor: Floor::Unknown,
        }
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    pub(super) fn host_name(&self, host: HostId) -> Arc<str> {
        Arc::clone(&self.host_names[host.index()])
    }

    /// Takes one event in.
    pub(super) fn apply(&mut self, host: HostId, news: HostNews, histories: &mut Histories, now: Instant) -> Effects {
        let mut effects = Effects::default();
        match news {
            HostNews::Identified { identity } => self.identified(host, identity, &mut effects),
            HostNews::Read { reading, sent_at, received_at } => {
                self.read(host, Measured { reading, sent_at, received_at }, now, &mut effects);
            }
            HostNews::ProbeFailed { why, certain } => self.failed(host, &why, certain, now, &mut effects),
            // One connect that failed is a hint, not a proof: the prober finds out, at once.
            HostNews::ConnectFailed { why, counts } => {
                tracing::debug!(cluster = %self.name, host = %self.host_names[host.index()], reason = why, "connect failed");
                effects.probe_now = true;
                if counts {
                    self.turn(host, HealthEvent::Doubted, now, &mut effects);
                }
            }
            HostNews::Checkpoint { checkpoint, sent_at } => self.checkpointed(host, checkpoint, sent_at, now),
            HostNews::Connected { facts } => self.connected(host, &facts, &mut effects),
            HostNews::Settled { answer } => {
                effects.told = Some(Told { answer, done: self.settle_conflict(host) });
            }
            HostNews::Drained { drained, answer } => {
                effects.told = Some(Told { answer, done: self.set_drained(host, drained) });
            }
        }
        self.elect_anew(histories, now, &mut effects);
        self.pardon(now, &mut effects);
        effects
    }

    /// Takes in that time has passed: a lease may have lapsed.
    pub(super) fn pass_time(&mut self, histories: &mut Histories, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.elect_anew(histories, now, &mut effects);
        effects
    }

    /// When time will next make a difference without an event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lease_until
    }

    /// Moves one host's health.
    fn turn(&mut self, host: HostId, event: HealthEvent, now: Instant, effects: &mut Effects) {
        let Some(change) = self.hosts[host.index()].health.on(event, now, &self.settings.health) else { return };
        let (cluster, name) = (&self.name, &self.host_names[host.index()]);
        let (from, to) = (change.from.as_str(), change.to.as_str());
        match change.to {
            HostHealth::Up | HostHealth::Unknown => tracing::info!(%cluster, host = %name, from, "host is {to}"),
            HostHealth::Suspect | HostHealth::Down => tracing::warn!(%cluster, host = %name, from, "host is {to}"),
            HostHealth::Quarantined => {
                let until = self.hosts[host.index()].health.quarantined_until();
                let seconds = until.map_or(0, |until| until.saturating_duration_since(now).as_secs());
                tracing::warn!(%cluster, host = %name, seconds, "host has failed too often: it takes no reads for a while");
            }
        }
        effects.health.push((host, change));
        if change.to == HostHealth::Down || change.from == HostHealth::Down {
            self.check_identities(effects);
        }
    }

    /// A host that flaps is better than none.
    fn pardon(&mut self, now: Instant, effects: &mut Effects) {
        // Hosts that follow another cluster's primary have that one to stand in for them.
        if self.follows.is_none()
            && self.primary.is_none()
            && !self.hosts.iter().any(|host| host.health.now().is_usable())
        {
            for index in 0..self.hosts.len() {
                self.turn(HostId::new(index as u16), HealthEvent::Pardoned, now, effects);
            }
        }
    }

    fn identified(&mut self, host: HostId, identity: Identity, effects: &mut Effects) {
        let name = &self.host_names[host.index()];
        if !identity.is_monitor {
            tracing::warn!(cluster = %self.name, host = %name, "the login role is not a member of pg_monitor: a replica's timeline \
                may stay unproved, and it then takes no reads that need a position (GRANT pg_monitor TO the role)");
        }
        let known = self.hosts[host.index()].identity.as_ref();
        if known.is_none_or(|known| {
            known.started_us != identity.started_us || known.system_identifier != identity.system_identifier
        }) {
            tracing::info!(cluster = %self.name, host = %name, version = %identity.version, "server identified");
            self.bump_epoch(host, effects);
        }
        let state = &mut self.hosts[host.index()];
        let is_same = state.identity.as_ref().is_some_and(|known| {
            known.started_us == identity.started_us && known.system_identifier == identity.system_identifier
        });
        // A new probe connection proves nothing about positions measured over the old one. A primary's role does not
        // hang on them: it has its lease.
        if !is_same || state.role() != Some(Role::Primary) {
            state.reading = None;
        }
        state.last_replay = state.last_replay.filter(|_| is_same);
        state.in_recovery_at = state.in_recovery_at.filter(|_| is_same);
        state.proof = state.proof.filter(|_| is_same);
        state.named = state.named.take().filter(|_| is_same);
        state.promotion_watched = false;
        state.identity = Some(identity);
        state.refused = None;
        self.check_identities(effects);
    }

    /// A server of another cluster, or one that another name leads to already, takes no part: warned of by name.
    fn check_identity(&mut self, host: HostId, effects: &mut Effects) {
        let Some(identity) = &self.hosts[host.index()].identity else { return };
        let twin = self.hosts.iter().zip(&self.host_names).take(host.index()).find(|(other, _)| {
            // A name that leads nowhere any more keeps no other from its server.
            other.refused.is_none()
                && other.health.now() != HostHealth::Down
                && other.identity.as_ref().is_some_and(|other| {
                    other.system_identifier == identity.system_identifier && other.started_us == identity.started_us
                })
        });
        let refused = match (self.system_identifier, twin) {
            (Some(expected), _) if expected != identity.system_identifier => {
                Some(format!("its system identifier is {}, the cluster's is {expected}", identity.system_identifier))
            }
            (_, Some((_, name))) => Some(format!("it is the server that {name} leads to; each server counts once")),
            _ => None,
        };
        let state = &mut self.hosts[host.index()];
        if refused.is_some() {
            if state.refused != refused {
                tracing::warn!(cluster = %self.name, host = %self.host_names[host.index()], reason = ?refused, "host takes no part");
            }
            // It may have been taken for one of ours until now.
            if let Some(change) = state.health.exclude() {
                effects.health.push((host, change));
            }
            state.reading = None;
        }
        state.refused = refused;
    }

    /// One server's identity decides on another's part in the cluster too.
    pub(super) fn check_identities(&mut self, effects: &mut Effects) {
        (0..self.hosts.len()).for_each(|index| self.check_identity(HostId::new(index as u16), effects));
    }

    fn read(&mut self, host: HostId, measured: Measured, now: Instant, effects: &mut Effects) {
        let state = &mut self.hosts[host.index()];
        state.reported = true;
        state.take(measured);
        let role = state.role();
        let before = std::mem::replace(&mut state.last_role, role);
        if state.refused.is_none() {
            self.turn(host, HealthEvent::Answered { as_primary: role == Some(Role::Primary) }, now, effects);
        }
        if before.is_some() && before != role {
            tracing::warn!(cluster = %self.name, host = %self.host_names[host.index()], role = role.map(Role::as_str), "role changed");
            self.bump_epoch(host, effects);
        }
    }

    fn failed(&mut self, host: HostId, why: &str, certain: bool, now: Instant, effects: &mut Effects) {
        let state = &mut self.hosts[host.index()];
        state.reported = true;
        if state.health.now() != HostHealth::Down {
            tracing::warn!(cluster = %self.name, host = %self.host_names[host.index()], reason = why, "a probe failed");
        }
        self.turn(host, if certain { HealthEvent::Gone } else { HealthEvent::Failed }, now, effects);
        let state = &mut self.hosts[host.index()];
        if state.health.now() == HostHealth::Down {
            // What it said last counts no more.
            state.reading = None;
        }
    }

    /// A pooled connection that reads less than the cached position, or another server, invalidates what is cached.
    fn connected(&mut self, host: HostId, facts: &Facts, effects: &mut Effects) {
        let state = &mut self.hosts[host.index()];
        let Some(identity) = &state.identity else { return };
        let other_server = identity.started_us != facts.started_us;
        // Only what was known before the connection asked can be contradicted by what it was told.
        let known = state.reading.as_ref().filter(|measured| measured.received_at <= facts.asked_at);
        let went_back = matches!(known.map(|measured| &measured.reading), Some(Reading::Replica { replay: Some(replay), .. })
            if facts.in_recovery && facts.lsn.is_none_or(|lsn| lsn < *replay));
        if other_server || went_back {
            let name = &self.host_names[host.index()];
            if other_server && state.health.now() == HostHealth::Up {
                tracing::warn!(cluster = %self.name, host = %name, "this name led to another server, or it has restarted: \
                    give every server a name of its own");
            }
            state.reading = None;
            effects.probe_now = true;
            effects.contradicted = other_server.then_some(host);
        }
    }

    fn bump_epoch(&mut self, host: HostId, effects: &mut Effects) {
        let state = &mut self.hosts[host.index()];
        state.epoch += 1;
        effects.epochs.push((host, state.epoch));
    }

    /// What routing reads.
    pub(super) fn view(&self) -> ClusterView {
        self.view_by(self)
    }

    /// Its hosts, judged by the primary of `leader`.
    fn view_by(&self, leader: &ClusterState) -> ClusterView {
        let hosts = self.seats.ids().map(|host| self.host_view(host, leader)).collect();
        let mut view = ClusterView::unknown(self.id, Arc::clone(&self.name), self.geometry, hosts);
        view.system_identifier = self.system_identifier;
        view.history = leader.branch.map(|branch| branch.history);
        view.timeline = leader.branch.map(|branch| branch.timeline);
        view.follows = self.follows;
        view.primary = self.primary;
        view.lease_until = leader.lease_until;
        view.conflict = self.election.is_conflict();
        view.claimants = self.claimants();
        view.left_primary = self.left_primary;
        view.primary_reachable = leader.primary.is_some();
        view.newest_sample = leader.samples.newest();
        view.floor = leader.floor;
        view
    }

    fn host_view(&self, host: HostId, leader: &ClusterState) -> HostView {
        let state = &self.hosts[host.index()];
        let mut view = HostView::unknown(host, Arc::clone(&self.host_names[host.index()]));
        view.health = state.health.now();
        view.ramp = state.health.ramp();
        view.quarantined_until = state.health.quarantined_until();
        view.epoch = state.epoch;
        view.place = self.places[host.index()];
        view.drained = state.drained;
        view.refused = state.refused.as_deref().map(Into::into);
        view.incarnation = state.identity.as_ref().map_or(0, |identity| identity.started_us);
        let Some(Measured { reading, sent_at, .. }) = &state.reading else { return view };
        view.role = state.role();
        view.measured_at = Some(*sent_at);
        match reading {
            Reading::Primary { insert, timeline, .. } => {
                view.replay = Some(*insert);
                view.history = leader.branch.filter(|branch| branch.timeline == *timeline).map(|branch| branch.history);
            }
            Reading::Replica { replay, timeline, .. } => {
                view.replay = *replay;
                // Proved on the primary's history, or on none.
                let is_on = |branch: &Branch| Some(branch.timeline) == *timeline && state.is_proved_on(branch.history);
                view.history = leader.branch.filter(is_on).map(|branch| branch.history);
                let passed =
                    view.history.and(*replay).and_then(|replay| leader.samples.newest_passed(replay, self.geometry));
                view.passed_sample_at = passed.map(|sample| sample.sent_at);
                view.passed_last_sample = passed.is_some() && passed == leader.samples.newest();
            }
        }
        view
    }
}
