//! A cluster without a primary of its own: its hosts are replicas of another cluster's primary, and are judged by that
//! one's samples and history for as long as they follow it. The moment one of them is promoted, none does any more.

use std::sync::Arc;

use super::{ClusterState, Effects};
use crate::model::{ClusterId, ClusterView, HostHealth, HostId, Role};

/// What a following cluster keeps beside the rest.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// A host of it that was seen as a primary of the same system. From then on a timeline's number proves nothing: two
    /// branches of one history may have the same.
    promoted: Option<Arc<str>>,
    /// Why some of its hosts take no reads, as it was logged last.
    refused: Option<Arc<str>>,
}

impl ClusterState {
    /// The cluster whose primary its hosts follow, if it has none of its own.
    pub(in crate::topology) fn follows(&self) -> Option<ClusterId> {
        self.follows
    }

    /// Its hosts follow that cluster's primary from now on; None: it has a primary of its own, which is yet to be found.
    /// When that changes, nothing that was proved for the one holds for the other.
    pub(in crate::topology) fn set_follows(&mut self, follows: Option<ClusterId>) -> Effects {
        let mut effects = Effects::default();
        if self.follows == follows {
            return effects;
        }
        let (id, name, settings) = (self.id, self.name(), self.settings);
        let ClusterState { seats, host_names, places, hosts, .. } =
            std::mem::replace(self, ClusterState::new(id, &name, settings));
        *self = ClusterState { seats, host_names, places, hosts, follows, ..ClusterState::new(id, &name, settings) };
        if self.hosts.is_empty() {
            return effects;
        }
        for host in &mut self.hosts {
            (host.proof, host.outvoted, host.refused) = (None, false, None);
        }
        // Connections were checked for what the cluster was until now; 0: of whichever system it will be.
        for host in self.seats.ids().collect::<Vec<_>>() {
            self.bump_epoch(host, &mut effects);
        }
        effects.system_identifier = Some(0);
        effects.new_history = true;
        effects
    }

    /// Takes the identity of the cluster that it follows, once that is known, and finds out which of its hosts are on that
    /// one's branch of history. Called before each view.
    pub(in crate::topology) fn adopt(&mut self, leader: &ClusterState) -> Effects {
        let mut effects = Effects::default();
        if self.system_identifier.is_none() && leader.system_identifier.is_some() {
            self.system_identifier = leader.system_identifier;
            self.geometry = leader.geometry;
            effects.system_identifier = self.system_identifier;
            self.check_identities(&mut effects);
        }
        Self::prove(&mut self.hosts, leader.branch, leader.fork.as_ref());
        self.look_for_a_promotion();
        effects
    }

    fn look_for_a_promotion(&mut self) {
        let is_promoted = |host: &HostId| {
            let host = &self.hosts[host.index()];
            host.refused.is_none()
                && host.last_role == Some(Role::Primary)
                && host.identity.as_ref().map(|identity| identity.system_identifier) == self.system_identifier
        };
        if self.system_identifier.is_some() && self.following.promoted.is_none() {
            self.following.promoted = self.seats.ids().find(is_promoted).map(|host| self.host_name(host));
        }
    }

    /// What routing reads: no primary of its own, all else as the leader's primary has it.
    pub(in crate::topology) fn view_following(&mut self, leader: &ClusterState) -> ClusterView {
        let mut view = self.view_by(leader);
        view.primary = None;
        view.refused = self.refusal(leader);
        if self.following.promoted.is_some() {
            for host in &mut view.hosts {
                host.health = HostHealth::Down;
                host.history = None;
            }
        }
        if self.following.refused != view.refused {
            match &view.refused {
                Some(why) => {
                    tracing::warn!(cluster = %self.name, follows = %leader.name, reason = %why, "hosts that should follow take no reads")
                }
                None => tracing::info!(cluster = %self.name, follows = %leader.name, "every host follows"),
            }
            self.following.refused.clone_from(&view.refused);
        }
        view
    }

    /// Why hosts of it take no reads; `None`: all that answer follow, or nobody can say yet.
    fn refusal(&self, leader: &ClusterState) -> Option<Arc<str>> {
        if let Some(promoted) = &self.following.promoted {
            return Some(Arc::from(format!(
                "{promoted} is a primary, and so may be what its cluster's hosts follow: set use_own without reuse_primary if the \
                 database was moved there, or rebuild the hosts as replicas of {}'s primary and restart the broker",
                leader.name
            )));
        }
        let branch = leader.branch?;
        let timeline = branch.timeline;
        let stray = |host: HostId| {
            let (state, name) = (&self.hosts[host.index()], &self.host_names[host.index()]);
            if let Some(why) = &state.refused {
                return Some(format!("{name}: {why}"));
            }
            let other = state.follows_timeline()?;
            if other == timeline {
                let is_unproved = !state.is_proved_on(branch.history);
                return is_unproved
                    .then(|| format!("{name}: {} had several primaries on timeline {timeline}", leader.name));
            }
            Some(format!("{name}: it is on timeline {other}, the primary of {} on {timeline}", leader.name))
        };
        let strays: Vec<String> = self.seats.ids().filter_map(stray).collect();
        (!strays.is_empty()).then(|| Arc::from(strays.join("; ")))
    }
}
