//! Owns the account of a decision: which hosts would take a call, and why the others would not. It asks what `route` asks,
//! by the same gate, and takes nobody's turn.

use super::{Aim, Decision, Gate, RouteRequest, route, route_write};
use crate::model::{Balance, ClusterView, HistoryId, HostId, HostSet, HostView, Role, balance::tier};

/// Whether a host would take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may take the call.
    Takes,
    /// It could; others come first.
    NotNeeded,
    /// It is not up, or not known.
    NotUp,
    /// An operator has drained it.
    Drained,
    /// The call needs the primary.
    NotPrimary,
    /// It is not proved to be on the history that the call's position is of.
    OtherHistory,
    /// It has yet to replay the required position.
    Behind,
    /// It is further behind than is allowed, or how far is not known.
    Stale,
    /// It says that it is a primary, and is not the cluster's.
    OtherPrimary,
}

/// What would become of a call now.
#[derive(Debug, Clone)]
pub struct Account {
    /// Where it would go without waiting for a replica: of several hosts, one.
    pub decision: Decision,
    /// Whether it would first wait for a replica.
    pub waits: bool,
    /// Every host of the cluster.
    pub standings: Vec<(HostId, Standing)>,
}

/// Accounts for a read.
#[must_use]
pub fn account_for_read(view: &ClusterView, request: &RouteRequest<'_>) -> Account {
    let unbalanced = Balance::default();
    let at_once = RouteRequest { balance: &unbalanced, wait_until: None, ..*request };
    let decision = route(view, &at_once);
    let waits =
        matches!(route(view, &RouteRequest { wait_until: request.wait_until, ..at_once }), Decision::Wait { .. });
    let standing = |host: &HostView| match Aim::of(&at_once) {
        Aim::Nowhere => Standing::OtherHistory,
        Aim::Primary(_) => of_primary(view, host),
        Aim::Replica { required, .. } => {
            let gate = Gate::new(view, &at_once, required);
            let before = Gate { required, ..Gate::new(view, &at_once, required) };
            of_replica(host, &gate, &before, decision)
        }
    };
    let standings = view.hosts.iter().map(|host| (host.id, standing(host))).collect();
    Account { decision, waits, standings }
}

/// Accounts for a write.
#[must_use]
pub fn account_for_write(view: &ClusterView) -> Account {
    let standings = view.hosts.iter().map(|host| (host.id, of_primary(view, host))).collect();
    Account { decision: route_write(view, HostSet::EMPTY), waits: false, standings }
}

/// Of a call that needs the primary.
fn of_primary(view: &ClusterView, host: &HostView) -> Standing {
    match host.role {
        _ if view.primary_host().is_some_and(|primary| primary.id == host.id) => Standing::Takes,
        Some(Role::Replica) => Standing::NotPrimary,
        Some(Role::Primary) if view.primary != Some(host.id) => Standing::OtherPrimary,
        _ => Standing::NotUp,
    }
}

/// Of a read that a replica may take. `before` is the gate without the limit on the lag in bytes.
fn of_replica(host: &HostView, gate: &Gate<'_>, before: &Gate<'_>, decision: Decision) -> Standing {
    let view = gate.view;
    let takes = |is_it: bool| if is_it { Standing::Takes } else { Standing::NotNeeded };
    if host.role != Some(Role::Replica) {
        let is_chosen = matches!(decision, Decision::Send { host: chosen, .. } if chosen == host.id);
        return match host.role {
            _ if view.primary_host().is_some_and(|primary| primary.id == host.id) => takes(is_chosen),
            Some(_) if view.primary != Some(host.id) => Standing::OtherPrimary,
            _ => Standing::NotUp,
        };
    }
    let is_on_history = host.history == view.history && view.history.is_some_and(HistoryId::is_comparable);
    match host {
        _ if host.drained => Standing::Drained,
        _ if !host.health.is_usable() => Standing::NotUp,
        _ if before.required.is_some() && !is_on_history => Standing::OtherHistory,
        _ if !before.has_replayed(host) => Standing::Behind,
        _ if !gate.admits(host) => Standing::Stale,
        _ => takes(comes_first(host, gate)),
    }
}

/// Whether no other replica is preferred: one that is up, of a nearer place.
fn comes_first(host: &HostView, gate: &Gate<'_>) -> bool {
    gate.view.hosts.iter().filter(|other| gate.admits(other)).all(|other| tier(host) <= tier(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Binding, Consistency, HostHealth, Lsn, Place, RouteReason, test_support::*};
    use std::time::Duration;

    fn request<'a>(consistency: &'a Consistency, balance: &'a Balance, lsn: u64) -> RouteRequest<'a> {
        RouteRequest {
            consistency,
            binding: Binding::At { lsn: Lsn::new(lsn), may_be_lost: false },
            exclude: HostSet::EMPTY,
            balance,
            now: at(1000),
            max_lag: Duration::from_secs(5),
            max_lag_bytes: Some(500),
            wait_until: None,
        }
    }

    fn standings(account: &Account) -> Vec<Standing> {
        account.standings.iter().map(|(_, standing)| *standing).collect()
    }

    /// Each way not to take a read, and that `route` never chooses whom the account leaves out.
    #[test]
    fn every_host_is_accounted_for_as_it_is_routed() {
        let histories = histories(&[1, 100]);
        let (history, balance) = (histories.current(CLUSTER).unwrap(), Balance::default());
        let mut hosts: Vec<_> = (1..=9).map(|index| replica(index, history, 900, 900)).collect();
        hosts[1].drained = true;
        hosts[2].health = HostHealth::Down;
        hosts[3].replay = Some(Lsn::new(100));
        hosts[4].history = None;
        hosts[5].passed_sample_at = None;
        hosts[6].health = HostHealth::Suspect;
        hosts[7].role = Some(Role::Primary);
        hosts[8].place = Place { is_near: false, ..hosts[8].place };
        let view = view(&histories, 1000, hosts);
        let session = Consistency::Session;
        let read = request(&session, &balance, 800);
        let account = account_for_read(&view, &read);
        use Standing::*;
        assert_eq!(
            standings(&account),
            [NotNeeded, Takes, Drained, NotUp, Behind, OtherHistory, Stale, NotNeeded, OtherPrimary, NotNeeded]
        );
        for _ in 0..50 {
            let Decision::Send { host, reason, .. } = route(&view, &read) else { panic!("a host") };
            assert_eq!((host, reason), (HostId::new(1), RouteReason::CaughtUp));
        }
        // All that a position requires, but more WAL to replay than is allowed.
        let far =
            account_for_read(&view, &RouteRequest { max_lag_bytes: Some(50), ..request(&session, &balance, 800) });
        assert_eq!((far.standings[0].1, far.standings[1].1), (Takes, Stale));
        let strong = account_for_read(&view, &request(&Consistency::Strong, &balance, 800));
        assert_eq!(&standings(&strong)[..3], [Takes, NotPrimary, NotPrimary]);
        assert_eq!(standings(&account_for_write(&view))[8], OtherPrimary);
        let waiting = RouteRequest { wait_until: Some(at(2000)), ..request(&session, &balance, 950) };
        let account = account_for_read(&view, &waiting);
        assert!(account.waits && matches!(account.decision, Decision::Send { reason: RouteReason::Behind, .. }));
    }

    #[test]
    fn with_all_replicas_drained_the_primary_reads() {
        let histories = histories(&[1, 100]);
        let (history, balance) = (histories.current(CLUSTER).unwrap(), Balance::default());
        let mut drained = replica(1, history, 1000, 900);
        drained.drained = true;
        let view = view(&histories, 1000, vec![drained]);
        for consistency in [Consistency::Session, Consistency::Eventual] {
            // It has nothing to wait for either.
            let read = RouteRequest { wait_until: Some(at(2000)), ..request(&consistency, &balance, 800) };
            let Decision::Send { host, reason, .. } = route(&view, &read) else { panic!("the primary") };
            assert_eq!((host, reason), (HostId::new(0), RouteReason::NoReplica));
            let account = account_for_read(&view, &read);
            assert_eq!((standings(&account), account.waits), (vec![Standing::Takes, Standing::Drained], false));
        }
    }
}
