//! Whether the broker can serve, for orchestrators and load balancers: by the state of the hosts as it is published, which
//! a single failure does not change. What one call gets is `model::route`'s.

use super::Broker;
use crate::{
    model::{ClusterView, HostHealth, HostView},
    topology::Snapshot,
};

impl Broker {
    /// Whether it can serve, and why clusters cannot be served, a line each; both of one moment. It can when the start is over,
    /// and at least one cluster has a host for reads. One that is away is no reason: all brokers see the same, and would
    /// take every other database with it.
    pub fn readiness(&self) -> (bool, Vec<String>) {
        let snapshot = self.topology.snapshot();
        let has_started = self.has_started(&snapshot);
        judge(has_started, leaders(&snapshot))
    }

    /// Waits until the start is over: some cluster can be served, and every host of the others was tried. It stays over,
    /// whatever becomes of the hosts and of the configuration.
    pub async fn started(&self) {
        let mut changes = self.topology.changes();
        loop {
            changes.mark_unchanged();
            if self.has_started(&self.topology.snapshot()) {
                return;
            }
            if changes.changed().await.is_err() {
                // The broker stops.
                return std::future::pending().await;
            }
        }
    }

    /// Why clusters cannot be served, a line each; empty when all can.
    pub fn unready(&self) -> Vec<String> {
        self.readiness().1
    }

    fn has_started(&self, snapshot: &Snapshot) -> bool {
        if !self.started.is_cancelled() && is_looked_over(leaders(snapshot)) {
            self.started.cancel();
        }
        self.started.is_cancelled()
    }
}

/// Where hosts follow another cluster's primary, that one stands in for them.
fn leaders(snapshot: &Snapshot) -> impl Iterator<Item = &ClusterView> {
    snapshot.clusters.iter().filter(|view| view.follows.is_none())
}

fn judge<'a>(has_started: bool, views: impl Iterator<Item = &'a ClusterView>) -> (bool, Vec<String>) {
    let (mut any, mut wrong) = (false, Vec::new());
    for view in views {
        match what_is_wrong(view) {
            Some(why) => wrong.push(why),
            None => any = true,
        }
    }
    (has_started && any, wrong)
}

/// Whether some cluster can be served, and more is not to be expected of the others: each of their hosts was tried. A
/// cluster whose hosts nobody has named yet is not waited for.
fn is_looked_over<'a>(views: impl Iterator<Item = &'a ClusterView>) -> bool {
    let mut any = false;
    for view in views {
        let is_served = what_is_wrong(view).is_none();
        any |= is_served;
        if !is_served && view.hosts.iter().any(|host| host.health == HostHealth::Unknown) {
            return false;
        }
    }
    any
}

/// Why not even reads can be served; None: those that need no primary can, at least. Hosts that are suspect serve.
fn what_is_wrong(view: &ClusterView) -> Option<String> {
    let can_read = view.primary_host().is_some() || view.hosts.iter().any(HostView::is_usable_replica);
    match (can_read, view.history) {
        (false, _) if view.conflict => Some(format!("cluster {}: several hosts claim to be the primary", view.name)),
        (false, _) => Some(format!("cluster {}: no host is up", view.name)),
        // Until then no read can be judged, and no write be sent.
        (true, None) => Some(format!("cluster {}: no primary was found yet", view.name)),
        (true, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostId, test_support};

    /// A cluster of a primary and a replica.
    fn view(primary: HostHealth, replica: HostHealth) -> ClusterView {
        let histories = test_support::histories(&[1, 100]);
        let history = histories.current(test_support::CLUSTER).unwrap();
        let mut view = test_support::view(&histories, 150, vec![test_support::replica(1, history, 150, 0)]);
        (view.hosts[0].health, view.hosts[1].health) = (primary, replica);
        // As the monitor keeps it: a primary that is down has lost its role.
        view.primary = primary.is_usable().then_some(HostId::new(0));
        view
    }

    #[test]
    fn a_host_that_may_be_failing_serves_and_one_that_is_down_kept_waiting_or_drained_does_not() {
        use HostHealth::{Down, Quarantined, Suspect, Unknown, Up};
        for (primary, replica, served) in [
            (Up, Up, true),
            (Suspect, Down, true),
            (Down, Suspect, true),
            (Suspect, Suspect, true),
            (Down, Quarantined, false),
            (Down, Unknown, false),
            (Unknown, Unknown, false),
            (Down, Down, false),
        ] {
            let why = what_is_wrong(&view(primary, replica));
            let expected = (!served).then(|| "cluster main: no host is up".to_owned());
            assert_eq!(why, expected, "{primary:?} {replica:?}");
        }
        let mut drained = view(Down, Up);
        drained.hosts[1].drained = true;
        assert!(what_is_wrong(&drained).is_some());
        let mut conflict = view(Down, Down);
        conflict.conflict = true;
        assert_eq!(what_is_wrong(&conflict).unwrap(), "cluster main: several hosts claim to be the primary");
        conflict.hosts[1].health = Up;
        assert_eq!(what_is_wrong(&conflict), None, "reads that need no primary go on");
        let mut fresh = view(Up, Up);
        fresh.history = None;
        assert_eq!(what_is_wrong(&fresh).unwrap(), "cluster main: no primary was found yet");
    }

    #[test]
    fn it_is_ready_while_any_cluster_can_be_served_and_never_by_the_lack_of_a_reason() {
        use HostHealth::{Down, Up};
        let judged = |has_started, views: &[ClusterView]| {
            let (can_serve, wrong) = judge(has_started, views.iter());
            (can_serve, wrong.len())
        };
        assert_eq!(judged(true, &[view(Up, Up), view(Down, Down)]), (true, 1));
        assert_eq!(judged(true, &[view(Down, Down)]), (false, 1));
        assert_eq!(judged(false, &[view(Up, Up)]), (false, 0), "the start is not over");
        assert_eq!(judged(true, &[]), (false, 0));
    }

    #[test]
    fn the_start_is_over_when_one_cluster_can_be_served_and_the_others_were_tried() {
        use HostHealth::{Down, Unknown, Up};
        let started = |views: &[ClusterView]| is_looked_over(views.iter());
        assert!(!started(&[]) && !started(&[view(Down, Down)]));
        assert!(started(&[view(Up, Unknown)]), "a replica that is still looked for holds up nobody");
        assert!(!started(&[view(Up, Up), view(Down, Unknown)]), "it may be found in a moment");
        assert!(!started(&[view(Down, Unknown), view(Up, Up)]));
        assert!(started(&[view(Up, Up), view(Down, Down)]), "it was not found");
        let nowhere = ClusterView { hosts: Vec::new(), primary: None, ..view(Down, Down) };
        assert!(started(&[nowhere, view(Up, Up)]));
    }
}
