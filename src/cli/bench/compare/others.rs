//! What other benches have measured: read from where they leave it, if they were run. `cargo bench` (criterion) leaves
//! estimates below `target/criterion`.

use std::path::Path;

use serde_json::Value;

/// Figures of others, or why there is none.
#[derive(Debug, Clone)]
pub(super) struct Others {
    pub(super) route_ns: Result<f64, String>,
    pub(super) slots_mib: Result<f64, String>,
    pub(super) session_kib: Result<f64, String>,
}

/// Where criterion keeps what it measured of one function.
const ROUTE: &str = "target/criterion/route/16 replicas/new/estimates.json";

impl Others {
    pub(super) fn read() -> Others {
        Others {
            route_ns: criterion_ns(Path::new(ROUTE)),
            slots_mib: Err("no bench of this program measures it yet".into()),
            session_kib: Err("no bench of this program measures it yet".into()),
        }
    }
}

/// The median of a criterion benchmark, in nanoseconds.
fn criterion_ns(path: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(path).map_err(|_| "run `cargo bench` first".to_owned())?;
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
