//! What is measured beside the comparison: the micro-benchmarks' figures, read from where `make bench` leaves them; idle
//! sessions on a broker of their own.

use std::path::Path;

use serde_json::Value;

use crate::cli::bench::sessions;

/// Figures of others, or why there is none.
#[derive(Debug, Clone)]
pub(super) struct Others {
    pub(super) route_ns: Result<f64, String>,
    pub(super) slots_mib: Result<f64, String>,
    pub(super) session_kib: Result<f64, String>,
}

/// Where criterion keeps its figures of a choice among 16 replicas, by what the read must see.
const ROUTES: [&str; 4] = ["route_unbound", "route_caught_up", "route_caught_up_least_loaded", "route_behind"];

/// What the slot table takes once ten million sessions have written.
const SLOTS: &str = "target/criterion/slots/resident.json";

impl Others {
    /// With so many idle sessions; none: their row says so.
    pub(super) async fn measure(idle_sessions: u32, note: &impl Fn(String)) -> Others {
        note("idle sessions".into());
        Others {
            route_ns: slowest_route(Path::new("target/criterion")),
            slots_mib: figure(Path::new(SLOTS), |json| json["resident_bytes"].as_f64()).map(in_whole_mib),
            session_kib: session_kib(idle_sessions, note).await,
        }
    }
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
    figure(path, |json| json["median"]["point_estimate"].as_f64())
}

fn in_whole_mib(bytes: f64) -> f64 {
    (bytes / f64::from(1 << 20)).round()
}

fn figure(path: &Path, found: impl Fn(&Value) -> Option<f64>) -> Result<f64, String> {
    let text = std::fs::read_to_string(path).map_err(|_| "run `make bench-micro` first".to_owned())?;
    let figure = serde_json::from_str(&text).ok().as_ref().and_then(found);
    figure.ok_or_else(|| format!("{} is not understood", path.display()))
}

#[cfg(test)]
mod tests {
    use super::slowest_route;

    #[test]
    fn the_slowest_route_counts_and_none_may_lack() {
        let folder = std::env::temp_dir().join(format!("tidegate-routes-{:08x}", rand::random::<u32>()));
        for (name, nanos) in super::ROUTES.into_iter().zip([120.5, 43.6, 99.0, 80.0]) {
            assert_eq!(slowest_route(&folder).unwrap_err(), "run `make bench-micro` first");
            let path = folder.join(name).join("16/new");
            std::fs::create_dir_all(&path).expect("a folder");
            let text = format!(r#"{{"mean":{{"point_estimate":1.0}},"median":{{"point_estimate":{nanos}}}}}"#);
            std::fs::write(path.join("estimates.json"), text).expect("a file");
        }
        assert_eq!(slowest_route(&folder), Ok(120.5));
        std::fs::write(folder.join("route_behind/16/new/estimates.json"), "{}").expect("a file");
        assert!(slowest_route(&folder).unwrap_err().ends_with("is not understood"));
        std::fs::remove_dir_all(&folder).expect("it is removed");
    }
}
