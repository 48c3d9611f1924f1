//! Which hosts a cluster has, and how they come and go: ids that stay with those that stay, and a state in which a host
//! that left leaves nothing behind. What is known of hosts is the cluster's.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use super::{
    cluster::{ClusterState, Effects},
    host::HostState,
};
use crate::{
    model::{self, ClusterId, Histories, HostId, HostSet, LeftPrimary},
    postgres::{HostIdentity, Target},
};

/// A cluster to watch.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its name.
    pub name: String,
    /// The name of the cluster whose primary its hosts follow, which is among those that are given with it; None: it has a
    /// primary of its own.
    pub follows: Option<String>,
    /// Its hosts: names are unique, and there are no more than [`HostSet::CAPACITY`].
    pub hosts: Vec<HostSpec>,
}

/// A host to watch.
#[derive(Debug, Clone)]
pub struct HostSpec {
    /// The name it is called by.
    pub name: String,
    /// The server and the login.
    pub target: Target,
    /// Whether the configuration takes it for the primary; a hint.
    pub configured_primary: bool,
    /// Its part in the calls.
    pub place: model::Place,
}

/// A cluster with the ids of its hosts.
#[derive(Debug, Clone)]
pub struct ClusterMembers {
    /// Its id: stays with its name.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// The cluster whose primary its hosts follow.
    pub follows: Option<ClusterId>,
    /// Its hosts, as they were given.
    pub hosts: Vec<Member>,
}

/// A host with its id.
#[derive(Debug, Clone)]
pub struct Member {
    /// Stays for as long as its name and its address do.
    pub id: HostId,
    /// What connections to it must agree on.
    pub identity: Arc<HostIdentity>,
    /// The host as it was given last.
    pub spec: HostSpec,
}

/// Gives ids to clusters and hosts: those that stay keep theirs. A host is the same one while its name and address are;
/// its login may change.
#[derive(Debug, Default)]
pub struct Roster {
    clusters: HashMap<String, RosterCluster>,
}

#[derive(Debug)]
struct RosterCluster {
    id: ClusterId,
    places: Vec<Place>,
    /// Counts departures.
    left: u64,
}

#[derive(Debug)]
struct Place {
    /// Of the present occupant, or the last one.
    id: HostId,
    occupant: Option<Member>,
    /// The departure after which it was free.
    left_at: u64,
}

impl Roster {
    /// The ids for what is configured now. What is not in `specs` has left.
    pub fn assign(&mut self, specs: Vec<ClusterSpec>) -> Vec<ClusterMembers> {
        let mut members = Vec::with_capacity(specs.len());
        for (name, cluster) in &mut self.clusters {
            if !specs.iter().any(|spec| spec.name == *name) {
                cluster.assign(Vec::new());
            }
        }
        let followed: Vec<_> = specs.iter().map(|spec| spec.follows.clone()).collect();
        for ClusterSpec { name, hosts, .. } in specs {
            let next = ClusterId::new(self.clusters.len() as u32);
            let known = self.clusters.entry(name.clone());
            let cluster = known.or_insert_with(|| RosterCluster { id: next, places: Vec::new(), left: 0 });
            members.push(ClusterMembers { id: cluster.id, name, follows: None, hosts: cluster.assign(hosts) });
        }
        // Which may have come after the one that follows it.
        for (cluster, leader) in members.iter_mut().zip(followed) {
            cluster.follows = leader.and_then(|leader| self.clusters.get(&leader)).map(|leader| leader.id);
        }
        members
    }
}

impl RosterCluster {
    fn assign(&mut self, specs: Vec<HostSpec>) -> Vec<Member> {
        for place in &mut self.places {
            let stays = |member: &Member| specs.iter().any(|spec| is_same(&member.spec, spec));
            if place.occupant.as_ref().is_some_and(|member| !stays(member)) {
                place.occupant = None;
                self.left += 1;
                place.left_at = self.left;
            }
        }
        // The capacity is the configuration's limit: who comes has a place.
        specs.into_iter().filter_map(|spec| self.seat(spec)).collect()
    }

    fn seat(&mut self, spec: HostSpec) -> Option<Member> {
        let occupants = self.places.iter_mut().filter_map(|place| place.occupant.as_mut());
        if let Some(member) = occupants.into_iter().find(|member| is_same(&member.spec, &spec)) {
            member.spec = spec;
            return Some(member.clone());
        }
        let identity = Arc::default();
        if self.places.len() < HostSet::CAPACITY {
            let member = Member { id: HostId::new(self.places.len() as u16), identity, spec };
            self.places.push(Place { id: member.id, occupant: Some(member.clone()), left_at: 0 });
            return Some(member);
        }
        // The place that was left longest ago: calls that have tried its last occupant leave the next one out too.
        let free = self.places.iter_mut().filter(|place| place.occupant.is_none()).min_by_key(|place| place.left_at)?;
        free.id = free.id.next_occupant();
        let member = Member { id: free.id, identity, spec };
        free.occupant = Some(member.clone());
        Some(member)
    }
}

fn is_same(one: &HostSpec, other: &HostSpec) -> bool {
    one.name == other.name && address(&one.target) == address(&other.target)
}

fn address(target: &Target) -> (&str, Option<IpAddr>, u16) {
    (&target.host, target.ip, target.port)
}

/// Who is at each place of a cluster.
#[derive(Debug, Default)]
pub(super) struct Seats(Vec<Option<HostId>>);

impl Seats {
    /// The host at that place.
    pub(super) fn at(&self, index: usize) -> Option<HostId> {
        self.0.get(index).copied().flatten()
    }

    /// All hosts.
    pub(super) fn ids(&self) -> impl Iterator<Item = HostId> + '_ {
        self.0.iter().copied().flatten()
    }

    /// Whether that very host is here, and no later one at its place.
    pub(super) fn contains(&self, host: HostId) -> bool {
        self.at(host.index()) == Some(host)
    }
}

impl ClusterState {
    /// Takes the hosts that came in, and lets those that are not among `members` go. Of those that stay all that is known
    /// stays.
    pub(super) fn set_members(&mut self, members: &[Member], histories: &mut Histories, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let leaving: Vec<_> = self.seats.ids().filter(|id| members.iter().all(|member| member.id != *id)).collect();
        // A server that is known by another name now is asked at once.
        effects.probe_now = !leaving.is_empty();
        for host in leaving {
            self.remove(host);
        }
        for member in members.iter().filter(|member| !self.seats.contains(member.id)).collect::<Vec<_>>() {
            self.add(member);
        }
        for member in members {
            self.places[member.id.index()] = member.spec.place;
        }
        self.configured_primary = members.iter().find(|member| member.spec.configured_primary).map(|member| member.id);
        // One that left may have been the first of two names for a server.
        self.check_identities(&mut effects);
        self.elect_anew(histories, now, &mut effects);
        effects
    }

    fn add(&mut self, member: &Member) {
        let index = member.id.index();
        while self.hosts.len() <= index {
            self.seats.0.push(None);
            self.hosts.push(HostState::nobody());
            self.host_names.push("".into());
            self.places.push(model::Place::default());
        }
        self.seats.0[index] = Some(member.id);
        // Its last occupant may have left just now, without another election.
        self.election.forget(member.id);
        self.hosts[index] = HostState::default();
        self.host_names[index] = member.spec.name.as_str().into();
        if let Some(identifier) = self.system_identifier {
            member.identity.set_system_identifier(identifier);
        }
        tracing::info!(cluster = %self.name(), host = %member.spec.name, "host added");
    }

    fn remove(&mut self, host: HostId) {
        let index = host.index();
        if self.primary == Some(host) {
            // Nobody asks it any more, so what it has confirmed last is the bound.
            let incarnation = self.hosts[index].identity.as_ref().map(|identity| identity.started_us);
            let left = |(incarnation, until)| LeftPrimary { host, incarnation, until };
            self.left_primary = incarnation.zip(self.lease_until).map(left);
            self.primary = None;
        }
        tracing::info!(cluster = %self.name(), host = %self.host_names[index], "host removed");
        self.seats.0[index] = None;
        self.hosts[index] = HostState::nobody();
        self.host_names[index] = "".into();
    }

    /// Elects, and judges the primary that left by the result: once another server is the primary, or claims to be it,
    /// nothing more is committed there. Nor once its own server, found again by another name, has lost the role.
    pub(super) fn elect_anew(&mut self, histories: &mut Histories, now: Instant, effects: &mut Effects) {
        if self.follows().is_some() {
            return;
        }
        let before = self.primary;
        self.elect(histories, now, effects);
        let Some(LeftPrimary { incarnation, .. }) = self.left_primary else { return };
        let is_same_server = |primary: HostId| {
            self.hosts[primary.index()].identity.as_ref().is_some_and(|identity| identity.started_us == incarnation)
        };
        let is_lost = before.is_some() && self.primary.is_none();
        if is_lost || self.election.is_conflict() || self.primary.is_some_and(|primary| !is_same_server(primary)) {
            self.left_primary = None;
        }
    }
}

impl HostState {
    /// A place without a host: nothing is waited for, and nothing is claimed.
    fn nobody() -> HostState {
        HostState { reported: true, ..HostState::default() }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
