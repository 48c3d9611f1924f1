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
    promoted: Option<HostId>,
    /// Why some of its hosts take no reads, as it was logged last.
    refused: Option<Arc<str>>,
}

impl ClusterState {
    /// The cluster whose primary its hosts follow, if it has none of its own.
    pub(in crate::topology) fn follows(&self) -> Option<ClusterId> {
        self.follows
    }

    /// Takes the identity of the cluster that it follows, once that is known. Called before each view.
    pub(in crate::topology) fn adopt(&mut self, leader: &ClusterState) -> Effects {
        let mut effects = Effects::default();
        if self.system_identifier.is_none() && leader.system_identifier.is_some() {
            self.system_identifier = leader.system_identifier;
            self.geometry = leader.geometry;
            effects.system_identifier = self.system_identifier;
            self.check_identities();
        }
        self.look_for_a_promotion();
        effects
    }

    fn look_for_a_promotion(&mut self) {
        let is_promoted = |index: &usize| {
            let host = &self.hosts[*index];
            host.refused.is_none()
                && host.last_role == Some(Role::Primary)
                && host.identity.as_ref().map(|identity| identity.system_identifier) == self.system_identifier
        };
        if self.system_identifier.is_some() && self.following.promoted.is_none() {
            let found = (0..self.hosts.len()).find(is_promoted);
            self.following.promoted = found.map(|index| HostId::new(index as u16));
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
        if let Some(host) = self.following.promoted {
            return Some(Arc::from(format!(
                "{} is a primary, and so may be what its cluster's hosts follow: set use_own without reuse_primary if the \
                 database was moved there, or rebuild the hosts as replicas of {}'s primary and restart the broker",
                self.host_names[host.index()],
                leader.name
            )));
        }
        let (_, timeline) = leader.history?;
        let stray = |(state, name): (&super::HostState, &Arc<str>)| {
            if let Some(why) = &state.refused {
                return Some(format!("{name}: {why}"));
            }
            let other = state.follows_timeline().filter(|own| *own != timeline)?;
            Some(format!("{name}: it is on timeline {other}, the primary of {} on {timeline}", leader.name))
        };
        let strays: Vec<String> = self.hosts.iter().zip(&self.host_names).filter_map(stray).collect();
        (!strays.is_empty()).then(|| Arc::from(strays.join("; ")))
    }
}
