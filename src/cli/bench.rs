//! `tidegate bench`: workloads that measure a broker, each a subcommand.

mod broker;
mod compare;
mod failover;
mod fairness;
mod process;
mod sessions;
mod stream;

use std::{fmt::Display, process::ExitCode};

use clap::{Args, Subcommand};

use super::{fail, say, stop_signal};

/// Measure a broker in front of a local PostgreSQL.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand, Debug)]
enum Workload {
    Compare(Box<compare::CompareArgs>),
    Stream(stream::StreamArgs),
    Failover(failover::FailoverArgs),
    Sessions(sessions::SessionsArgs),
    Fairness(fairness::FairnessArgs),
}

pub(super) async fn run(args: BenchArgs) -> ExitCode {
    match args.workload {
        Workload::Compare(args) => compare::run(*args).await,
        Workload::Stream(args) => stream::run(args).await,
        Workload::Failover(args) => failover::run(args).await,
        Workload::Sessions(args) => sessions::run(args).await,
        Workload::Fairness(args) => fairness::run(args).await,
    }
}

/// Measures until the end, or until a signal, and tells what came of it. What was started is stopped by being dropped.
async fn conclude<M, E: Display>(
    measure: impl Future<Output = Result<M, E>>,
    tell: impl FnOnce(M) -> ExitCode,
) -> ExitCode {
    let measured = tokio::select! {
        measured = measure => measured,
        () = stop_signal() => return fail("stopped before the end"),
    };
    match measured {
        Ok(measured) => tell(measured),
        Err(error) => fail(error),
    }
}

/// Says how it goes, to people.
fn note(json: bool, line: String) {
    if !json {
        say(line);
    }
}
