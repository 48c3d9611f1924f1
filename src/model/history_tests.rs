//! What positions of one history mean in another: by table, and by random histories.

use super::test_support::{CLUSTER, SYSTEM, histories, timeline};
use super::{ClusterId, Histories, HistoryId, HistoryPoint, Lsn, Required, SwitchPoint};
use Required::{Ahead, At, MayBeLost, Unknown};
use proptest::prelude::*;

const OTHER: ClusterId = ClusterId::new(3);

fn known(history: u8, lsn: u64) -> HistoryPoint {
    HistoryPoint::Known { history: HistoryId::from_raw(history), lsn: Lsn::new(lsn) }
}

fn named(number: u32, lsn: u64) -> HistoryPoint {
    HistoryPoint::Named { system_identifier: SYSTEM, timeline: timeline(number), lsn: Lsn::new(lsn) }
}

fn exactly(at: u64) -> SwitchPoint {
    SwitchPoint::exactly(Lsn::new(at))
}

#[test]
fn numbers_are_broker_wide() {
    let mut all = Histories::default();
    assert_eq!(all.current(CLUSTER), None);
    let first = all.begin(CLUSTER, SYSTEM, timeline(1), exactly(5));
    let other = all.begin(OTHER, SYSTEM, timeline(1), exactly(6));
    assert_eq!((first.raw(), other.raw()), (1, 2));
    assert_eq!((all.start(first), all.cluster(other)), (Some(exactly(5)), Some(OTHER)));
    let second = all.begin(CLUSTER, SYSTEM, timeline(2), exactly(100));
    assert_eq!((all.current(CLUSTER), all.current(OTHER)), (Some(second), Some(other)));
    assert_eq!(all.find(CLUSTER, SYSTEM, timeline(1)), Some(first));
    assert_eq!(all.find(CLUSTER, SYSTEM + 1, timeline(1)), None);
    assert_eq!((all.timeline(second), all.system_identifier(second)), (Some(timeline(2)), Some(SYSTEM)));
    assert_eq!((all.timeline(HistoryId::NONE), all.timeline(HistoryId::OVERFLOW)), (None, None));
}

#[test]
fn a_position_is_held_against_every_later_switch_point() {
    // The third history left the second below the second's own start: a promotion of a replica that was far behind.
    let all = histories(&[0, 500, 400, 900]);
    for (point, expected) in [
        (known(4, 950), At(Lsn::new(950))),
        (known(3, 900), At(Lsn::new(900))),
        (known(3, 901), MayBeLost(Lsn::new(900))),
        (known(2, 400), At(Lsn::new(400))),
        (known(2, 450), MayBeLost(Lsn::new(400))),
        (known(1, 400), At(Lsn::new(400))),
        (known(1, 450), MayBeLost(Lsn::new(400))),
        (named(4, 950), At(Lsn::new(950))),
        (named(1, 450), MayBeLost(Lsn::new(400))),
        (named(5, 1), Ahead),
        (known(0, 1), Unknown),
        (known(5, 1), Unknown),
        (known(255, 1), Unknown),
    ] {
        assert_eq!(all.require(CLUSTER, point), expected, "{point:?}");
    }
    assert_eq!(all.require(OTHER, known(4, 1)), Unknown);
}

#[test]
fn a_timeline_never_seen_is_older_than_those_above_it() {
    let mut all = Histories::default();
    all.begin(CLUSTER, SYSTEM, timeline(3), exactly(500));
    all.begin(CLUSTER, SYSTEM, timeline(5), exactly(800));
    assert_eq!(all.require(CLUSTER, named(2, 400)), At(Lsn::new(400)));
    assert_eq!(all.require(CLUSTER, named(2, 501)), MayBeLost(Lsn::new(500)));
    assert_eq!(all.require(CLUSTER, named(4, 700)), At(Lsn::new(700)));
    assert_eq!(all.require(CLUSTER, named(4, 801)), MayBeLost(Lsn::new(800)));
}

#[test]
fn foreign_positions_are_unknown() {
    let mut all = histories(&[0]);
    let other = all.begin(OTHER, SYSTEM, timeline(1), exactly(0));
    assert_eq!(all.require(CLUSTER, known(other.raw(), 1)), Unknown);
    assert_eq!(all.require(OTHER, known(1, 1)), Unknown);
    // The cluster was built anew, and a timeline went back.
    let mut rebuilt = all.clone();
    rebuilt.begin(CLUSTER, SYSTEM + 1, timeline(1), exactly(0));
    assert_eq!(rebuilt.require(CLUSTER, known(1, 1)), Unknown);
    assert_eq!(rebuilt.require(CLUSTER, named(1, 1)), Unknown);
    let mut back = histories(&[0, 10]);
    let again = back.begin(CLUSTER, SYSTEM, timeline(1), exactly(20));
    assert_eq!(back.require(CLUSTER, known(2, 1)), Unknown);
    assert_eq!(back.require(CLUSTER, known(3, 30)), At(Lsn::new(30)));
    assert_eq!(back.require(CLUSTER, known(1, 30)), Unknown);
    assert_eq!(back.find(CLUSTER, SYSTEM, timeline(1)), Some(again));
    // A copy taken before is not touched.
    assert_eq!(all.require(CLUSTER, known(1, 1)), At(Lsn::new(1)));
}

#[test]
fn a_switch_point_that_is_not_known_exactly_asks_for_all_that_may_have_been_kept() {
    let mut all = histories(&[0]);
    let start = SwitchPoint { sure: Lsn::new(500), latest: Lsn::new(700) };
    all.begin(CLUSTER, SYSTEM, timeline(2), start);
    for (lsn, expected) in [(500, At(Lsn::new(500))), (600, MayBeLost(Lsn::new(600))), (800, MayBeLost(Lsn::new(700)))]
    {
        assert_eq!(all.require(CLUSTER, known(1, lsn)), expected);
    }
}

#[test]
fn two_branches_with_one_number_share_what_lies_below_both_their_beginnings() {
    let mut all = histories(&[0, 500]);
    all.begin(CLUSTER, SYSTEM, timeline(2), exactly(400));
    for (point, expected) in [
        (known(3, 900), At(Lsn::new(900))),
        (known(2, 400), At(Lsn::new(400))),
        (known(2, 401), Unknown),
        (named(2, 400), At(Lsn::new(400))),
        // Nobody can say of which branch the token is.
        (named(2, 900), Unknown),
        // The dead branch is no ancestor of the living one.
        (known(1, 400), At(Lsn::new(400))),
        (known(1, 450), MayBeLost(Lsn::new(400))),
    ] {
        assert_eq!(all.require(CLUSTER, point), expected, "{point:?}");
    }
    // Its heir may come from either.
    all.begin(CLUSTER, SYSTEM, timeline(3), exactly(1000));
    for (point, expected) in [
        (known(1, 400), At(Lsn::new(400))),
        (known(1, 450), MayBeLost(Lsn::new(450))),
        (known(1, 600), MayBeLost(Lsn::new(500))),
        (known(2, 450), MayBeLost(Lsn::new(450))),
        (known(3, 1100), MayBeLost(Lsn::new(1000))),
    ] {
        assert_eq!(all.require(CLUSTER, point), expected, "{point:?}");
    }
}

#[test]
fn out_of_numbers_means_unknown() {
    let mut all = Histories::default();
    for n in 1..=254 {
        let id = all.begin(CLUSTER, SYSTEM, timeline(n), exactly(n.into()));
        assert_eq!(u32::from(id.raw()), n);
        assert!(id.is_comparable());
    }
    assert_eq!(all.require(CLUSTER, known(254, 300)), At(Lsn::new(300)));
    assert_eq!(all.begin(OTHER, SYSTEM, timeline(1), exactly(0)), HistoryId::OVERFLOW);
    assert_eq!(all.begin(CLUSTER, SYSTEM, timeline(255), exactly(0)), HistoryId::OVERFLOW);
    assert_eq!(all.current(CLUSTER), Some(HistoryId::OVERFLOW));
    for point in [known(254, 1), known(255, 1), named(254, 1), named(255, 1)] {
        assert_eq!(all.require(CLUSTER, point), Unknown);
    }
}

proptest! {
    #[test]
    fn what_is_required_is_the_least_of_the_position_and_the_later_starts(
        starts in prop::collection::vec(0u64..1000, 1..8), of in 0usize..8, lsn in 0u64..1200, by_name: bool,
    ) {
        let of = of % starts.len();
        let number = u8::try_from(of + 1).unwrap();
        let point = if by_name { named(number.into(), lsn) } else { known(number, lsn) };
        let least = starts[of + 1..].iter().copied().min().map_or(lsn, |start| start.min(lsn));
        let expected = if least < lsn { MayBeLost(Lsn::new(least)) } else { At(Lsn::new(lsn)) };
        prop_assert_eq!(histories(&starts).require(CLUSTER, point), expected);
    }
}
