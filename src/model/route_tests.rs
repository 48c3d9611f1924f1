//! Owns the tests of `route`: tables, then properties over whole views.

use super::test_support::{at, histories, replica, sample, view};
use super::*;
use RouteReason as R;
use proptest::prelude::*;
use std::time::Duration;

const MAX_LAG: Duration = Duration::from_secs(20);
const STICK: Duration = Duration::from_secs(30);

/// With counts of its own, in which the first host has the first turn.
fn request(consistency: &Consistency, binding: Binding, now_ms: u64) -> RouteRequest<'_> {
    // Leaked: a request borrows the counts from its broker, which lives as long as the process here.
    let balance = Box::leak(Box::default());
    let (exclude, now) = (HostSet::EMPTY, at(now_ms));
    let (max_lag_bytes, wait_until) = (None, None);
    RouteRequest { consistency, binding, exclude, balance, now, max_lag: MAX_LAG, max_lag_bytes, wait_until }
}

fn bound(lsn: u64) -> Binding {
    Binding::At { lsn: Lsn::new(lsn), may_be_lost: false }
}

fn lost(lsn: u64) -> Binding {
    Binding::At { lsn: Lsn::new(lsn), may_be_lost: true }
}

fn send(host: u16, reason: RouteReason, required: Option<u64>) -> Decision {
    Decision::Send { host: HostId::new(host), reason, required: required.map(Lsn::new) }
}

const SESSION: Consistency = Consistency::Session;

/// Primary 0 at 1000; replica 1 has replayed 600 and passed a sample of 15 s, replica 2 stands at 900 and 5 s.
fn two_replicas() -> ClusterView {
    let histories = histories(&[0]);
    let id = HistoryId::from_raw(1);
    let mut view = view(&histories, 1000, vec![replica(1, id, 600, 15_000), replica(2, id, 900, 5_000)]);
    view.newest_sample = Some(sample(20_000, 1000));
    view
}

#[test]
fn each_consistency_and_binding_has_its_host_and_reason() {
    let view = two_replicas();
    let staleness = |ms| Consistency::Bounded { max_staleness: Duration::from_millis(ms) };
    for (consistency, binding, now_ms, expected) in [
        (SESSION, Binding::NoPosition, 20_000, send(1, R::NoPosition, None)),
        (SESSION, Binding::Expired, 20_000, send(1, R::PositionExpired, None)),
        (SESSION, bound(600), 20_000, send(1, R::CaughtUp, Some(600))),
        (SESSION, bound(601), 20_000, send(2, R::CaughtUp, Some(601))),
        (Consistency::Causal, bound(901), 20_000, send(0, R::Behind, Some(901))),
        (SESSION, lost(601), 20_000, send(2, R::PositionMayBeLost, Some(601))),
        (SESSION, lost(901), 20_000, send(0, R::PositionMayBeLost, Some(901))),
        (SESSION, Binding::PrimaryOnly, 20_000, send(0, R::PositionUnknown, None)),
        (SESSION, Binding::NoPosition, 25_001, send(1, R::NoPosition, None)), // replica 2 lags too much
        (SESSION, bound(700), 25_001, send(0, R::Behind, Some(700))),
        (SESSION, Binding::NoPosition, 35_001, send(0, R::Behind, None)),
        (Consistency::Strong, Binding::NoPosition, 20_000, send(0, R::Strong, None)),
        (Consistency::Strong, bound(1), 20_000, send(0, R::Strong, None)),
        (Consistency::Eventual, bound(5000), 20_000, send(1, R::NoPosition, None)),
        (Consistency::Eventual, Binding::PrimaryOnly, 20_000, send(1, R::NoPosition, None)),
        (staleness(5000), bound(5000), 20_000, send(1, R::NoPosition, None)),
        (staleness(4999), Binding::NoPosition, 20_000, send(0, R::Behind, None)),
        (staleness(60_000), Binding::NoPosition, 35_001, send(0, R::Behind, None)), // max_lag still holds
    ] {
        assert_eq!(
            route(&view, &request(&consistency, binding, now_ms)),
            expected,
            "{consistency:?} {binding:?} {now_ms}"
        );
    }
}

#[test]
fn a_read_waits_only_for_replicas_that_are_up_and_only_until_its_time() {
    let mut view = two_replicas();
    let wait = |lsn: Option<u64>| Decision::Wait { lsn: lsn.map(Lsn::new), until: at(20_001) };
    let fresh = Consistency::Bounded { max_staleness: Duration::from_millis(100) };
    for (consistency, binding, expected) in [
        (SESSION, bound(901), wait(Some(901))),
        (Consistency::Causal, bound(901), wait(Some(901))),
        (SESSION, lost(901), wait(Some(901))),
        (fresh, Binding::NoPosition, wait(None)),
        (SESSION, bound(900), send(2, R::CaughtUp, Some(900))),
        (SESSION, Binding::PrimaryOnly, send(0, R::PositionUnknown, None)),
        (Consistency::Strong, bound(901), send(0, R::Strong, None)),
    ] {
        let request = RouteRequest { wait_until: Some(at(20_001)), ..request(&consistency, binding, 20_000) };
        assert_eq!(route(&view, &request), expected, "{consistency:?} {binding:?}");
    }
    let behind = request(&SESSION, bound(901), 20_000);
    let late = RouteRequest { wait_until: Some(at(20_000)), ..behind };
    assert_eq!(route(&view, &late), send(0, R::Behind, Some(901)));
    view.hosts[1].health = HostHealth::Down;
    let exclude = HostSet::EMPTY.with(HostId::new(2));
    let tried = RouteRequest { exclude, wait_until: Some(at(20_001)), ..behind };
    assert_eq!(route(&view, &tried), send(0, R::NoReplica, Some(901)));
}

#[test]
fn without_replicas_the_primary_serves_and_without_a_primary_nobody_unproved() {
    let mut view = two_replicas();
    let both = HostSet::EMPTY.with(HostId::new(1)).with(HostId::new(2));
    let excluding = |exclude, binding| RouteRequest { exclude, ..request(&SESSION, binding, 20_000) };
    assert_eq!(route(&view, &excluding(both, bound(1))), send(0, R::NoReplica, Some(1)));
    assert_eq!(route(&view, &excluding(both, lost(1))), send(0, R::PositionMayBeLost, Some(1)));
    let all = both.with(HostId::new(0));
    assert_eq!(route(&view, &excluding(all, bound(1))), Decision::Reject(Rejection::NoPrimaryAvailable));
    view.hosts[1].health = HostHealth::Unknown;
    view.hosts[2].role = None;
    assert_eq!(route(&view, &request(&SESSION, Binding::NoPosition, 20_000)), send(0, R::NoReplica, None));
    view.hosts[0].health = HostHealth::Down;
    let rejected = Decision::Reject(Rejection::NoPrimaryAvailable);
    assert_eq!(route(&view, &request(&SESSION, Binding::NoPosition, 20_000)), rejected);
    assert_eq!(route_write(&view, HostSet::EMPTY), rejected);
    view.hosts[2].health = HostHealth::Down;
    let rejected = Decision::Reject(Rejection::NoHostsAvailable);
    assert_eq!(route(&view, &request(&SESSION, Binding::NoPosition, 20_000)), rejected);
    assert_eq!(route_write(&view, HostSet::EMPTY), rejected);
}

#[test]
fn writes_go_to_the_confirmed_primary_only() {
    let mut view = two_replicas();
    assert_eq!(route_write(&view, HostSet::EMPTY), send(0, R::Write, None));
    let rejected = Decision::Reject(Rejection::NoPrimaryAvailable);
    assert_eq!(route_write(&view, HostSet::EMPTY.with(HostId::new(0))), rejected);
    view.primary = None;
    assert_eq!(route_write(&view, HostSet::EMPTY), rejected);
}

#[test]
fn a_suspect_replica_serves_where_none_that_is_up_will_do_and_a_quarantined_one_never() {
    let mut view = two_replicas();
    let chosen = |view: &ClusterView| route(view, &request(&SESSION, bound(1), 20_000));
    view.hosts[1].health = HostHealth::Suspect;
    assert_eq!(chosen(&view), send(2, R::CaughtUp, Some(1)));
    view.hosts[2].health = HostHealth::Quarantined;
    assert_eq!(chosen(&view), send(1, R::CaughtUp, Some(1)));
    view.hosts[1].health = HostHealth::Quarantined;
    assert_eq!(chosen(&view), send(0, R::NoReplica, Some(1)));
    // A primary that may be failing is one all the same, until its lease lapses.
    view.hosts[0].health = HostHealth::Suspect;
    assert_eq!(route_write(&view, HostSet::EMPTY), send(0, R::Write, None));
    (view.primary, view.conflict) = (None, true);
    assert_eq!(route_write(&view, HostSet::EMPTY), Decision::Reject(Rejection::PrimaryConflict));
}

#[test]
fn while_the_primary_is_away_replicas_that_passed_its_last_sample_serve() {
    let mut view = two_replicas();
    view.primary = None;
    view.primary_reachable = false;
    view.hosts[1].passed_last_sample = false;
    let late = 1_000_000;
    let bounded = Consistency::Bounded { max_staleness: Duration::from_secs(10_000) };
    let rejected = Decision::Reject(Rejection::NoPrimaryAvailable);
    for (consistency, binding, expected) in [
        (SESSION, Binding::NoPosition, send(2, R::NoPosition, None)),
        (Consistency::Eventual, bound(5000), send(2, R::NoPosition, None)),
        (SESSION, bound(900), send(2, R::CaughtUp, Some(900))),
        (SESSION, bound(901), rejected),
        (SESSION, Binding::PrimaryOnly, rejected),
        (bounded, Binding::NoPosition, rejected),
    ] {
        assert_eq!(route(&view, &request(&consistency, binding, late)), expected, "{consistency:?} {binding:?}");
    }
}

#[test]
fn a_bound_on_the_staleness_holds_to_its_edge() {
    let mut view = two_replicas();
    let bounded = |ms| Consistency::Bounded { max_staleness: Duration::from_millis(ms) };
    let goes_to = |view: &ClusterView, staleness: u64, now_ms: u64| {
        route(view, &request(&bounded(staleness), Binding::PrimaryOnly, now_ms))
    };
    let (on_1, on_2) = (send(1, R::NoPosition, None), send(2, R::NoPosition, None));
    let on_primary = send(0, R::Behind, None);
    // Replica 1 has passed what was asked for at 15 s.
    assert_eq!(goes_to(&view, 1000, 16_000), on_1);
    assert_eq!(goes_to(&view, 1000, 16_001), on_primary);
    assert_eq!(goes_to(&view, 0, 15_000), on_1);
    assert_eq!(goes_to(&view, 0, 15_001), on_primary);
    // A bound beyond max_lag (20 s) does not loosen that; a clock that is younger than the bound has no older sample.
    assert_eq!(goes_to(&view, 60_000, 35_000), on_1);
    assert_eq!(goes_to(&view, 60_000, 35_001), on_primary);
    assert_eq!(goes_to(&view, u64::MAX, 35_000), on_1);
    // Whichever replica is within it, and none that has passed nothing.
    view.hosts[1].passed_sample_at = None;
    assert_eq!(goes_to(&view, 15_000, 20_000), on_2);
    assert_eq!(goes_to(&view, 14_999, 20_000), on_primary);
    // Without a primary no bound can be shown; what was seen last is known, how old it is now is not.
    assert_eq!(view.staleness(&view.hosts[2], at(20_000)), Some(Duration::from_secs(15)));
    (view.primary, view.primary_reachable) = (None, false);
    assert_eq!(goes_to(&view, 60_000, 20_000), Decision::Reject(Rejection::NoPrimaryAvailable));
    assert_eq!(view.staleness(&view.hosts[2], at(20_000)), None);
}

#[test]
fn a_replica_with_too_many_bytes_to_replay_takes_no_reads() {
    let mut view = two_replicas(); // 400 and 100 bytes behind
    fn within(max: u64, consistency: &Consistency) -> RouteRequest<'_> {
        RouteRequest { max_lag_bytes: Some(max), ..request(consistency, Binding::NoPosition, 20_000) }
    }
    let bounded = Consistency::Bounded { max_staleness: Duration::from_secs(20) };
    for consistency in [SESSION, Consistency::Eventual, bounded] {
        assert_eq!(route(&view, &within(400, &consistency)), send(1, R::NoPosition, None));
        assert_eq!(route(&view, &within(399, &consistency)), send(2, R::NoPosition, None));
        assert_eq!(route(&view, &within(99, &consistency)), send(0, R::Behind, None));
    }
    // Not for an idle primary's page header, which nobody replays.
    view.newest_sample = Some(sample(20_000, 8192 + 24));
    view.hosts[2].replay = Some(Lsn::new(8192));
    assert_eq!(route(&view, &within(0, &SESSION)), send(2, R::NoPosition, None));
    // What is not known is too much.
    view.hosts[2].history = None;
    assert_eq!(route(&view, &within(u64::MAX, &SESSION)), send(1, R::NoPosition, None));
    view.newest_sample = None;
    assert_eq!(route(&view, &within(u64::MAX, &SESSION)), send(0, R::Behind, None));
}

#[test]
fn a_host_on_another_history_proves_nothing() {
    let mut view = two_replicas();
    view.hosts[2].history = None;
    assert_eq!(route(&view, &request(&SESSION, bound(700), 20_000)), send(0, R::Behind, Some(700)));
    assert_eq!(view.lag_bytes(&view.hosts[2]), None);
    view.hosts[2].history = Some(HistoryId::from_raw(2));
    assert_eq!(route(&view, &request(&SESSION, bound(700), 20_000)), send(0, R::Behind, Some(700)));
    assert_eq!(view.lag(&view.hosts[2], at(20_000)), None);
    assert_eq!(view.lag_bytes(&view.hosts[2]), None);
    assert_eq!(view.lag(&view.hosts[1], at(20_000)), Some(Duration::from_secs(5)));
    assert_eq!(view.lag_bytes(&view.hosts[1]), Some(400));
    for host in &mut view.hosts {
        host.history = Some(HistoryId::OVERFLOW);
    }
    view.history = Some(HistoryId::OVERFLOW);
    assert_eq!(route(&view, &request(&SESSION, bound(1), 20_000)), send(0, R::Behind, Some(1)));
}

prop_compose! {
    fn any_replica()(
        history in 1u8..3, replay in 0u64..1000, passed_ms in 0u64..60_000,
        known in prop::array::uniform4(prop::bool::weighted(0.85)), passed_last: bool, health in 0u8..10,
    ) -> HostView {
        let mut host = replica(0, HistoryId::from_raw(history), replay, passed_ms);
        host.role = host.role.filter(|_| known[0]);
        host.history = host.history.filter(|_| known[1]);
        host.replay = host.replay.filter(|_| known[2]);
        host.passed_sample_at = host.passed_sample_at.filter(|_| known[3]);
        host.passed_last_sample = passed_last;
        host.health = HostHealth::ALL.get(usize::from(health)).copied().unwrap_or(HostHealth::Up);
        host
    }
}

prop_compose! {
    fn any_view()(
        replicas in prop::collection::vec(any_replica(), 0..6), insert in 0u64..1000,
        has_primary in prop::bool::weighted(0.8), primary_up in prop::bool::weighted(0.8), reachable in prop::bool::weighted(0.8),
        newest in (0u64..60_000, 0u64..1000),
    ) -> ClusterView {
        let replicas = (1..).zip(replicas).map(|(i, host)| HostView { id: HostId::new(i), ..host }).collect();
        let mut view = view(&histories(&[0, 300]), insert, replicas);
        view.primary = view.primary.filter(|_| has_primary);
        view.primary_reachable = reachable;
        view.newest_sample = Some(sample(newest.0, newest.1));
        if !primary_up {
            view.hosts[0].health = HostHealth::Down;
        }
        view
    }
}

fn any_consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![
        Just(Consistency::Session),
        Just(Consistency::Causal),
        Just(Consistency::Eventual),
        Just(Consistency::Strong),
        (0u64..60_000).prop_map(|ms| Consistency::Bounded { max_staleness: Duration::from_millis(ms) }),
    ]
}

fn any_binding() -> impl Strategy<Value = Binding> {
    prop_oneof![
        Just(Binding::NoPosition),
        Just(Binding::Expired),
        Just(Binding::PrimaryOnly),
        (0u64..1000, any::<bool>()).prop_map(|(lsn, may_be_lost)| Binding::At { lsn: Lsn::new(lsn), may_be_lost }),
    ]
}

fn excluded(bits: u8) -> HostSet {
    (0..8).filter(|i| bits >> i & 1 == 1).map(HostId::new).fold(HostSet::EMPTY, HostSet::with)
}

proptest! {
    #[test]
    fn every_decision_fits_its_reason(
        view in any_view(), consistency in any_consistency(), binding in any_binding(),
        exclude in prop_oneof![Just(0u8), any::<u8>()], now_ms in 0u64..90_000,
        max_lag_bytes in prop::option::of(0u64..1000),
    ) {
        let exclude = excluded(exclude);
        let request = RouteRequest { exclude, max_lag_bytes, ..request(&consistency, binding, now_ms) };
        let up = view.hosts.iter().filter(|host| host.health.is_usable());
        let (id, reason, required) = match route(&view, &request) {
            Decision::Send { host, reason, required } => (host, reason, required),
            Decision::Wait { .. } => return Err(TestCaseError::fail("it did not ask to wait")),
            Decision::Reject(Rejection::NoHostsAvailable) => {
                prop_assert_eq!(up.count(), 0);
                return Ok(());
            }
            Decision::Reject(Rejection::NoPrimaryAvailable) => {
                prop_assert!(up.count() > 0);
                prop_assert!(view.primary_host().is_none_or(|host| exclude.contains(host.id)));
                return Ok(());
            }
            Decision::Reject(Rejection::PrimaryConflict) => {
                prop_assert!(view.conflict);
                return Ok(());
            }
        };
        let host = view.host(id).unwrap();
        prop_assert!(host.health.is_usable() && !exclude.contains(id));
        let heeds = consistency.heeds_positions();
        prop_assert_eq!(required, match binding { Binding::At { lsn, .. } if heeds => Some(lsn), _ => None });
        let is_lost = heeds && matches!(binding, Binding::At { may_be_lost: true, .. });
        prop_assert_eq!(reason == R::PositionMayBeLost, is_lost);
        if view.primary == Some(id) {
            prop_assert!(matches!(reason, R::Strong | R::PositionUnknown | R::Behind | R::NoReplica | R::PositionMayBeLost));
            prop_assert_eq!(reason == R::Strong, consistency == Consistency::Strong);
            prop_assert_eq!(reason == R::PositionUnknown, heeds && binding == Binding::PrimaryOnly);
            return Ok(());
        }
        prop_assert_eq!(host.role, Some(Role::Replica));
        if view.primary_reachable {
            let mut limit = MAX_LAG;
            if let Consistency::Bounded { max_staleness } = consistency {
                limit = limit.min(max_staleness);
            }
            prop_assert!(view.lag(host, at(now_ms)).unwrap() <= limit);
        } else {
            let bounded = matches!(consistency, Consistency::Bounded { .. });
            prop_assert!(host.passed_last_sample && !bounded);
        }
        if let Some(most) = max_lag_bytes {
            prop_assert!(view.lag_bytes(host).unwrap() <= most);
        }
        if let Some(required) = required {
            prop_assert!(host.history == view.history && host.replay.unwrap() >= required);
        }
        prop_assert_eq!(reason, match (heeds, binding) {
            (true, Binding::Expired) => R::PositionExpired,
            (true, Binding::At { may_be_lost: false, .. }) => R::CaughtUp,
            (true, Binding::At { may_be_lost: true, .. }) => R::PositionMayBeLost,
            _ => R::NoPosition,
        });
    }

    #[test]
    fn no_session_read_finds_a_replica_behind_its_write_before_the_timeout(
        view in any_view(), lsn in 0u64..1000, written_ms in 0u64..60_000, wait_ms in 0u64..30_000,
    ) {
        let now = at(written_ms + wait_ms);
        let point = HistoryPoint::Known { history: HistoryId::from_raw(2), lsn: Lsn::new(lsn) };
        let positions = [Position { point, written: Some(at(written_ms)), written_by: Some(at(written_ms)) }];
        let marks = Marks { positions: &positions, primary_only_until: None, has_session: true };
        // A sample sent after the write and below it is a crashed primary: what it lost is not waited for.
        let sample = view.newest_sample.unwrap();
        let survived = if sample.sent_at > at(written_ms) { Lsn::new(lsn).min(sample.insert) } else { Lsn::new(lsn) };
        let binding = bind(&marks, &view, &histories(&[0, 300]), now, STICK);
        let request = RouteRequest { now, ..request(&SESSION, binding, 0) };
        if let Decision::Send { host, reason, .. } = route(&view, &request)
            && view.primary != Some(host)
        {
            let host = view.host(host).unwrap();
            prop_assert!(host.replay.unwrap() >= survived.without_page_header(view.geometry));
            prop_assert!(matches!(reason, R::CaughtUp | R::PositionMayBeLost));
        }
    }

    #[test]
    fn eligible_replicas_take_even_turns(view in any_view(), binding in any_binding(), exclude: u8) {
        let request = RouteRequest { exclude: excluded(exclude), ..request(&SESSION, binding, 40_000) };
        let mut counts = [0usize; 8];
        let rounds = 60; // a multiple of every possible number of eligible hosts
        for _ in 0..rounds {
            match route(&view, &request) {
                Decision::Send { host, .. } => counts[host.index()] += 1,
                Decision::Wait { .. } | Decision::Reject(_) => return Ok(()),
            }
        }
        let chosen: Vec<_> = counts.into_iter().filter(|count| *count > 0).collect();
        prop_assert!(chosen.iter().all(|count| count * chosen.len() == rounds), "{:?}", counts);
    }
}
