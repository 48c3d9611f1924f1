//! `tidegate bench`: workloads that measure a broker, each a subcommand.

mod broker;
mod failover;
mod stream;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Measure a broker in front of a local PostgreSQL.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand, Debug)]
enum Workload {
    Stream(stream::StreamArgs),
    Failover(failover::FailoverArgs),
}

pub(super) async fn run(args: BenchArgs) -> ExitCode {
    match args.workload {
        Workload::Stream(args) => stream::run(args).await,
        Workload::Failover(args) => failover::run(args).await,
    }
}
