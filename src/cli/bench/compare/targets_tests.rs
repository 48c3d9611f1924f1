//! What the table says of a report: met, missed, or why there is no figure.

use super::{
    machine::Machine,
    others::Others,
    plan::Plan,
    report::{Cell, Deadline, FixedRate, Report, Rows, Run, System},
    sample::Sample,
    targets::{Target, judge, table},
    workload::Workload,
};

fn cell(workload: Workload, callers: u32, system: System, per_second: f64, micros: u32) -> Cell {
    let sample = Sample { per_second, latencies: vec![micros].into(), lags: vec![7].into(), calls: 1 };
    let mut cell = Cell::new(workload, callers, system, "a client".into());
    cell.runs = vec![Run { cpu_us_per_call: Some(f64::from(micros) / 10.0), ..Run::from(&sample) }];
    cell.conclude()
}

async fn report() -> Report {
    let mut refused = Cell::new(Workload::Point, 2000, System::PgBouncer, "a client".into());
    refused.not_possible = Some("too many".into());
    Report {
        schema: 1,
        machine: Machine::look("/nonexistent".as_ref(), "PgBouncer 1.18.0".into()).await,
        command: String::new(),
        settings: Plan::default_settings(),
        cells: vec![
            cell(Workload::Point, 1, System::Broker, 5000.0, 130),
            cell(Workload::Point, 1, System::PgBouncer, 5000.0, 100),
            cell(Workload::Point, 128, System::Direct, 20_000.0, 90),
            cell(Workload::Point, 128, System::PgBouncer, 18_000.0, 100),
            cell(Workload::Point, 128, System::Broker, 30_000.0, 151),
            cell(Workload::Point, 2000, System::Broker, 30_000.0, 100),
            refused,
            cell(Workload::Update, 32, System::PgBouncer, 10_000.0, 100),
            Cell::new(Workload::Update, 32, System::Broker, "a client".into()),
        ],
        direct_sweep: vec![
            cell(Workload::Point, 8, System::Direct, 25_000.0, 100),
            cell(Workload::Point, 64, System::Direct, 22_000.0, 100),
        ],
        fixed_rate: Some(FixedRate {
            per_second: 12_600.0,
            callers: 128,
            cells: vec![
                cell(Workload::Point, 128, System::PgBouncer, 12_600.0, 2000),
                cell(Workload::Point, 128, System::Broker, 12_600.0, 1000),
            ],
        }),
        streams: ["tokio-postgres", "broker"].map(|system| rows(system, 100.0)).into(),
        python: vec![rows("psycopg", 300.0), rows("broker", 200.0)],
        deadline: Some(Deadline { calls: 10, deadline_ms: 200, late_p50_us: 1000, late_p99_us: 4200 }),
        targets: Vec::new(),
        problems: Vec::new(),
    }
}

fn rows(system: &'static str, median: f64) -> Rows {
    Rows { system, rows: 100, rows_per_second: vec![median], median }
}

fn others() -> Others {
    Others { route_ns: Ok(43.6), slots_mib: Err("not run".into()), session_kib: Ok(25.0) }
}

fn find<'a>(targets: &'a [Target], what: &str) -> &'a Target {
    targets.iter().find(|row| row.what.contains(what)).unwrap_or_else(|| panic!("no row {what}"))
}

#[tokio::test]
async fn each_row_compares_what_it_names() {
    let targets = judge(&report().await, &others());
    let of = |what| (find(&targets, what).shown.as_str(), find(&targets, what).met);
    assert_eq!(targets.len(), 13);
    assert_eq!(of("128 callers, against PgBouncer"), ("1.67", Some(false)));
    assert_eq!(of("against 128 direct"), ("1.50", Some(true)));
    assert!(find(&targets, "against 128 direct").note.contains("8 connections): 25000/s, ratio 1.20"));
    assert_eq!(of("one caller's median"), ("1.30", Some(true)));
    assert_eq!(of("p99 at 70 %"), ("0.50", Some(true)));
    assert!(find(&targets, "p99 at 70 %").note.ends_with("at 12600/s; sent late by 7 µs and 7 µs (p99)"));
    assert_eq!(of("DEADLINE_EXCEEDED"), ("4.2 ms", Some(true)));
    assert_eq!(of("streaming rows"), ("1.00", Some(true)));
    assert_eq!(of("CPU a point read"), ("1.51", Some(false)));
    assert_eq!(of("route decision"), ("44 ns", Some(true)));
    assert_eq!(of("Python stub"), ("0.67", Some(false)));
    assert_eq!(of("idle Session"), ("25 KiB", Some(false)));
}

#[tokio::test]
async fn what_has_no_figure_says_why_and_is_neither_met_nor_missed() {
    let targets = judge(&report().await, &others());
    let of = |what| (find(&targets, what).met, find(&targets, what).note.as_str());
    let not_possible = "not possible: read of one row with 2000 callers, PgBouncer: too many";
    assert_eq!(of("2,000 callers"), (None, not_possible));
    assert_eq!(of("single UPDATE"), (None, "failed: single UPDATE with 32 callers, broker"));
    assert_eq!(of("slot table"), (None, "not run"));
    let table = table(&targets);
    let line = |what: &str| table.lines().find(|line| line.starts_with(what)).expect("a line").to_owned();
    assert!(line("point reads, 128 callers, against PgBouncer").contains("≥ 1.8"), "{table}");
    assert!(line("point reads, 128 callers, against PgBouncer").contains("1.67  NOT MET  30000/s"), "{table}");
    assert!(line("slot table").contains("not measured  -        not run"), "{table}");
}

#[tokio::test]
async fn calls_that_are_answered_before_their_deadline_are_not_late() {
    let mut report = report().await;
    report.deadline = Some(Deadline { calls: 10, deadline_ms: 200, late_p50_us: -18_000, late_p99_us: -14_900 });
    let targets = judge(&report, &others());
    let row = find(&targets, "DEADLINE_EXCEEDED");
    assert_eq!((row.shown.as_str(), row.met), ("-14.9 ms", Some(true)));
    assert!(row.note.starts_with("10 calls of 200 ms, answered before it"), "{}", row.note);
}
