//! The slot table, against the number of sessions that write; and that it does not grow with them.

use std::{fs, hint::black_box};

use criterion::{BenchmarkId, Criterion};
use tidegate::{
    clock,
    model::{HistoryId, Lsn},
    position::{SessionPositions, SlotTable},
};

const SESSIONS: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// 16 a slot.
const TABLE_BYTES: u64 = 16 * SlotTable::DEFAULT_SLOTS as u64;
/// More than anything else in this process takes meanwhile, and less than a byte a session.
const GROWTH_MAX_BYTES: u64 = 1 << 20;

const FIGURES_FOLDER: &str = "target/criterion/slots";

/// A session's id: 16 hexadecimal digits, made without an allocation.
struct Id([u8; 16]);

impl Id {
    fn new(number: u64) -> Id {
        // Spread, so that neighbours are not in neighbouring slots before they are hashed.
        let bits = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Id(std::array::from_fn(|at| b"0123456789abcdef"[(bits >> (60 - 4 * at)) as usize & 15]))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits")
    }
}

/// This process's resident memory, in bytes (proc(5), `statm`, in pages).
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages");
    pages * 4096
}

fn record(positions: &SessionPositions, session: u64, lsn: u64) {
    let slot = positions.slot_of("main", Id::new(session).as_str());
    positions.record(slot, HistoryId::from_raw(1), Lsn::new(lsn), clock::now());
}

pub(crate) fn bench(criterion: &mut Criterion) {
    grows_not();
    for sessions in SESSIONS {
        let positions = SessionPositions::new(SlotTable::DEFAULT_SLOTS, clock::now());
        (0..sessions).for_each(|session| record(&positions, session, session));
        let name = |what| BenchmarkId::new(what, sessions);
        let mut group = criterion.benchmark_group("slots");
        // A step that meets every session, and not in order.
        let mut session = 0;
        let mut next = move || {
            session = (session + 618_033_989) % sessions;
            session
        };
        let mut lsn = sessions;
        group.bench_function(name("record"), |bencher| {
            bencher.iter(|| {
                lsn += 1;
                record(&positions, next(), black_box(lsn));
            });
        });
        group.bench_function(name("look_up"), |bencher| {
            bencher.iter(|| positions.load(positions.slot_of("main", Id::new(next()).as_str())));
        });
        group.finish();
    }
}

/// As many sessions as there may be take no more than the table, whose memory is there at the start or comes as it is
/// touched. What they take is left beside criterion's figures, for `tidegate bench compare`.
fn grows_not() {
    let before = resident();
    let positions = SessionPositions::new(SlotTable::DEFAULT_SLOTS, clock::now());
    let empty = resident();
    eprintln!("slot table: empty {:.1} MiB", (empty - before) as f64 / f64::from(1 << 20));
    let mut recorded = 0;
    for sessions in SESSIONS {
        (recorded..sessions).for_each(|session| record(&positions, session, session));
        recorded = sessions;
        let taken = resident().saturating_sub(before);
        eprintln!("slot table: {sessions:>8} sessions, {:.1} KiB in all", taken as f64 / 1024.0);
        assert!(taken < TABLE_BYTES + GROWTH_MAX_BYTES, "{sessions} sessions take {taken} bytes");
    }
    let figures = format!("{{\"sessions\":{recorded},\"resident_bytes\":{}}}\n", resident() - before);
    fs::create_dir_all(FIGURES_FOLDER).expect("a folder");
    fs::write(format!("{FIGURES_FOLDER}/resident.json"), figures).expect("the figures are written");
}
