//! The machine, and the versions of what runs on it, for the report.

use std::{fs, path::Path};

use serde::Serialize;
use tokio::process::Command;

/// What figures depend on.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    cores: u32,
    processor: String,
    memory_bytes: u64,
    kernel: String,
    /// The processes that were ready to run on average, in the minute before the first measurement.
    load_before: f64,
    versions: Vec<(String, String)>,
}

pub(super) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A line of `/proc/meminfo`, in bytes.
fn memory_bytes(name: &str) -> Option<u64> {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

pub(super) fn memory_available_bytes() -> Option<u64> {
    memory_bytes("MemAvailable")
}

impl Machine {
    /// Looks around; `pgbouncer` is what that one says of itself.
    pub(super) async fn look(bin: &Path, pgbouncer: String) -> Machine {
        let processor = read("/proc/cpuinfo");
        let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg");
        let versions = vec![
            ("tidegate".into(), format!("{} ({})", env!("CARGO_PKG_VERSION"), profile())),
            ("PostgreSQL".into(), first_line(&bin.join("postgres")).await),
            ("pgbench".into(), first_line(&bin.join("pgbench")).await),
            ("PgBouncer".into(), pgbouncer),
            ("h2load".into(), first_line(Path::new("h2load")).await),
        ];
        Machine {
            cores: cores(),
            processor: processor.map_or_else(|| "unknown".into(), |(_, model)| model.trim().to_owned()),
            memory_bytes: memory_bytes("MemTotal").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
            versions,
        }
    }

    /// In one line.
    pub(super) fn in_words(&self) -> String {
        let memory = self.memory_bytes as f64 / f64::from(1 << 30);
        let Machine { cores, processor, kernel, load_before, .. } = self;
        format!("{cores} cores ({processor}), {memory:.1} GiB, Linux {kernel}, load {load_before:.1} before the start")
    }
}

/// How this program, and so the broker, was built.
pub(super) fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug build: its figures mean nothing" } else { "release build" }
}

/// What a program prints first for `--version`.
async fn first_line(program: &Path) -> String {
    let output = Command::new(program).arg("--version").kill_on_drop(true).output().await;
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}
