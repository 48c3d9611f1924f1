//! What becomes of the primary's role: leases, conflicts, switch points, and health's part in it. Without any server.

use std::time::Duration;

use tokio::sync::oneshot;

use super::{
    HostNews,
    cluster_tests::{Rig, SETTINGS, SYSTEM, identity, primary, replica, timeline},
};
use crate::model::{Decision, HistoryPoint, HostHealth, HostId, HostSet, Lsn, Rejection, Required, route_write};

const A: HostId = HostId::new(0);
const B: HostId = HostId::new(1);

fn gone() -> HostNews {
    HostNews::ProbeFailed { why: "gone".into(), certain: true }
}

fn late() -> HostNews {
    HostNews::ProbeFailed { why: "no answer".into(), certain: false }
}

impl Rig {
    fn settle(&mut self, host: u16) -> bool {
        let answer = oneshot::channel().0;
        self.news(host, HostNews::Settled { answer }).told.expect("an answer, once the view is published").done
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.pass_time(&mut self.histories, self.now);
    }

    fn back(&mut self, host: u16, started_us: u64) {
        self.news(host, HostNews::Identified { identity: identity(SYSTEM, started_us) });
    }

    fn writes(&self) -> Decision {
        route_write(&self.view(), HostSet::EMPTY)
    }
}

fn refused(why: Rejection) -> Decision {
    Decision::Reject(why)
}

#[test]
fn a_role_that_is_not_confirmed_within_its_lease_gets_no_writes() {
    let mut rig = Rig::running();
    let confirmed = rig.view().lease_until.expect("a lease");
    let asked = rig.now;
    rig.read(0, primary(1100, None, 1));
    let until = rig.view().lease_until.expect("a lease");
    assert_eq!(until, asked + SETTINGS.lease, "counted from when the probe was sent, not from its answer");
    assert!(until > confirmed);
    // The check is by time alone: nothing has to happen first.
    assert!(rig.view().holds_lease(A, until - Duration::from_millis(1)));
    assert!(!rig.view().holds_lease(A, until));
    // A hang: it keeps its role until then.
    rig.news(0, late());
    assert_eq!((rig.view().hosts[0].health, rig.view().primary), (HostHealth::Suspect, Some(A)));
    rig.pass(SETTINGS.lease);
    let view = rig.view();
    assert_eq!((view.primary, view.primary_reachable, view.lease_until), (None, false, None));
    assert_eq!(rig.writes(), refused(Rejection::NoPrimaryAvailable));
    let epoch = view.hosts[0].epoch;
    rig.read(0, primary(1100, None, 1));
    assert_eq!(rig.view().primary, Some(A), "the next confirmation gives it back");
    assert_eq!(rig.view().hosts[0].epoch, epoch, "with its connections");
    assert_eq!(rig.histories.current(view.id), view.history, "and its history");
}

#[test]
fn a_lost_probe_connection_alone_costs_the_primary_nothing() {
    let mut rig = Rig::running();
    rig.news(0, late());
    rig.back(0, 100);
    assert_eq!(rig.view().primary, Some(A));
    rig.read(0, primary(1100, None, 1));
    assert_eq!((rig.view().primary, rig.view().hosts[0].health), (Some(A), HostHealth::Up));
}

#[test]
fn a_primary_that_comes_back_is_neither_kept_waiting_nor_quarantined() {
    let mut rig = Rig::running();
    for started_us in 201..206 {
        rig.news(0, gone());
        assert_eq!(rig.view().primary, None);
        rig.back(0, started_us);
        rig.read(0, primary(1100, Some(1100), 1));
        assert_eq!(rig.view().primary, Some(A));
    }
}

#[test]
fn a_replica_comes_back_after_several_answers_and_a_flapping_one_later_still() {
    let mut rig = Rig::running();
    for expected in [HostHealth::Up, HostHealth::Quarantined] {
        rig.news(1, gone());
        assert!(!rig.view().hosts[1].is_usable_replica());
        rig.back(1, 101);
        rig.read(1, replica(1000, 1));
        assert_eq!(rig.view().hosts[1].health, HostHealth::Down, "one answer is not enough");
        rig.read(1, replica(1000, 1));
        assert_eq!(rig.view().hosts[1].health, expected);
    }
    let view = rig.view();
    assert_eq!(view.hosts[1].quarantined_until, Some(rig.now + SETTINGS.health.quarantine));
    assert!(!view.hosts[1].is_usable_replica());
    rig.now += SETTINGS.health.quarantine;
    rig.read(1, replica(1000, 1));
    let host = &rig.view().hosts[1];
    assert!(host.is_up_replica() && host.ramp(rig.now) == 1, "slowly");
    assert_eq!(host.ramp(rig.now + SETTINGS.health.slow_start), 100);
}

#[test]
fn a_quarantined_replica_serves_when_nobody_else_is_left() {
    let mut rig = Rig::running();
    for _ in 0..2 {
        rig.news(1, gone());
        rig.back(1, 101);
        rig.read(1, replica(1000, 1));
        rig.read(1, replica(1000, 1));
    }
    rig.news(0, gone());
    assert_eq!(rig.view().hosts[1].health, HostHealth::Quarantined, "there is another replica");
    rig.news(2, gone());
    assert!(rig.view().hosts[1].is_up_replica());
}

#[test]
fn a_conflict_stays_until_it_is_settled() {
    let mut rig = Rig::running();
    let effects = rig.read(1, primary(1000, None, 1));
    assert!(
        effects.new_conflict && [A, B].iter().all(|host| effects.epochs.iter().any(|(it, _)| it == host)),
        "{effects:?}"
    );
    assert_eq!(rig.writes(), refused(Rejection::PrimaryConflict));
    assert!(rig.view().conflict && rig.view().history.is_some(), "reads that need no primary go on");
    // One of both is out of reach, then the other: nobody knows which is the right one.
    for host in [0, 1, 0] {
        rig.news(host, gone());
        assert_eq!(rig.writes(), refused(Rejection::PrimaryConflict));
        rig.back(host, 300 + u64::from(host));
        assert!(!rig.read(host, primary(1000, None, 1)).new_conflict, "it is told of once");
        assert_eq!(rig.writes(), refused(Rejection::PrimaryConflict));
    }
    rig.read(1, replica(1000, 1));
    assert_eq!((rig.view().primary, rig.view().conflict), (Some(A), false));
}

#[test]
fn two_standbys_promoted_one_after_the_other_are_a_conflict_and_two_histories() {
    let mut rig = Rig::running();
    rig.news(0, gone());
    rig.read(1, primary(1100, Some(1000), 2));
    let first = rig.view().history.expect("a history");
    rig.read(1, primary(1500, Some(1000), 2));
    rig.news(1, gone());
    rig.read(2, primary(1050, Some(1000), 2));
    assert_eq!(rig.writes(), refused(Rejection::PrimaryConflict), "both had the same number, at different times");
    assert!(!rig.settle(0), "no part of it");
    assert!(rig.settle(2));
    let view = rig.view();
    assert_eq!((view.primary, view.timeline), (Some(HostId::new(2)), Some(timeline(2))));
    assert_ne!(view.history, Some(first));
    let require = |lsn: u64| rig.histories.require(view.id, HistoryPoint::Known { history: first, lsn: Lsn::new(lsn) });
    assert_eq!(require(1000), Required::At(Lsn::new(1000)));
    assert_eq!(require(1400), Required::Unknown, "a position of the other branch is no measure for this one");
    // The one decided against comes back as it was: it stays out.
    rig.back(1, 700);
    let effects = rig.read(1, primary(1600, Some(1550), 2));
    assert_eq!(effects.epochs.len(), 1, "its connections are not handed out again: {effects:?}");
    assert_eq!(rig.view().primary, Some(HostId::new(2)));
    assert!(!rig.settle(1), "there is no conflict any more");
}

#[test]
fn after_a_conflict_a_timelines_number_proves_no_replica() {
    let mut rig = Rig::running();
    rig.news(0, gone());
    rig.read(1, primary(1000, Some(1000), 2));
    rig.read(2, replica(1000, 2));
    let first = rig.view().history;
    assert_eq!(rig.view().hosts[2].history, first);
    rig.back(0, 300);
    rig.read(0, replica(900, 1));
    rig.read(0, primary(1000, Some(900), 2));
    rig.read(2, replica(1100, 2));
    assert_eq!(rig.view().hosts[2].history, first, "it was proved before, and serves on");
    assert!(rig.settle(0));
    rig.read(0, primary(1200, Some(900), 2));
    rig.read(2, replica(1300, 2));
    let view = rig.view();
    assert!(view.primary == Some(A) && view.history != first);
    assert_eq!((view.hosts[2].history, view.hosts[2].passed_last_sample), (None, false), "it is of the other branch");
    rig.back(2, 800);
    rig.read(2, replica(1300, 2));
    assert_eq!(rig.view().hosts[2].history, None, "nobody knows whose replica it is now");
    rig.read(0, primary(1400, Some(1300), 3));
    rig.read(2, replica(1300, 3));
    assert_eq!(rig.view().hosts[2].history, rig.view().history, "a newer number is unique again");
}

#[test]
fn a_switch_point_counts_as_exact_only_if_the_promotion_was_watched() {
    let at = |rig: &Rig, old, lsn| {
        rig.histories.require(rig.view().id, HistoryPoint::Known { history: old, lsn: Lsn::new(lsn) })
    };
    // The server crashed after its promotion, before it was asked: its replay position includes its own WAL.
    let mut rig = Rig::running();
    let old = rig.view().history.expect("a history");
    rig.news(0, gone());
    rig.news(1, late());
    rig.back(1, 101);
    rig.read(1, primary(1500, Some(1400), 2));
    assert_eq!(rig.view().primary, Some(B));
    assert_eq!(at(&rig, old, 1000), Required::At(Lsn::new(1000)), "that much it had replayed as a replica");
    assert_eq!(at(&rig, old, 1200), Required::MayBeLost(Lsn::new(1200)), "nobody knows");
    assert_eq!(at(&rig, old, 1450), Required::MayBeLost(Lsn::new(1400)));
    // Of another server behind the name nothing at all is known.
    let mut rig = Rig::running();
    let old = rig.view().history.expect("a history");
    rig.news(0, gone());
    rig.news(1, gone());
    rig.back(1, 900);
    rig.read(1, primary(1500, Some(1400), 2));
    assert_eq!(at(&rig, old, 900), Required::MayBeLost(Lsn::new(900)));
}

#[test]
fn a_name_whose_server_answers_under_another_one_claims_nothing() {
    // Host 0 is a name that leads to host 1's server, as a floating address does.
    let mut rig = Rig::new();
    rig.back(1, 100);
    rig.read(0, primary(1000, None, 1));
    rig.read(1, primary(1000, None, 1));
    rig.read(2, replica(1000, 1));
    let history = rig.view().history;
    assert_eq!(rig.view().primary, Some(A));
    rig.news(0, gone());
    rig.read(1, primary(1000, None, 1));
    let view = rig.view();
    assert_eq!((view.primary, view.conflict, view.history), (Some(B), false, history));
}
