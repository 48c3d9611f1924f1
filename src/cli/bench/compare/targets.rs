//! The targets: each with what was measured of it, and whether it is met. Pure, but for the results of other programs
//! that [`others`](super::others) has read.

use serde::Serialize;

use super::{
    others::Others,
    plan::FIXED_RATE_CALLERS,
    report::{Cell, Report, Rows, System, micros},
    workload::Workload,
};

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Target {
    pub(super) what: &'static str,
    /// As people read it, such as `≥ 1.8`.
    pub(super) target: &'static str,
    /// None: not measured; `note` says why.
    pub(super) measured: Option<f64>,
    /// As people read it.
    pub(super) shown: String,
    pub(super) met: Option<bool>,
    pub(super) note: String,
}

/// What is asked of a figure.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
        }
    }
}

/// A figure and how it is shown and explained; or why there is none.
type Figure = Result<(f64, String, String), String>;

fn row(what: &'static str, target: &'static str, bound: Bound, figure: Figure) -> Target {
    match figure {
        Ok((figure, shown, note)) => {
            Target { what, target, measured: Some(figure), shown, met: Some(bound.is_met(figure)), note }
        }
        Err(note) => Target { what, target, measured: None, shown: "not measured".into(), met: None, note },
    }
}

/// All rows, in the order in which they are reported.
pub(super) fn judge(report: &Report, others: &Others) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    let point = |callers, against| rates(report, Workload::Point, callers, against);
    let with = |name: &str, figure: &Result<f64, String>, unit: &str| -> Figure {
        figure.clone().map(|figure| (figure, format!("{figure:.0} {unit}"), name.to_owned()))
    };
    vec![
        row("point reads, 128 callers, against PgBouncer", "≥ 1.8", AtLeast(1.8), point(128, System::PgBouncer)),
        row(
            "point reads, 128 callers, against 128 direct connections",
            "≥ 1.4",
            AtLeast(1.4),
            point(128, System::Direct),
        ),
        row("point reads, 2,000 callers, against PgBouncer", "≥ 2", AtLeast(2.0), point(2000, System::PgBouncer)),
        row("one caller's median latency, against PgBouncer's", "≤ 1.3", AtMost(1.3), latency(report)),
        row("p99 at 70 % of the lower peak, 128 callers, against PgBouncer", "≤ 1", AtMost(1.0), fixed_rate(report)),
        row("p99 of DEADLINE_EXCEEDED after the deadline", "≤ 100 ms", AtMost(100.0), deadline(report)),
        row(
            "single UPDATE with its position, 32 callers, against PgBouncer",
            "≥ 0.9",
            AtLeast(0.9),
            rates(report, Workload::Update, 32, System::PgBouncer),
        ),
        row(
            "streaming rows, against a plain tokio-postgres loop",
            "≥ 0.85",
            AtLeast(0.85),
            rows(&report.streams, "broker", "tokio-postgres"),
        ),
        row("broker's CPU a point read, 128 callers, against PgBouncer's", "≤ 1.5", AtMost(1.5), processor(report)),
        row(
            "route decision with 16 replicas",
            "≤ 200 ns",
            AtMost(200.0),
            with("micro-benchmark", &others.route_ns, "ns"),
        ),
        row(
            "slot table, 10 million sessions",
            "16 MiB, no growth",
            AtMost(16.0),
            with("micro-benchmark", &others.slots_mib, "MiB"),
        ),
        row(
            "Python stub, rows streamed by the broker, against psycopg",
            "≥ 1",
            AtLeast(1.0),
            rows(&report.python, "broker", "psycopg"),
        ),
        row(
            "idle Session stream, no PostgreSQL connection",
            "≤ 20 KiB",
            AtMost(20.0),
            with("tidegate bench sessions", &others.session_kib, "KiB"),
        ),
    ]
}

fn ratio(ours: f64, theirs: f64, note: String) -> Figure {
    if theirs <= 0.0 {
        return Err("the other's figure is 0".into());
    }
    Ok((ours / theirs, format!("{:.2}", ours / theirs), note))
}

fn cell(report: &Report, workload: Workload, callers: u32, system: System) -> Result<&Cell, String> {
    let asked = format!("{} with {callers} callers, {}", workload.title(), system.title());
    let cell = report.cell(workload, callers, system).ok_or_else(|| format!("not asked for: {asked}"))?;
    if let Some(why) = &cell.not_possible {
        return Err(format!("not possible: {asked}: {why}"));
    }
    if cell.runs.is_empty() { Err(format!("failed: {asked}")) } else { Ok(cell) }
}

fn rates(report: &Report, workload: Workload, callers: u32, against: System) -> Figure {
    let rate = |system| {
        let rate = cell(report, workload, callers, system)?.per_second;
        rate.map(|rate| rate.median).ok_or_else(|| "no rate".to_owned())
    };
    let (ours, theirs) = (rate(System::Broker)?, rate(against)?);
    let mut note = format!("{ours:.0}/s, {} {theirs:.0}/s", against.title());
    if let (System::Direct, Some((connections, best))) = (against, report.direct_best()) {
        note += &format!("; direct at its best ({connections} connections): {best:.0}/s, ratio {:.2}", ours / best);
    }
    ratio(ours, theirs, note)
}

fn latency(report: &Report) -> Figure {
    let median = |system| {
        let p50 = cell(report, Workload::Point, 1, system)?.p50_us;
        p50.map(|p50| p50.median).ok_or_else(|| "no latency".to_owned())
    };
    let (ours, theirs) = (median(System::Broker)?, median(System::PgBouncer)?);
    ratio(ours, theirs, format!("{}, PgBouncer {}", micros(ours), micros(theirs)))
}

fn processor(report: &Report) -> Figure {
    let cost = |system| {
        let cost = cell(report, Workload::Point, 128, system)?.cpu_us_per_call;
        cost.map(|cost| cost.median).ok_or_else(|| "no processor time".to_owned())
    };
    let (ours, theirs) = (cost(System::Broker)?, cost(System::PgBouncer)?);
    ratio(ours, theirs, format!("{ours:.1} µs, PgBouncer {theirs:.1} µs"))
}

fn fixed_rate(report: &Report) -> Figure {
    let fixed = report.fixed_rate.as_ref().filter(|fixed| fixed.callers == FIXED_RATE_CALLERS);
    let fixed = fixed.ok_or("the peaks at 128 callers were not measured")?;
    let p99 = |system| {
        let cell = fixed.cells.iter().find(|cell| cell.system == system);
        cell.and_then(|cell| cell.p99_us).map(|p99| p99.median).ok_or_else(|| "failed".to_owned())
    };
    let (ours, theirs) = (p99(System::Broker)?, p99(System::PgBouncer)?);
    let late = |system| {
        let cell = fixed.cells.iter().find(|cell| cell.system == system);
        cell.and_then(|cell| cell.lag_p99_us).map_or_else(|| "?".into(), |lag| micros(lag.median))
    };
    let sent = format!("sent late by {} and {} (p99)", late(System::Broker), late(System::PgBouncer));
    ratio(ours, theirs, format!("{}, PgBouncer {} at {:.0}/s; {sent}", micros(ours), micros(theirs), fixed.per_second))
}

fn deadline(report: &Report) -> Figure {
    let deadline = report.deadline.as_ref().ok_or("not asked for, or failed")?;
    let late_ms = deadline.late_p99_us as f64 / 1000.0;
    let early = if late_ms < 0.0 { ", answered before it (the broker keeps a tenth back)" } else { "" };
    let note = format!("{} calls of {} ms{early}", deadline.calls, deadline.deadline_ms);
    Ok((late_ms, format!("{late_ms:.1} ms"), note))
}

fn rows(measured: &[Rows], ours: &str, theirs: &str) -> Figure {
    let median = |name: &str| {
        let found = measured.iter().find(|rows| rows.system == name);
        found.map(|rows| rows.median).ok_or_else(|| "not asked for, or failed".to_owned())
    };
    let (mine, other) = (median(ours)?, median(theirs)?);
    ratio(mine, other, format!("{mine:.0} rows/s, {theirs} {other:.0} rows/s"))
}

/// The table at the end.
pub(super) fn table(targets: &[Target]) -> String {
    let width = |text: &dyn Fn(&Target) -> &str| targets.iter().map(|row| text(row).chars().count()).max().unwrap_or(0);
    let (what, target, shown) = (width(&|row| row.what), width(&|row| row.target), width(&|row| &row.shown));
    let line = |row: &Target| {
        let verdict = match row.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "-",
        };
        format!("{:<what$}  {:<target$}  {:>shown$}  {verdict:<7}  {}", row.what, row.target, row.shown, row.note)
    };
    targets.iter().map(|row| line(row).trim_end().to_owned() + "\n").collect()
}
