//! Owns the histories of all clusters: which timelines followed each other and where, and so what a position of one
//! means in another. LSNs are compared within one history only.

use super::{ClusterId, Lsn, Timeline};
use std::sync::Arc;

/// A broker-wide number for a history: a timeline of a cluster. A later history has a larger number. Broker-wide, so
/// that a position stored under a number of another cluster is noticed as foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HistoryId(u8);

impl HistoryId {
    /// No history: nothing was ever stored.
    pub const NONE: Self = Self(0);

    /// The history of positions that cannot be compared any more: after 254 histories, or an unknown one. It is above
    /// all others, so a store that keeps the highest never hides it.
    pub const OVERFLOW: Self = Self(255);

    /// The history of that number.
    #[must_use]
    pub const fn from_raw(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Whether it stands for a history whose positions can be compared.
    #[must_use]
    pub const fn is_comparable(self) -> bool {
        self.0 != Self::NONE.0 && self.0 != Self::OVERFLOW.0
    }
}

/// A WAL position together with the history that gives it a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryPoint {
    /// Of a history that this broker numbered.
    Known {
        /// The history.
        history: HistoryId,
        /// The position in it.
        lsn: Lsn,
    },
    /// As a token names it: this broker may have seen that history or not.
    Named {
        /// PostgreSQL's `system_identifier`.
        system_identifier: u64,
        /// The timeline.
        timeline: Timeline,
        /// The position in it.
        lsn: Lsn,
    },
}

/// What a position requires in the cluster's current history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// All up to this.
    At(Lsn),
    /// All up to this, a switch point; what lay beyond it may not have survived the promotion.
    MayBeLost(Lsn),
    /// It lies in a history that this broker has yet to see: whatever it takes for the primary was left behind.
    Ahead,
    /// It cannot be said: only the primary will do.
    Unknown,
}

/// All histories that this broker has seen, of all clusters. Cheap to clone: readers hold a copy of their own.
#[derive(Debug, Clone, Default)]
pub struct Histories(Arc<Registry>);

#[derive(Debug, Clone, Default)]
struct Registry {
    /// In the order of their ids, which begin at 1.
    entries: Vec<Entry>,
    /// By cluster; NONE before its first.
    current: Vec<HistoryId>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    cluster: ClusterId,
    system_identifier: u64,
    timeline: Timeline,
    start: Lsn,
}

impl Histories {
    /// Begins a history of `cluster`, now its current one. `start` is where it left its parent: the switch point, or
    /// else the first insert position read there. Beginning the current one again changes nothing.
    ///
    /// Returns [`HistoryId::OVERFLOW`] once all numbers are used: the cluster's positions then always ask for the
    /// primary.
    pub fn begin(&mut self, cluster: ClusterId, system_identifier: u64, timeline: Timeline, start: Lsn) -> HistoryId {
        let current = self.current(cluster);
        let same = |e: &Entry| e.system_identifier == system_identifier && e.timeline == timeline;
        if let Some(id) = current.filter(|id| self.entry(*id).is_some_and(same)) {
            return id;
        }
        let registry = Arc::make_mut(&mut self.0);
        let id = match u8::try_from(registry.entries.len() + 1) {
            Ok(number) if number < HistoryId::OVERFLOW.0 => {
                registry.entries.push(Entry { cluster, system_identifier, timeline, start });
                HistoryId(number)
            }
            _ => HistoryId::OVERFLOW,
        };
        if registry.current.len() <= cluster.index() {
            registry.current.resize(cluster.index() + 1, HistoryId::NONE);
        }
        registry.current[cluster.index()] = id;
        id
    }

    /// The current history of `cluster`: the one begun last.
    #[must_use]
    pub fn current(&self, cluster: ClusterId) -> Option<HistoryId> {
        self.0.current.get(cluster.index()).copied().filter(|id| *id != HistoryId::NONE)
    }

    /// The newest history of `cluster` with that system identifier and timeline.
    #[must_use]
    pub fn find(&self, cluster: ClusterId, system_identifier: u64, timeline: Timeline) -> Option<HistoryId> {
        let is = |(_, e): &(HistoryId, Entry)| e.system_identifier == system_identifier && e.timeline == timeline;
        self.of_cluster(cluster).rev().find(is).map(|(id, _)| id)
    }

    /// The timeline of a history.
    #[must_use]
    pub fn timeline(&self, history: HistoryId) -> Option<Timeline> {
        self.entry(history).map(|entry| entry.timeline)
    }

    /// The system identifier of a history.
    #[must_use]
    pub fn system_identifier(&self, history: HistoryId) -> Option<u64> {
        self.entry(history).map(|entry| entry.system_identifier)
    }

    /// The cluster of a history.
    #[must_use]
    pub fn cluster(&self, history: HistoryId) -> Option<ClusterId> {
        self.entry(history).map(|entry| entry.cluster)
    }

    /// Where a history left its parent.
    #[must_use]
    pub fn start(&self, history: HistoryId) -> Option<Lsn> {
        self.entry(history).map(|entry| entry.start)
    }

    /// What `at` requires in the current history of `cluster`.
    ///
    /// A position of an older timeline is held against every later switch point that is known: beyond one, nothing of
    /// the older is in the newer. [`Required::Unknown`] without a current history, and for a position of another
    /// cluster, another system identifier, or no comparable history at all.
    #[must_use]
    pub fn require(&self, cluster: ClusterId, at: HistoryPoint) -> Required {
        let Some(current) = self.current(cluster).and_then(|id| self.entry(id)) else { return Required::Unknown };
        let (lsn, system_identifier, timeline) = match at {
            HistoryPoint::Named { system_identifier, timeline, lsn } => (lsn, system_identifier, timeline),
            HistoryPoint::Known { history, lsn } => match self.entry(history) {
                Some(entry) if entry.cluster == cluster => (lsn, entry.system_identifier, entry.timeline),
                _ => return Required::Unknown,
            },
        };
        if system_identifier != current.system_identifier {
            return Required::Unknown;
        }
        if timeline > current.timeline {
            // A token may come from a broker that saw the promotion first; what was seen here and is not current any
            // more was undone by hand.
            let is_named = matches!(at, HistoryPoint::Named { .. });
            return if is_named { Required::Ahead } else { Required::Unknown };
        }
        if timeline == current.timeline {
            return Required::At(lsn);
        }
        let is_later = |e: &Entry| {
            e.system_identifier == system_identifier && e.timeline > timeline && e.timeline <= current.timeline
        };
        let starts = self.of_cluster(cluster).filter(|(_, e)| is_later(e)).map(|(_, e)| e.start);
        // The current history is among them, so there is always a start.
        match starts.fold(current.start, Lsn::min) {
            start if lsn > start => Required::MayBeLost(start),
            _ => Required::At(lsn),
        }
    }

    fn entry(&self, id: HistoryId) -> Option<&Entry> {
        self.0.entries.get(usize::from(id.0).checked_sub(1)?)
    }

    fn of_cluster(&self, cluster: ClusterId) -> impl DoubleEndedIterator<Item = (HistoryId, Entry)> {
        // 254 entries at most, so the number fits and the end of the range is never reached.
        let numbers = 1..=HistoryId::OVERFLOW.0;
        let entries = self.0.entries.iter().enumerate();
        numbers.zip(entries).filter_map(move |(n, (_, e))| (e.cluster == cluster).then_some((HistoryId(n), *e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_support::{CLUSTER, SYSTEM, histories, timeline};
    use Required::{Ahead, At, MayBeLost, Unknown};
    use proptest::prelude::*;

    const OTHER: ClusterId = ClusterId::new(3);

    fn known(history: u8, lsn: u64) -> HistoryPoint {
        HistoryPoint::Known { history: HistoryId(history), lsn: Lsn::new(lsn) }
    }

    fn named(number: u32, lsn: u64) -> HistoryPoint {
        HistoryPoint::Named { system_identifier: SYSTEM, timeline: timeline(number), lsn: Lsn::new(lsn) }
    }

    #[test]
    fn numbers_are_broker_wide_and_idempotent() {
        let mut all = Histories::default();
        assert_eq!(all.current(CLUSTER), None);
        let first = all.begin(CLUSTER, SYSTEM, timeline(1), Lsn::new(5));
        let other = all.begin(OTHER, SYSTEM, timeline(1), Lsn::new(6));
        assert_eq!((first.raw(), other.raw()), (1, 2));
        assert_eq!(all.begin(CLUSTER, SYSTEM, timeline(1), Lsn::new(9)), first);
        assert_eq!((all.start(first), all.cluster(other)), (Some(Lsn::new(5)), Some(OTHER)));
        let second = all.begin(CLUSTER, SYSTEM, timeline(2), Lsn::new(100));
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
        all.begin(CLUSTER, SYSTEM, timeline(3), Lsn::new(500));
        all.begin(CLUSTER, SYSTEM, timeline(5), Lsn::new(800));
        assert_eq!(all.require(CLUSTER, named(2, 400)), At(Lsn::new(400)));
        assert_eq!(all.require(CLUSTER, named(2, 501)), MayBeLost(Lsn::new(500)));
        assert_eq!(all.require(CLUSTER, named(4, 700)), At(Lsn::new(700)));
        assert_eq!(all.require(CLUSTER, named(4, 801)), MayBeLost(Lsn::new(800)));
    }

    #[test]
    fn foreign_positions_are_unknown() {
        let mut all = histories(&[0]);
        let other = all.begin(OTHER, SYSTEM, timeline(1), Lsn::ZERO);
        assert_eq!(all.require(CLUSTER, known(other.raw(), 1)), Unknown);
        assert_eq!(all.require(OTHER, known(1, 1)), Unknown);
        // The cluster was built anew, and a timeline went back.
        let mut rebuilt = all.clone();
        rebuilt.begin(CLUSTER, SYSTEM + 1, timeline(1), Lsn::ZERO);
        assert_eq!(rebuilt.require(CLUSTER, known(1, 1)), Unknown);
        assert_eq!(rebuilt.require(CLUSTER, named(1, 1)), Unknown);
        let mut back = histories(&[0, 10]);
        let again = back.begin(CLUSTER, SYSTEM, timeline(1), Lsn::new(20));
        assert_eq!(back.require(CLUSTER, known(2, 1)), Unknown);
        assert_eq!(back.require(CLUSTER, known(1, 30)), At(Lsn::new(30)));
        assert_eq!(back.find(CLUSTER, SYSTEM, timeline(1)), Some(again));
        // A copy taken before is not touched.
        assert_eq!(all.require(CLUSTER, known(1, 1)), At(Lsn::new(1)));
    }

    #[test]
    fn out_of_numbers_means_unknown() {
        let mut all = Histories::default();
        for n in 1..=254 {
            let id = all.begin(CLUSTER, SYSTEM, timeline(n), Lsn::new(u64::from(n)));
            assert_eq!(u32::from(id.raw()), n);
            assert!(id.is_comparable());
        }
        assert_eq!(all.require(CLUSTER, known(254, 300)), At(Lsn::new(300)));
        assert_eq!(all.begin(OTHER, SYSTEM, timeline(1), Lsn::ZERO), HistoryId::OVERFLOW);
        assert_eq!(all.begin(CLUSTER, SYSTEM, timeline(255), Lsn::ZERO), HistoryId::OVERFLOW);
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
}
