//! `tidegate demo`: a tour that shows what the broker promises, with real calls, and checks that it shows it.

mod checks;
mod death;
mod failover;
mod report;
mod tour;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use self::{
    checks::Tally,
    report::Report,
    tour::{Tour, TourError},
};
use super::{
    fail,
    local::{Local, LocalOptions},
    say, stop_signal,
};
use crate::telemetry::{self, TelemetrySettings};

/// Start a local cluster and a broker on free ports, and show that a session always reads its own writes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate demo
  tidegate demo --checks 100000      # read back more writes
  tidegate demo --json               # one JSON document instead of the text

Exit codes: 0 every step showed what it says, no read failed, no check was violated; 1 otherwise.")]
pub(super) struct DemoArgs {
    /// How often, at least, sessions read their own writes back in the step of the checks
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    checks: u64,
    /// Print one JSON document: the steps with their receipts, the checks and their violations
    #[arg(long)]
    json: bool,
    /// A level or a filter of the broker's log
    #[arg(long, value_name = "FILTER", default_value = "error")]
    log_level: String,
}

const REPLICAS: usize = 2;

pub(super) async fn run(args: DemoArgs) -> ExitCode {
    let settings = TelemetrySettings { log_filter: args.log_level.clone(), ..TelemetrySettings::default() };
    let _guard = match telemetry::init(&settings) {
        Ok(guard) => guard,
        Err(error) => return fail(error),
    };
    let mut report = Report::new(args.json);
    report.note(&format!("Starting PostgreSQL (a primary and {REPLICAS} replicas) and a broker, on free ports …"));
    let options = LocalOptions { replicas: REPLICAS, data_dir: None, grpc_port: 0, http_port: 0 };
    let started = tokio::select! {
        started = Local::start(options) => started,
        () = stop_signal() => return fail("stopped before everything was up"),
    };
    let local = match started {
        Ok(local) => local,
        Err(error) => return fail(error),
    };
    let shown = tokio::select! {
        shown = show(&local, &mut report, args.checks) => Some(shown),
        () = stop_signal() => None,
    };
    let stopped = local.stop().await;
    let code = match shown {
        None => fail("stopped before the end of the tour"),
        Some(shown) => conclude(&report, shown),
    };
    match stopped {
        Ok(()) => code,
        Err(error) => fail(error),
    }
}

async fn show(local: &Local, report: &mut Report, checks: u64) -> Result<Tally, TourError> {
    Tour::begin(local, report).await?.run(checks).await
}

/// Says how it went; the last line (or document) of the standard output.
fn conclude(report: &Report, shown: Result<Tally, TourError>) -> ExitCode {
    let problem = match &shown {
        Err(error) => Some(format!("step {} did not show what it says: {error}", report.number())),
        Ok(tally) => tally.problem(),
    };
    let tally = shown.unwrap_or_default();
    if report.is_json() {
        let document = json!({
            "ok": problem.is_none(),
            "problem": problem,
            "checks": tally.checks(),
            "checks_on_replicas": tally.on_replicas,
            "violations": tally.violations,
            "steps": report.steps(),
        });
        say(document.to_string());
    } else if tally.checks() > 0 {
        say(format!("\nread-your-writes: {} checks, {} violations", tally.checks(), tally.violations));
    }
    problem.map_or(ExitCode::SUCCESS, fail)
}
