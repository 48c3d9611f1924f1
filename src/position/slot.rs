//! Owns the table of what sessions wrote last: fixed in size, without locks, never too low. Which session has which
//! slot, and what a tick is in real time, is the store's.
//!
//! A slot is raised and never lowered, so two sessions that share one by their hash only make each other's reads more
//! careful.

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::model::{HistoryId, Lsn};

/// A slot's index in the table of its making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotIndex(usize);

/// A time in units of 100 ms since the broker's start, plus one: 0 stands for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u32);

impl Tick {
    /// Milliseconds in a tick.
    pub const MILLIS: u64 = 100;

    /// The first tick at or after that many milliseconds since the start: rounded up, so that nothing ends early. The
    /// last tick stands for all later times, some 13 years on.
    #[must_use]
    pub const fn at_or_after_millis(millis: u128) -> Self {
        let tick = millis.div_ceil(Self::MILLIS as u128) + 1;
        Self(if tick < u32::MAX as u128 { tick as u32 } else { u32::MAX })
    }

    /// Milliseconds since the start.
    #[must_use]
    pub const fn millis(self) -> u64 {
        (self.0 as u64 - 1) * Self::MILLIS
    }

    const fn from_stored(stored: u32) -> Option<Self> {
        if stored == 0 { None } else { Some(Self(stored)) }
    }
}

/// What a slot says. Because sessions may share it, it says "at most this much, at most this late".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotView {
    /// The newest history in which something was written; NONE: nothing was.
    pub history: HistoryId,
    /// The highest position in it.
    pub lsn: Lsn,
    /// When the last write was recorded.
    pub last_write: Option<Tick>,
    /// Until when only the primary will do.
    pub primary_only_until: Option<Tick>,
}

/// 16 bytes: four to a cache line, and 2^20 of them in 16 MiB.
#[derive(Debug)]
struct Slot {
    /// The history above the LSN, so that raising it compares histories first.
    position: AtomicU64,
    last_write: AtomicU32,
    primary_only_until: AtomicU32,
}

/// The slots.
#[derive(Debug)]
pub struct SlotTable {
    slots: Box<[Slot]>,
}

const LSN_BITS: u32 = 56;
const LSN_MAX: u64 = (1 << LSN_BITS) - 1;

impl SlotTable {
    /// How many slots there are unless said otherwise.
    pub const DEFAULT_SLOTS: usize = 1 << 20;

    /// A table of `slots` empty slots, rounded up to a power of two.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let empty = |_| Slot {
            position: AtomicU64::new(0),
            last_write: AtomicU32::new(0),
            primary_only_until: AtomicU32::new(0),
        };
        Self { slots: (0..slots.next_power_of_two()).map(empty).collect() }
    }

    /// The slot for a hash.
    #[must_use]
    pub fn slot_of_hash(&self, hash: u64) -> SlotIndex {
        // The table is a power of two long, and what the cast may cut off lies above the mask.
        SlotIndex(hash as usize & (self.slots.len() - 1))
    }

    /// Records a write that ended at `lsn` of `history`, at `at` or shortly before.
    ///
    /// A position that cannot be kept as a number (no history, or an LSN above 2^56) is kept as
    /// [`HistoryId::OVERFLOW`]: it asks for the primary, and nothing hides it.
    pub fn record(&self, slot: SlotIndex, history: HistoryId, lsn: Lsn, at: Tick) {
        let slot = self.slot(slot);
        // The time goes first, and the LSN is raised with Release: who loads this LSN (or one that a later write put on
        // top, since every raise is a read-modify-write and so continues this one's release sequence) also sees a time
        // at least this late. The other way round a reader could meet the new LSN with the old time, take it for
        // expired, and read past the write.
        slot.last_write.fetch_max(at.0, Ordering::Relaxed);
        slot.position.fetch_max(pack(history, lsn), Ordering::Release);
    }

    /// Makes the slot's sessions read from the primary until `until`: a write's outcome or position is not known.
    pub fn mark_primary_only(&self, slot: SlotIndex, until: Tick) {
        self.slot(slot).primary_only_until.fetch_max(until.0, Ordering::Release);
    }

    /// What the slot says now.
    #[must_use]
    pub fn load(&self, slot: SlotIndex) -> SlotView {
        let slot = self.slot(slot);
        // The LSN first, with Acquire, against the order of `record`: the times below are then those of its write, or
        // later ones.
        let position = slot.position.load(Ordering::Acquire);
        let last_write = slot.last_write.load(Ordering::Relaxed);
        let primary_only_until = slot.primary_only_until.load(Ordering::Acquire);
        let (history, lsn) = unpack(position);
        SlotView {
            history,
            lsn,
            last_write: Tick::from_stored(last_write),
            primary_only_until: Tick::from_stored(primary_only_until),
        }
    }

    fn slot(&self, index: SlotIndex) -> &Slot {
        // Masked, so that an index of another table is a wrong slot and no panic.
        &self.slots[index.0 & (self.slots.len() - 1)]
    }
}

const fn pack(history: HistoryId, lsn: Lsn) -> u64 {
    if history.is_comparable() && lsn.get() <= LSN_MAX {
        (history.raw() as u64) << LSN_BITS | lsn.get()
    } else {
        (HistoryId::OVERFLOW.raw() as u64) << LSN_BITS
    }
}

const fn unpack(position: u64) -> (HistoryId, Lsn) {
    (HistoryId::from_raw((position >> LSN_BITS) as u8), Lsn::new(position & LSN_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(number: u8) -> HistoryId {
        HistoryId::from_raw(number)
    }

    #[test]
    fn a_slot_takes_16_bytes() {
        assert_eq!(size_of::<Slot>(), 16);
        assert_eq!(SlotTable::new(5).slots.len(), 8);
        assert_eq!(SlotTable::new(0).slots.len(), 1);
    }

    #[test]
    fn ticks_round_up() {
        for (millis, tick, back) in [(0, 1, 0), (1, 2, 100), (100, 2, 100), (101, 3, 200)] {
            assert_eq!(Tick::at_or_after_millis(millis), Tick(tick));
            assert_eq!(Tick(tick).millis(), back);
        }
        assert_eq!(Tick::at_or_after_millis(u128::MAX - 1), Tick(u32::MAX));
    }

    #[test]
    fn an_empty_slot_says_nothing() {
        let table = SlotTable::new(4);
        let empty = SlotView { history: HistoryId::NONE, lsn: Lsn::ZERO, last_write: None, primary_only_until: None };
        assert_eq!(table.load(table.slot_of_hash(3)), empty);
    }

    #[test]
    fn what_cannot_be_kept_asks_for_the_primary_and_stays() {
        for (number, lsn) in [(0, 5), (255, 5), (1, LSN_MAX + 1), (1, u64::MAX)] {
            let table = SlotTable::new(1);
            let slot = table.slot_of_hash(0);
            table.record(slot, history(number), Lsn::new(lsn), Tick(3));
            table.record(slot, history(254), Lsn::new(LSN_MAX), Tick(2));
            let view = table.load(slot);
            assert_eq!((view.history, view.last_write), (HistoryId::OVERFLOW, Some(Tick(3))));
        }
    }

    proptest! {
        #[test]
        fn a_slot_is_never_below_any_of_its_members(
            writes in prop::collection::vec((any::<u64>(), 1u8..5, 0u64..=LSN_MAX, 1u32..1000, any::<bool>()), 1..60),
            slots in 1usize..8,
        ) {
            let table = SlotTable::new(slots);
            let mut members = std::collections::HashMap::new();
            for (session, number, lsn, tick, unknown) in writes {
                let session = session % 12; // more sessions than slots
                let slot = table.slot_of_hash(session);
                let (positions, last, only) = members.entry(session).or_insert((vec![], 0, 0));
                if unknown {
                    table.mark_primary_only(slot, Tick(tick));
                    *only = tick.max(*only);
                } else {
                    table.record(slot, history(number), Lsn::new(lsn), Tick(tick));
                    positions.push((history(number), Lsn::new(lsn)));
                    *last = tick.max(*last);
                }
            }
            for (session, (positions, last, only)) in members {
                let view = table.load(table.slot_of_hash(session));
                prop_assert!(positions.into_iter().all(|position| (view.history, view.lsn) >= position));
                prop_assert!(view.last_write.map_or(0, |tick| tick.0) >= last);
                prop_assert!(view.primary_only_until.map_or(0, |tick| tick.0) >= only);
            }
        }
    }
}
