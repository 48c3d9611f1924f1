//! `report.json`: what was measured, as written down. docs/benchmarks/README.md describes it for readers.

use serde::Serialize;

use super::{arena::Measured, machine::Machine, sample::Sample, stats::Spread, targets::Target, workload::Workload};

/// The version of the document; it grows when a reader of the old one would be misled.
pub(super) const SCHEMA: u32 = 1;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum System {
    Direct,
    PgBouncer,
    Broker,
}

impl System {
    pub(super) const ALL: [System; 3] = [System::Direct, System::PgBouncer, System::Broker];

    pub(super) fn title(self) -> &'static str {
        match self {
            System::Direct => "direct",
            System::PgBouncer => "PgBouncer",
            System::Broker => "broker",
        }
    }
}

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    pub(super) machine: Machine,
    pub(super) command: String,
    pub(super) settings: Settings,
    pub(super) cells: Vec<Cell>,
    /// Direct PostgreSQL by number of connections: point reads.
    pub(super) direct_sweep: Vec<Cell>,
    pub(super) fixed_rate: Option<FixedRate>,
    pub(super) streams: Vec<Rows>,
    pub(super) python: Vec<Rows>,
    pub(super) deadline: Option<Deadline>,
    pub(super) targets: Vec<Target>,
    /// What could not be measured, and answers that were wrong.
    pub(super) problems: Vec<String>,
}

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    pub(super) rounds: u32,
    pub(super) warm_up_seconds: u32,
    pub(super) seconds: u32,
    /// Connections to a server that broker and PgBouncer may have.
    pub(super) pool: u32,
    /// Threads of the broker.
    pub(super) broker_threads: u32,
    pub(super) stream_rows: u64,
    pub(super) python_rows: u64,
}

/// One system under one workload with so many callers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    pub(super) workload: Workload,
    pub(super) callers: u32,
    pub(super) system: System,
    /// The program that called.
    pub(super) client: String,
    /// Why there is no figure.
    pub(super) not_possible: Option<String>,
    pub(super) runs: Vec<Run>,
    pub(super) per_second: Option<Spread>,
    pub(super) p50_us: Option<Spread>,
    pub(super) p99_us: Option<Spread>,
    pub(super) p999_us: Option<Spread>,
    pub(super) cpu_us_per_call: Option<Spread>,
    pub(super) client_cpu_us_per_call: Option<Spread>,
    pub(super) lag_p99_us: Option<Spread>,
    pub(super) resident_bytes_max: Option<u64>,
    pub(super) connections_max: Option<u64>,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) per_second: f64,
    pub(super) p50_us: Option<u32>,
    pub(super) p99_us: Option<u32>,
    pub(super) p999_us: Option<u32>,
    pub(super) cpu_us_per_call: Option<f64>,
    /// Of the program that called.
    pub(super) client_cpu_us_per_call: Option<f64>,
    /// How late it sent calls, at a fixed rate.
    pub(super) lag_p99_us: Option<u32>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) connections: Option<u64>,
}

impl From<&Sample> for Run {
    fn from(sample: &Sample) -> Run {
        let at = |share| sample.latencies.percentile(share);
        Run {
            per_second: sample.per_second,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            cpu_us_per_call: None,
            client_cpu_us_per_call: None,
            lag_p99_us: sample.lags.percentile(0.99),
            resident_bytes: None,
            connections: None,
        }
    }
}

impl From<&Measured> for Run {
    fn from(measured: &Measured) -> Run {
        Run {
            cpu_us_per_call: measured.cpu_us_per_call,
            client_cpu_us_per_call: measured.client_cpu_us_per_call,
            resident_bytes: measured.resident.map(|resident| resident.bytes()),
            connections: Some(measured.connections),
            ..Run::from(&measured.sample)
        }
    }
}

impl Cell {
    pub(super) fn new(workload: Workload, callers: u32, system: System, client: String) -> Cell {
        Cell {
            workload,
            callers,
            system,
            client,
            not_possible: None,
            runs: Vec::new(),
            per_second: None,
            p50_us: None,
            p99_us: None,
            p999_us: None,
            cpu_us_per_call: None,
            client_cpu_us_per_call: None,
            lag_p99_us: None,
            resident_bytes_max: None,
            connections_max: None,
        }
    }

    /// Draws the medians from the rounds.
    pub(super) fn conclude(mut self) -> Cell {
        let spread = |figure: &dyn Fn(&Run) -> Option<f64>| Spread::of(self.runs.iter().filter_map(figure));
        self.per_second = spread(&|run| Some(run.per_second));
        self.p50_us = spread(&|run| run.p50_us.map(f64::from));
        self.p99_us = spread(&|run| run.p99_us.map(f64::from));
        self.p999_us = spread(&|run| run.p999_us.map(f64::from));
        self.cpu_us_per_call = spread(&|run| run.cpu_us_per_call);
        self.client_cpu_us_per_call = spread(&|run| run.client_cpu_us_per_call);
        self.lag_p99_us = spread(&|run| run.lag_p99_us.map(f64::from));
        self.resident_bytes_max = self.runs.iter().filter_map(|run| run.resident_bytes).max();
        self.connections_max = self.runs.iter().filter_map(|run| run.connections).max();
        self
    }

    /// For the line of progress.
    pub(super) fn in_words(&self) -> String {
        let name = self.system.title();
        match (&self.per_second, &self.p99_us, &self.not_possible) {
            (Some(rate), Some(p99), _) => format!("{name} {:.0}/s (p99 {})", rate.median, micros(p99.median)),
            (_, _, Some(_)) => format!("{name} not possible"),
            _ => format!("{name} failed"),
        }
    }
}

/// A time as people read it.
pub(super) fn micros(micros: f64) -> String {
    match micros {
        few if few < 1000.0 => format!("{few:.0} µs"),
        more if more < 100_000.0 => format!("{:.2} ms", more / 1000.0),
        many => format!("{:.0} ms", many / 1000.0),
    }
}

/// Point reads at one rate for both, below what either can do.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FixedRate {
    pub(super) per_second: f64,
    pub(super) callers: u32,
    pub(super) cells: Vec<Cell>,
}

/// How fast a program takes in the rows of one result.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Rows {
    pub(super) system: &'static str,
    pub(super) rows: u64,
    pub(super) rows_per_second: Vec<f64>,
    pub(super) median: f64,
}

/// How long after their deadline calls were answered: less than 0 is before it, where the broker keeps time back for the answer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Deadline {
    pub(super) calls: u32,
    pub(super) deadline_ms: u64,
    pub(super) late_p50_us: i64,
    pub(super) late_p99_us: i64,
}

impl Report {
    pub(super) fn cell(&self, workload: Workload, callers: u32, system: System) -> Option<&Cell> {
        let is_it = |cell: &&Cell| (cell.workload, cell.callers, cell.system) == (workload, callers, system);
        self.cells.iter().find(is_it)
    }

    /// The number of direct connections that read the most, and how much that is.
    pub(super) fn direct_best(&self) -> Option<(u32, f64)> {
        let rates = self.direct_sweep.iter().filter_map(|cell| Some((cell.callers, cell.per_second?.median)));
        rates.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}
