//! Owns the tests of `position`: tables, then properties.

use super::test_support::{CLUSTER, SYSTEM, at, histories, sample, timeline, view};
use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

const STICK: Duration = Duration::from_secs(30);
/// How far the clocks of brokers may differ.
const SKEW_MS: u64 = 5_000;

fn known(history: u8, lsn: u64, written_ms: u64) -> Position {
    let point = HistoryPoint::Known { history: HistoryId::from_raw(history), lsn: Lsn::new(lsn) };
    Position { point, written: Some(at(written_ms)), written_by: Some(at(written_ms)) }
}

fn named(number: u32, lsn: u64, written_ms: u64) -> Position {
    let point = HistoryPoint::Named { system_identifier: SYSTEM, timeline: timeline(number), lsn: Lsn::new(lsn) };
    Position { point, written: Some(at(written_ms)), written_by: Some(at(written_ms + SKEW_MS)) }
}

fn bound(lsn: u64, may_be_lost: bool) -> Binding {
    Binding::At { lsn: Lsn::new(lsn), may_be_lost }
}

fn bind_session(positions: &[Position], view: &ClusterView, histories: &Histories, now: Instant) -> Binding {
    bind(&Marks { positions, primary_only_until: None, has_session: true }, view, histories, now, STICK)
}

#[test]
fn the_highest_unexpired_position_binds() {
    let histories = histories(&[0, 500]);
    let view = view(&histories, 2000, vec![]);
    for (positions, now_ms, expected) in [
        (vec![], 0, Binding::NoPosition),
        (vec![known(2, 700, 0)], 29_999, bound(700, false)),
        (vec![known(2, 700, 0)], 30_000, Binding::Expired),
        (vec![known(2, 700, 10), known(2, 900, 0)], 29_999, bound(900, false)),
        (vec![known(2, 700, 10), known(2, 900, 0)], 30_000, bound(700, false)),
        (vec![known(1, 700, 0)], 1, bound(500, true)),
        (vec![known(1, 700, 0), known(2, 900, 0)], 1, bound(900, true)),
        (vec![named(1, 400, 0), known(2, 600, 0)], 1, bound(600, false)),
        (vec![named(3, 400, 0), known(2, 600, 0)], 1, Binding::Ahead),
        (vec![known(0, 0, 0), named(3, 400, 0)], 1, Binding::Ahead),
        (vec![named(3, 400, 0), known(2, 600, 10)], 30_000, bound(600, false)),
        (vec![known(0, 0, 0)], 1, Binding::PrimaryOnly),
        (vec![known(255, 0, 0)], 1, Binding::PrimaryOnly),
        (vec![Position { written: None, ..known(2, 700, 0) }], 1_000_000, bound(700, false)),
        (vec![known(2, 8192 + 24, 0)], 1, bound(8192, false)),
    ] {
        assert_eq!(bind_session(&positions, &view, &histories, at(now_ms)), expected, "{positions:?} at {now_ms}");
    }
}

#[test]
fn primary_only_dominates_until_its_time() {
    let histories = histories(&[0]);
    let view = view(&histories, 1000, vec![]);
    let positions = [known(1, 700, 0)];
    let at_ms = |positions, ms| {
        let marks = Marks { positions, primary_only_until: Some(at(20_000)), has_session: true };
        bind(&marks, &view, &histories, at(ms), STICK)
    };
    assert_eq!(at_ms(&positions, 19_999), Binding::PrimaryOnly);
    assert_eq!(at_ms(&positions, 20_000), bound(700, false));
    assert_eq!(at_ms(&[], 20_000), Binding::Expired);
}

#[test]
fn a_session_has_the_clusters_floor() {
    let histories = histories(&[0, 500]);
    let mut view = view(&histories, 1000, vec![]);
    let without = Marks::default();
    view.floor = Floor::Unknown;
    assert_eq!(bind_session(&[], &view, &histories, at(0)), Binding::PrimaryOnly);
    assert_eq!(bind(&without, &view, &histories, at(0), STICK), Binding::NoPosition);
    let floor = |history, lsn| Floor::At { history: HistoryId::from_raw(history), lsn: Lsn::new(lsn), until: at(100) };
    view.floor = floor(2, 800);
    assert_eq!(bind_session(&[], &view, &histories, at(99)), bound(800, false));
    assert_eq!(bind_session(&[known(2, 900, 0)], &view, &histories, at(99)), bound(900, false));
    assert_eq!(bind_session(&[], &view, &histories, at(100)), Binding::NoPosition);
    assert_eq!(bind(&without, &view, &histories, at(99), STICK), Binding::NoPosition);
    view.floor = floor(1, 800);
    assert_eq!(bind_session(&[], &view, &histories, at(99)), bound(500, true));
}

#[test]
fn without_a_primary_nothing_expires_after_the_last_sample() {
    let histories = histories(&[0]);
    let mut view = view(&histories, 1000, vec![]);
    view.primary_reachable = false;
    view.newest_sample = Some(sample(40_000, 1000));
    let late = at(1_000_000);
    assert_eq!(bind_session(&[known(1, 700, 10_001)], &view, &histories, late), bound(700, false));
    assert_eq!(bind_session(&[known(1, 700, 10_000)], &view, &histories, late), Binding::Expired);
    let only = |until| Marks { primary_only_until: Some(at(until)), ..Marks::default() };
    assert_eq!(bind(&only(40_001), &view, &histories, late, STICK), Binding::PrimaryOnly);
    assert_eq!(bind(&only(40_000), &view, &histories, late, STICK), Binding::Expired);
    view.floor = Floor::At { history: HistoryId::from_raw(1), lsn: Lsn::new(800), until: at(40_001) };
    assert_eq!(bind_session(&[], &view, &histories, late), bound(800, false));
    view.newest_sample = None;
    assert_eq!(bind_session(&[known(1, 900, 0)], &view, &histories, late), bound(900, false));
}

#[test]
fn a_primary_that_came_back_lower_clamps_what_was_written_before() {
    let histories = histories(&[0, 500]);
    let mut view = view(&histories, 600, vec![]);
    view.newest_sample = Some(sample(1000, 600));
    let bound_at = |position| bind_session(&[position], &view, &histories, at(2000));
    assert_eq!(bound_at(known(2, 700, 999)), bound(600, true));
    assert_eq!(bound_at(known(2, 600, 999)), bound(600, false));
    // Sent before, or at the same moment: the sample proves nothing.
    assert_eq!(bound_at(known(2, 700, 1000)), bound(700, false));
    // Another broker's clock may be behind this one's.
    assert_eq!(bound_at(named(2, 700, 0)), bound(700, false));
    assert_eq!(bound_at(Position { written_by: None, ..known(2, 700, 0) }), bound(700, false));
    // But not further behind than the configuration says.
    view.newest_sample = Some(sample(SKEW_MS + 1, 600));
    let bound_at = |position| bind_session(&[position], &view, &histories, at(SKEW_MS + 2));
    assert_eq!(bound_at(named(2, 700, 0)), bound(600, true));
    assert_eq!(bound_at(named(2, 700, 1)), bound(700, false));
}

#[test]
fn a_view_of_another_history_than_the_current_one_proves_nothing() {
    let mut histories = histories(&[0]);
    let mut view = view(&histories, 600, vec![]);
    histories.begin(CLUSTER, SYSTEM, timeline(2), SwitchPoint::exactly(Lsn::new(700)));
    assert_eq!(bind_session(&[known(1, 100, 0)], &view, &histories, at(1)), Binding::PrimaryOnly);
    view.history = None;
    assert_eq!(bind_session(&[known(1, 100, 0)], &view, &histories, at(1)), Binding::PrimaryOnly);
    assert_eq!(bind_session(&[], &view, &histories, at(1)), Binding::NoPosition);
}

prop_compose! {
    fn any_position()(history in 1u8..4, lsn in 0u64..3000, written in 0u64..60_000, by_name: bool) -> Position {
        if by_name { named(history.into(), lsn, written) } else { known(history, lsn, written) }
    }
}

proptest! {
    #[test]
    fn never_lower_than_an_unexpired_position(
        starts in prop::array::uniform3(0u64..1000),
        positions in prop::collection::vec(any_position(), 0..6),
        now in 0u64..90_000,
        sampled in (0u64..90_000, 0u64..3000),
        reachable: bool,
    ) {
        let histories = histories(&starts);
        let mut view = view(&histories, 0, vec![]);
        view.primary_reachable = reachable;
        view.newest_sample = Some(sample(sampled.0.min(now), sampled.1));
        let clock = if reachable { now } else { sampled.0.min(now) };
        let live: Vec<_> = positions.iter().filter(|p| at(clock) < p.written.unwrap() + STICK).collect();
        match bind_session(&positions, &view, &histories, at(now)) {
            Binding::NoPosition => prop_assert!(positions.is_empty()),
            Binding::Expired => prop_assert!(!positions.is_empty() && live.is_empty()),
            Binding::PrimaryOnly | Binding::Ahead => prop_assert!(false, "all histories are known"),
            Binding::At { lsn, may_be_lost } => {
                let mut highest = Lsn::ZERO;
                let mut any_lost = false;
                for position in &live {
                    let (required, lost) = match histories.require(CLUSTER, position.point) {
                        Required::At(lsn) => (lsn, false),
                        Required::MayBeLost(lsn) => (lsn, true),
                        Required::Ahead | Required::Unknown => unreachable!(),
                    };
                    let newest = view.newest_sample.unwrap();
                    let clamped = newest.sent_at > position.written_by.unwrap() && newest.insert < required;
                    highest = highest.max(if clamped { newest.insert } else { required });
                    any_lost |= lost || clamped;
                }
                prop_assert!(!live.is_empty());
                // Page headers lie on 24 and 40 only, below the first page's end on 40.
                prop_assert_eq!(lsn, highest.without_page_header(view.geometry));
                prop_assert_eq!(may_be_lost, any_lost);
            }
        }
    }
}
