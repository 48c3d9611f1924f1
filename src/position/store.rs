//! Owns the positions of this broker's sessions: the slot table with real time and the hash that finds a session's
//! slot.

use super::slot::{SlotIndex, SlotTable, Tick};
use crate::model::{HistoryId, HistoryPoint, Lsn, Marks, Position};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// What sessions wrote last, in memory: as many sessions as there may be, in a fixed space. Shared by reference; takes
/// no lock.
#[derive(Debug)]
pub struct SessionPositions {
    table: SlotTable,
    /// When tick counting began.
    origin: Instant,
    /// Keyed at random, so that nobody can choose session ids that collide with another's.
    hasher: RandomState,
}

/// What a session's slot says, in real time. Sessions may share a slot, so it may be more than the session's own:
/// report it as "maybe".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionMarks {
    /// The highest position.
    pub position: Option<Position>,
    /// Until when only the primary will do.
    pub primary_only_until: Option<Instant>,
}

impl SessionMarks {
    /// The positions as [`Marks`] takes them: one or none.
    #[must_use]
    pub fn positions(&self) -> &[Position] {
        self.position.as_slice()
    }

    /// These marks alone, without tokens.
    #[must_use]
    pub fn marks(&self) -> Marks<'_> {
        Marks { positions: self.positions(), primary_only_until: self.primary_only_until, has_session: true }
    }
}

impl SessionPositions {
    /// An empty store of `slots` slots (rounded up to a power of two; [`SlotTable::DEFAULT_SLOTS`] take 16 MiB).
    /// `origin` is the broker's start: no later time may lie before it.
    #[must_use]
    pub fn new(slots: usize, origin: Instant) -> Self {
        Self { table: SlotTable::new(slots), origin, hasher: RandomState::new() }
    }

    /// The slot of a session on a cluster. Positions are kept per cluster, where the write went.
    #[must_use]
    pub fn slot_of(&self, cluster_name: &str, session_id: &str) -> SlotIndex {
        // A str's hash ends with a byte that no str contains, so the two fields cannot run into each other.
        self.table.slot_of_hash(self.hasher.hash_one((cluster_name, session_id)))
    }

    /// Records that a write ended at `lsn` of `history`. `now` must be read after the LSN was: what is known of the
    /// primary since then is held against it. Call it before the caller gets its answer.
    pub fn record(&self, slot: SlotIndex, history: HistoryId, lsn: Lsn, now: Instant) {
        self.table.record(slot, history, lsn, self.tick(now));
    }

    /// Makes the session read from the primary until `until`.
    pub fn mark_primary_only(&self, slot: SlotIndex, until: Instant) {
        self.table.mark_primary_only(slot, self.tick(until));
    }

    /// What the slot says. Times may be up to 100 ms late, never early.
    #[must_use]
    pub fn load(&self, slot: SlotIndex) -> SessionMarks {
        let view = self.table.load(slot);
        let point = HistoryPoint::Known { history: view.history, lsn: view.lsn };
        let written = view.last_write.map(|tick| self.instant(tick));
        SessionMarks {
            // A time without a position is a write that is just being recorded, and not acknowledged yet.
            position: (view.history != HistoryId::NONE).then_some(Position { point, written, written_by: written }),
            primary_only_until: view.primary_only_until.map(|tick| self.instant(tick)),
        }
    }

    fn tick(&self, time: Instant) -> Tick {
        // Rounded up after the subtraction, which is exact to the nanosecond.
        let nanos = time.saturating_duration_since(self.origin).as_nanos();
        Tick::at_or_after_millis(nanos.div_ceil(1_000_000))
    }

    fn instant(&self, tick: Tick) -> Instant {
        self.origin + Duration::from_millis(tick.millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store() -> (SessionPositions, Instant) {
        #[allow(clippy::disallowed_methods)]
        let origin = Instant::now();
        (SessionPositions::new(1 << 10, origin), origin)
    }

    #[test]
    fn an_unknown_session_has_no_marks() {
        let (store, _) = store();
        let marks = store.load(store.slot_of("main", "nobody"));
        assert_eq!(marks, SessionMarks::default());
        assert!(marks.positions().is_empty() && marks.marks().has_session);
    }

    #[test]
    fn the_two_fields_do_not_run_into_each_other() {
        let (store, _) = store();
        assert_ne!(store.hasher.hash_one(("ab", "c")), store.hasher.hash_one(("a", "bc")));
        assert_eq!(store.slot_of("a", "b"), store.slot_of("a", "b"));
    }

    proptest! {
        #[test]
        fn times_are_never_early_and_at_most_a_tick_late(nanos in 0u64..1 << 50, until in 0u64..1 << 50) {
            let (store, origin) = store();
            let (now, until) = (origin + Duration::from_nanos(nanos), origin + Duration::from_nanos(until));
            let slot = store.slot_of("main", "s");
            store.record(slot, HistoryId::from_raw(3), Lsn::new(70), now);
            store.mark_primary_only(slot, until);
            let marks = store.load(slot);
            let position = marks.position.unwrap();
            let point = HistoryPoint::Known { history: HistoryId::from_raw(3), lsn: Lsn::new(70) };
            prop_assert_eq!(position.point, point);
            for (exact, stored) in [(now, position.written.unwrap()), (until, marks.primary_only_until.unwrap())] {
                prop_assert!(stored >= exact && stored - exact < Duration::from_millis(Tick::MILLIS));
            }
        }
    }
}
