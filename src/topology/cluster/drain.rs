//! What an operator decides of a host, and what is shown for the decision.

use super::ClusterState;
use crate::model::{HostId, HostSet, Role};

impl ClusterState {
    /// Keeps new reads from a host, or lets it take them again; false, and nothing is changed: it is a primary, which has
    /// no substitute.
    pub(in crate::topology) fn set_drained(&mut self, host: HostId, drained: bool) -> bool {
        let is_primary = self.primary == Some(host) || self.hosts[host.index()].role() == Some(Role::Primary);
        if drained && is_primary {
            return false;
        }
        let state = &mut self.hosts[host.index()];
        if state.drained != drained {
            state.drained = drained;
            let (cluster, name) = (&self.name, &self.host_names[host.index()]);
            match drained {
                true => {
                    tracing::warn!(%cluster, host = %name, "an operator has drained the host: it takes no new reads")
                }
                false => tracing::info!(%cluster, host = %name, "an operator has restored the host"),
            }
        }
        true
    }

    /// Who claims to be the primary, by the ids of those who are here.
    pub(super) fn claimants(&self) -> HostSet {
        let claimants = self.election.claimants().iter();
        claimants.filter_map(|host| self.seats.at(host.index())).fold(HostSet::EMPTY, HostSet::with)
    }
}
