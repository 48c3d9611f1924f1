//! What is measured beside the comparison: criterion's figures, read from where `make bench` leaves them; the slot table in
//! this process; idle sessions on a broker of their own.

use std::path::Path;

use rustix::process::getpid;
use serde_json::Value;

use crate::{
    cli::bench::{process::memory, sessions},
    clock,
    model::{HistoryId, Lsn},
    position::{SessionPositions, SlotTable},
};

/// Figures of others, or why there is none.
#[derive(Debug, Clone)]
pub(super) struct Others {
    pub(super) route_ns: Result<f64, String>,
    pub(super) slots_mib: Result<f64, String>,
    pub(super) session_kib: Result<f64, String>,
}

/// Where criterion keeps its figures of a choice among 16 replicas, by what the read must see.
const ROUTES: [&str; 4] = ["route_unbound", "route_caught_up", "route_caught_up_least_loaded", "route_behind"];

/// The first of these have touched every page of the table; the rest are to add nothing.
const SESSIONS: [u64; 2] = [2_000_000, 10_000_000];

impl Others {
    /// With so many idle sessions; none: their row says so.
    pub(super) async fn measure(idle_sessions: u32, note: &impl Fn(String)) -> Others {
        note("the slot table, and idle sessions".into());
        Others {
            route_ns: slowest_route(Path::new("target/criterion")),
            slots_mib: slots_mib(),
            session_kib: session_kib(idle_sessions, note).await,
        }
    }
}

/// What the table takes after ten million sessions have written, in whole MiB: more than at its start, if it grew.
fn slots_mib() -> Result<f64, String> {
    let resident = || memory(getpid(), "VmRSS").map_err(|error| error.to_string());
    let before = resident()?;
    let positions = SessionPositions::new(SlotTable::DEFAULT_SLOTS, clock::now());
    let write = |session: u64| {
        let slot = positions.slot_of("main", &format!("session {session}"));
        positions.record(slot, HistoryId::from_raw(1), Lsn::new(session), clock::now());
    };
    let [first, all] = SESSIONS;
    (0..first).for_each(write);
    let filled = resident()?.above(before).mib();
    (first..all).for_each(write);
    let grown = resident()?.above(before).mib();
    Ok(if grown > filled + 0.5 { grown } else { filled }.round())
}

async fn session_kib(streams: u32, note: &impl Fn(String)) -> Result<f64, String> {
    if streams == 0 {
        return Err("not asked for".into());
    }
    let measured = sessions::measure(streams, 0, note).await.map_err(|error| error.to_string())?;
    Ok(measured.idle_bytes_per_stream() as f64 / 1024.0)
}

/// The median of the slowest, in nanoseconds.
fn slowest_route(folder: &Path) -> Result<f64, String> {
    let medians = ROUTES.map(|name| criterion_ns(&folder.join(name).join("16/new/estimates.json")));
    medians.into_iter().try_fold(0.0, |slowest, median| Ok(median?.max(slowest)))
}

/// The median of a criterion benchmark, in nanoseconds.
fn criterion_ns(path: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(path).map_err(|_| "run `make bench-micro` first".to_owned())?;
    estimate(&text).ok_or_else(|| format!("{} is not understood", path.display()))
}

fn estimate(text: &str) -> Option<f64> {
    serde_json::from_str::<Value>(text).ok()?["median"]["point_estimate"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::estimate;

    #[test]
    fn criterions_estimates_are_read() {
        let text = r#"{"mean":{"point_estimate":44.1},"median":{"confidence_interval":{"lower_bound":43.0},"point_estimate":43.6}}"#;
        assert_eq!(estimate(text), Some(43.6));
        assert_eq!(estimate("{}"), None);
    }
}
