//! What a statement's text says: short and long ones, by their tokens alone and parsed.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tidegate::sql::{self, Place};

const POINT_READ: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
const UPDATE: &str = "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2";

/// A report with so many branches of some 90 bytes, a comment, strings and a common table expression.
fn report(branches: u32) -> String {
    let branches = (0..branches).map(|number| {
        format!("WHEN a.kind = 'kind {number}' THEN coalesce(a.amount, 0) * {number} + b.rate /* {number} */")
    });
    let branches: Vec<_> = branches.collect();
    format!(
        "WITH b AS (SELECT id, rate FROM rates WHERE valid)\nSELECT a.id, CASE {} ELSE 0 END AS total -- the sum\n\
         FROM amounts a JOIN b ON b.id = a.rate_id WHERE a.day >= $1 AND a.day < $2 ORDER BY a.id LIMIT 100",
        branches.join("\n")
    )
}

pub(crate) fn bench(criterion: &mut Criterion) {
    // The longest has too many words to be judged.
    let (middling, long) = (report(40), report(120));
    for (name, text, place, is_judged) in [
        ("short_read", POINT_READ, Place::Read, true),
        ("short_write", UPDATE, Place::Write, true),
        ("middling_read", middling.as_str(), Place::Read, true),
        ("long_read", long.as_str(), Place::Read, false),
    ] {
        let mut group = criterion.benchmark_group("statement");
        group.throughput(Throughput::Bytes(text.len() as u64));
        sql::inspect(text, place).expect("it may be sent");
        group.bench_function(format!("inspect/{name}"), |bencher| {
            bencher.iter(|| sql::inspect(black_box(text), place));
        });
        // The proof that a statement is clean begins with this; it is kept by text, and made once.
        let judge = if place == Place::Read { sql::footprint } else { sql::footprint_of_write };
        assert_eq!(judge(text).is_ok(), is_judged, "{name} can be clean");
        group.bench_function(format!("footprint/{name}"), |bencher| bencher.iter(|| judge(black_box(text))));
        group.finish();
    }
}
