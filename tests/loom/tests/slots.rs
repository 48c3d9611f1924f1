//! Owns the models of the slot table: every interleaving, and every value that the memory orderings allow a load to
//! see.

use loom::sync::Arc;
use loom::thread;
use tidegate_loom::model::{HistoryId, Lsn};
use tidegate_loom::position::slot::{SlotIndex, SlotTable, SlotView, Tick};

/// A write: history, LSN, milliseconds since the start.
type Write = (u8, u64, u128);

fn record(table: &SlotTable, (history, lsn, millis): Write) {
    table.record(slot(table), HistoryId::from_raw(history), Lsn::new(lsn), Tick::at_or_after_millis(millis));
}

fn slot(table: &SlotTable) -> SlotIndex {
    table.slot_of_hash(0)
}

fn load(table: &SlotTable) -> SlotView {
    table.load(slot(table))
}

/// Whoever sees a write's position must take the slot for at least as fresh as that write. (As the earlier one, where
/// two writes ended at the same position: which of them was seen cannot be told.)
fn assert_time_goes_with_position(view: &SlotView, writes: &[Write]) {
    let seen = |(history, lsn, _): &&Write| (view.history, view.lsn) == (HistoryId::from_raw(*history), Lsn::new(*lsn));
    if let Some(millis) = writes.iter().filter(seen).map(|(_, _, millis)| *millis).min() {
        assert!(view.last_write >= Some(Tick::at_or_after_millis(millis)), "{view:?} without the time of {millis} ms");
    }
}

fn assert_not_below(view: &SlotView, &(history, lsn, millis): &Write) {
    assert!((view.history, view.lsn) >= (HistoryId::from_raw(history), Lsn::new(lsn)));
    assert!(view.last_write >= Some(Tick::at_or_after_millis(millis)));
}

/// Two sessions that share a slot write while a third thread reads; then both writes are finished. Each load more would
/// multiply the interleavings: what can be checked with fewer threads has its own model below.
fn two_writers_and_a_reader(first: Write, second: Write) {
    loom::model(move || {
        let table = Arc::new(SlotTable::new(1));
        let writers: Vec<_> = [first, second]
            .into_iter()
            .map(|write| {
                let table = Arc::clone(&table);
                thread::spawn(move || record(&table, write))
            })
            .collect();
        let view = load(&table);
        assert_time_goes_with_position(&view, &[first, second]);
        for writer in writers {
            writer.join().expect("a writer panicked");
        }
        let view = load(&table);
        assert_not_below(&view, &first);
        assert_not_below(&view, &second);
    });
}

#[test]
fn the_higher_position_may_be_the_older_write() {
    two_writers_and_a_reader((1, 200, 1_000), (1, 100, 5_000));
}

#[test]
fn the_higher_position_may_be_the_newer_write() {
    two_writers_and_a_reader((1, 100, 1_000), (1, 200, 5_000));
}

#[test]
fn a_newer_history_covers_a_higher_lsn_of_an_older_one() {
    two_writers_and_a_reader((1, 900, 5_000), (2, 100, 1_000));
}

#[test]
fn the_same_position_twice() {
    two_writers_and_a_reader((1, 100, 1_000), (1, 100, 5_000));
}

#[test]
fn a_writer_sees_its_own_write_beside_another() {
    loom::model(|| {
        let (own, other) = ((1, 200, 1_000), (1, 100, 5_000));
        let table = Arc::new(SlotTable::new(1));
        let writer = {
            let table = Arc::clone(&table);
            thread::spawn(move || record(&table, other))
        };
        record(&table, own);
        assert_not_below(&load(&table), &own);
        writer.join().unwrap();
    });
}

#[test]
fn a_slot_never_goes_back() {
    loom::model(|| {
        let table = Arc::new(SlotTable::new(1));
        let writer = {
            let table = Arc::clone(&table);
            thread::spawn(move || record(&table, (2, 100, 1_000)))
        };
        let earlier = load(&table);
        let later = load(&table);
        assert!((later.history, later.lsn, later.last_write) >= (earlier.history, earlier.lsn, earlier.last_write));
        writer.join().unwrap();
    });
}

/// The first write is long over when a second one runs: its position must not be met with the first one's time.
#[test]
fn a_second_write_is_never_taken_for_expired() {
    loom::model(|| {
        let (first, second) = ((1, 100, 0), (1, 200, 60_000));
        let table = Arc::new(SlotTable::new(1));
        record(&table, first);
        let writer = {
            let table = Arc::clone(&table);
            thread::spawn(move || record(&table, second))
        };
        let view = load(&table);
        assert_time_goes_with_position(&view, &[first, second]);
        assert_not_below(&view, &first);
        writer.join().unwrap();
        assert_not_below(&load(&table), &second);
    });
}

#[test]
fn a_primary_only_mark_is_kept_beside_a_write() {
    loom::model(|| {
        let table = Arc::new(SlotTable::new(1));
        let (short, long) = (Tick::at_or_after_millis(1_000), Tick::at_or_after_millis(9_000));
        let marker = {
            let table = Arc::clone(&table);
            thread::spawn(move || table.mark_primary_only(slot(&table), long))
        };
        table.mark_primary_only(slot(&table), short);
        record(&table, (1, 100, 500));
        assert!(load(&table).primary_only_until >= Some(short));
        marker.join().unwrap();
        let view = load(&table);
        assert_eq!(view.primary_only_until, Some(long));
        assert_not_below(&view, &(1, 100, 500));
    });
}
