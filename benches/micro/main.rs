//! Micro-benchmarks of what every request passes: the choice of a host, the slot table, statements' texts, rows. Whole
//! requests are `tidegate bench`'s.

mod route;
mod rows;
mod slots;
mod statements;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let mut criterion = criterion.configure_from_args();
    route::bench(&mut criterion);
    slots::bench(&mut criterion);
    statements::bench(&mut criterion);
    rows::bench(&mut criterion);
    criterion.final_summary();
}
