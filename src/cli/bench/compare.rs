//! `tidegate bench compare`: direct PostgreSQL, PgBouncer and a broker side by side, in interleaved rounds, on a cluster that
//! it starts; a table of targets, `report.json` and charts. What a comparison is fair by: docs/decisions/0045.

mod arena;
mod broker_counts;
mod caller;
mod h2load;
mod load;
mod machine;
mod others;
mod pgbench;
mod plan;
mod report;
mod rounds;
mod rows;
mod sample;
mod scratch;
mod stats;
mod targets;
#[cfg(test)]
mod targets_tests;
mod wire;
mod workload;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use clap::Args;

use self::{
    arena::{Arena, ArenaError},
    machine::Machine,
    others::Others,
    plan::Plan,
    report::{Report, SCHEMA},
    rounds::Rounds,
    workload::Workload,
};
use super::{conclude, note};
use crate::cli::{fail, say};

/// Compare a broker with direct PostgreSQL and with PgBouncer.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts a PostgreSQL primary with two replicas, PgBouncer in transaction mode before all three and, as a process of its
own, a broker, on free ports. Measures them in interleaved rounds, each with the same SQL, callers, servers and pool size:
the first two by pgbench, the broker by h2load and by a load generator of its own; then long results, deadlines, a fixed rate.

Examples:
  tidegate bench compare --quick             # a few minutes instead of most of an hour
  tidegate bench compare --workloads point,update --callers 32,128 --out /tmp/report
  tidegate bench compare --json

Needs Linux, h2load, pgbench, PgBouncer, and Python's environment (scripts/setup bench); run it from the repository's
root, as a release build, on a machine that does nothing else: make bench.
Exit codes: 0 all that was asked for was measured, whether targets are met or not; 1 something could not be measured,
or an answer was wrong; 2 the arguments are wrong.")]
pub(super) struct CompareArgs {
    /// Fewer rounds, shorter ones, and more than one number of callers for point reads only
    #[arg(long)]
    quick: bool,
    /// How many rounds [default: 5; quick: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each run is measured, in seconds [default: 3; quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// What does not count before that, in seconds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=60))]
    warm_up: u32,
    /// Which workloads: point, ten-rows, thousand-rows, update, write-then-read, mixed [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = Workload::parse)]
    workloads: Vec<Workload>,
    /// How many callers: a list, for every workload [default: 1,8,32,128,512,2000]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = plan::callers)]
    callers: Vec<u32>,
    /// How many rows the long result has [default: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    stream_rows: Option<u64>,
    /// How many idle Session streams, whose memory is measured [default: 10000; quick: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    idle_sessions: Option<u32>,
    /// How many threads the broker has [default: half of the cores, but one at least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Neither measure Python's clients nor draw charts
    #[arg(long)]
    no_python: bool,
    /// Where report.json and the charts are written
    #[arg(long, value_name = "FOLDER", default_value = "docs/benchmarks")]
    out: PathBuf,
    /// Print the report as JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error("missing: {0}; `scripts/setup bench`, from the repository's root, installs it")]
    Missing(String),
    #[error(transparent)]
    Arena(#[from] ArenaError),
    #[error("writing the report to {folder}: {error}")]
    Write { folder: String, error: io::Error },
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("drawing charts: {0}")]
    Charts(rows::RowsError),
}

pub(super) async fn run(args: CompareArgs) -> ExitCode {
    conclude(measure(&args), |report| tell(&args, &report)).await
}

async fn measure(args: &CompareArgs) -> Result<Report, CompareError> {
    look_for_programs(args)?;
    let plan = Plan::new(args, machine::cores());
    let note = |line: String| note(args.json, line);
    note(format!("About {} min. Starting PostgreSQL with two replicas, PgBouncer and a broker …", plan.minutes()));
    let arena =
        Arena::start(plan.settings.stream_rows.max(plan.settings.python_rows), plan.settings.broker_threads).await?;
    let machine =
        Machine::look(arena.cluster.installation().bin(), arena.bouncer.version().await.map_err(ArenaError::from)?)
            .await;
    note(machine.in_words());
    if cfg!(debug_assertions) {
        note(machine::profile().into());
    }
    let mut report = Report {
        schema: SCHEMA,
        machine,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        settings: plan.settings.clone(),
        cells: Vec::new(),
        direct_sweep: Vec::new(),
        fixed_rate: None,
        streams: Vec::new(),
        python: Vec::new(),
        deadline: None,
        targets: Vec::new(),
        problems: Vec::new(),
    };
    let arena = Rounds { arena, plan: &plan, report: &mut report, note: &note }.all().await;
    let others = Others::measure(plan.idle_sessions, &note).await;
    report.targets = targets::judge(&report, &others);
    write(&args.out, &report)?;
    if plan.python {
        rows::draw(&args.out).await.map_err(CompareError::Charts)?;
    }
    arena.stop().await?;
    Ok(report)
}

/// All that is missing at once, before minutes have gone by.
fn look_for_programs(args: &CompareArgs) -> Result<(), CompareError> {
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let mut missing = Vec::new();
    if !runs("h2load", &["--version"]) {
        missing.push("h2load");
    }
    if !args.no_python && !runs(rows::PYTHON_BIN, &["-c", "import grpc, psycopg, matplotlib"]) {
        missing.push("Python's environment in target/bench-venv (or say --no-python)");
    }
    if missing.is_empty() { Ok(()) } else { Err(CompareError::Missing(missing.join(", "))) }
}

fn write(folder: &Path, report: &Report) -> Result<(), CompareError> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(folder.join("report.json"), json));
    written.map_err(|error| CompareError::Write { folder: folder.display().to_string(), error })
}

fn tell(args: &CompareArgs, report: &Report) -> ExitCode {
    if args.json {
        match serde_json::to_string(report) {
            Ok(json) => say(json),
            Err(error) => return fail(error),
        }
    } else {
        say(format!("\n{}", targets::table(&report.targets)));
        say(format!("{}\nWritten to {}.", report.machine.in_words(), args.out.display()));
    }
    match report.problems.as_slice() {
        [] => ExitCode::SUCCESS,
        problems => fail(format!("not all was measured, or an answer was wrong:\n  {}", problems.join("\n  "))),
    }
}
