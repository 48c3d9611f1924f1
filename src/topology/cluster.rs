//! One cluster's state as the monitor keeps it: a pure function of the events. No I/O; the clock is an argument.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ClusterSpec, HostNews,
    host::{HostState, Measured},
};
use crate::{
    model::{
        ClusterId, ClusterView, Floor, Histories, HistoryId, HostHealth, HostId, HostView, Lsn, Place, Role, Sample,
        SampleRing, Timeline, WalGeometry,
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
}

#[derive(Debug)]
pub(super) struct ClusterState {
    id: ClusterId,
    name: Arc<str>,
    host_names: Vec<Arc<str>>,
    places: Vec<Place>,
    hosts: Vec<HostState>,
    stick_timeout: Duration,
    /// The host whose server decides which cluster this is.
    configured_primary: Option<HostId>,
    system_identifier: Option<u64>,
    history: Option<(HistoryId, Timeline)>,
    geometry: WalGeometry,
    primary: Option<HostId>,
    rivals: bool,
    samples: SampleRing,
    floor: Floor,
}

impl ClusterState {
    pub(super) fn new(id: ClusterId, spec: &ClusterSpec, stick_timeout: Duration) -> ClusterState {
        ClusterState {
            id,
            name: spec.name.as_str().into(),
            host_names: spec.hosts.iter().map(|(name, _)| name.as_str().into()).collect(),
            places: spec.places.clone(),
            hosts: spec.hosts.iter().map(|_| HostState::default()).collect(),
            stick_timeout,
            configured_primary: spec.configured_primary,
            system_identifier: None,
            history: None,
            geometry: WalGeometry::default(),
            primary: None,
            rivals: false,
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
                self.read(host, Measured { reading, sent_at, received_at }, &mut effects)
            }
            HostNews::ProbeFailed { why } => self.failed(host, &why),
            // One connect that failed is a hint, not a proof: the prober finds out, at once.
            HostNews::ConnectFailed { why } => {
                tracing::debug!(cluster = %self.name, host = %self.host_names[host.index()], reason = why, "connect failed");
                effects.probe_now = true;
            }
            HostNews::Connected { facts } => self.connected(host, &facts, &mut effects),
        }
        self.elect(histories, now, &mut effects);
        effects
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
        // A new probe connection proves nothing about positions measured over the old one.
        state.reading = None;
        state.identity = Some(identity);
        state.refused = None;
        self.check_identities();
    }

    /// A server of another cluster, or one that another name leads to already, takes no part: warned of by name.
    fn check_identity(&mut self, host: HostId) {
        let Some(identity) = &self.hosts[host.index()].identity else { return };
        let twin = self.hosts.iter().zip(&self.host_names).take(host.index()).find(|(other, _)| {
            // A name that leads nowhere any more keeps no other from its server.
            other.refused.is_none()
                && other.health != HostHealth::Down
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
            state.health = HostHealth::Down;
            state.reading = None;
        }
        state.refused = refused;
    }

    /// One server's identity decides on another's part in the cluster too.
    fn check_identities(&mut self) {
        (0..self.hosts.len()).for_each(|index| self.check_identity(HostId::new(index as u16)));
    }

    fn read(&mut self, host: HostId, measured: Measured, effects: &mut Effects) {
        let state = &mut self.hosts[host.index()];
        let comes_up = state.health != HostHealth::Up && state.refused.is_none();
        if comes_up {
            tracing::info!(cluster = %self.name, host = %self.host_names[host.index()], "host is up");
        }
        state.health = if state.refused.is_some() { HostHealth::Down } else { HostHealth::Up };
        state.reported = true;
        state.reading = Some(measured);
        let role = state.role();
        let before = std::mem::replace(&mut state.last_role, role);
        if comes_up {
            self.check_identities();
        }
        if before.is_some() && before != role {
            tracing::warn!(cluster = %self.name, host = %self.host_names[host.index()], role = role.map(Role::as_str), "role changed");
            self.bump_epoch(host, effects);
        }
    }

    fn failed(&mut self, host: HostId, why: &str) {
        let state = &mut self.hosts[host.index()];
        if state.health != HostHealth::Down {
            tracing::warn!(cluster = %self.name, host = %self.host_names[host.index()], reason = why, "host is down");
        }
        state.health = HostHealth::Down;
        state.reported = true;
        self.check_identities();
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
            if other_server && state.health == HostHealth::Up {
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
            Some(HostState { health: HostHealth::Unknown, .. }) => None,
            _ => self.hosts.iter().find(|host| host.last_role == Some(Role::Primary)).and_then(|h| h.identity.as_ref()),
        };
        let Some(identity) = deciding else { return };
        self.system_identifier = Some(identity.system_identifier);
        self.geometry = identity.geometry;
        effects.system_identifier = self.system_identifier;
        self.check_identities();
    }

    /// Finds the primary, and the history it is on.
    fn elect(&mut self, histories: &mut Histories, now: Instant, effects: &mut Effects) {
        self.settle_identity(effects);
        let known = self.system_identifier;
        let claims = (0..self.hosts.len()).filter_map(|index| self.hosts[index].as_primary(index));
        let primaries: Vec<_> = claims.filter(|claim| Some(claim.system_identifier) == known).collect();
        let oldest = self.history.map(|(_, timeline)| timeline);
        if oldest.is_none() && !self.hosts.iter().all(|host| host.reported) {
            // At the start a primary that was left behind could answer first: every host is heard before one is chosen.
            return;
        }
        let claimants: Vec<_> = primaries.iter().map(|claim| claim.host).collect();
        // A primary of an older timeline was left behind by a promotion: it gets nothing more from this broker.
        let newest = primaries
            .iter()
            .map(|primary| primary.timeline)
            .max()
            .filter(|newest| oldest.is_none_or(|oldest| *newest >= oldest));
        let chosen: Vec<_> = primaries.into_iter().filter(|primary| Some(primary.timeline) == newest).collect();
        let [primary] = chosen.as_slice() else {
            if chosen.len() > 1 && !self.rivals {
                tracing::error!(cluster = %self.name, "more than one primary on the same timeline: no writes until one is gone");
            }
            self.rivals = chosen.len() > 1;
            self.primary = None;
            return self.outvote(&claimants, None, effects);
        };
        self.outvote(&claimants, Some(primary.host), effects);
        self.rivals = false;
        if self.primary != Some(primary.host) {
            tracing::info!(cluster = %self.name, host = %self.host_names[primary.host.index()], timeline = primary.timeline.get(), "primary");
        }
        self.primary = Some(primary.host);
        if Some(primary.timeline) != oldest {
            // Where it left its parent, or else the first position read on it: nothing at or below is lost (rule 6).
            let start = primary.promoted_at.unwrap_or(primary.insert);
            let history = histories.begin(self.id, primary.system_identifier, primary.timeline, start);
            self.history = Some((history, primary.timeline));
            self.samples.clear();
            effects.new_history = oldest.is_some();
            self.renew_floor(history, primary.insert, now);
        }
        self.samples.push(Sample { sent_at: primary.sent_at, insert: primary.insert });
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
            self.floor = Floor::At { history, lsn: insert, until: now + self.stick_timeout };
        }
    }

    /// Connections to a primary that was not chosen, or is not any more, are not handed out again: what was written
    /// there would be lost (rule 7).
    fn outvote(&mut self, claimants: &[HostId], chosen: Option<HostId>, effects: &mut Effects) {
        for &host in claimants {
            let outvoted = Some(host) != chosen;
            if outvoted && !self.hosts[host.index()].outvoted {
                self.bump_epoch(host, effects);
            }
            self.hosts[host.index()].outvoted = outvoted;
        }
    }

    /// What routing reads.
    pub(super) fn view(&self) -> ClusterView {
        let hosts = (0..self.hosts.len()).map(|index| self.host_view(index)).collect();
        let mut view = ClusterView::unknown(self.id, Arc::clone(&self.name), self.geometry, hosts);
        view.system_identifier = self.system_identifier;
        view.history = self.history.map(|(history, _)| history);
        view.timeline = self.history.map(|(_, timeline)| timeline);
        view.primary = self.primary;
        view.primary_reachable = self.primary.is_some();
        view.newest_sample = self.samples.newest();
        view.floor = self.floor;
        view
    }

    fn host_view(&self, index: usize) -> HostView {
        let state = &self.hosts[index];
        let mut view = HostView::unknown(HostId::new(index as u16), Arc::clone(&self.host_names[index]));
        view.health = state.health;
        view.epoch = state.epoch;
        view.place = self.places.get(index).copied().unwrap_or_default();
        view.incarnation = state.identity.as_ref().map_or(0, |identity| identity.started_us);
        let Some(Measured { reading, sent_at, .. }) = &state.reading else { return view };
        view.role = state.role();
        view.measured_at = Some(*sent_at);
        match reading {
            Reading::Primary { insert, timeline, .. } => {
                view.replay = Some(*insert);
                view.history = self.history.filter(|(_, current)| current == timeline).map(|(history, _)| history);
            }
            Reading::Replica { replay, timeline, .. } => {
                view.replay = *replay;
                // Proved on the primary's history, or on none.
                view.history =
                    self.history.filter(|(_, current)| Some(*current) == *timeline).map(|(history, _)| history);
                let passed =
                    view.history.and(*replay).and_then(|replay| self.samples.newest_passed(replay, self.geometry));
                view.passed_sample_at = passed.map(|sample| sample.sent_at);
                view.passed_last_sample = passed.is_some() && passed == self.samples.newest();
            }
        }
        view
    }
}
