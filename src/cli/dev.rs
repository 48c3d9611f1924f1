//! `tidegate dev`: a local primary, replicas and a broker, in the foreground.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    fail,
    local::{Local, LocalOptions},
    say, stop_signal,
};
use crate::{
    dev::Server,
    telemetry::{self, TelemetrySettings},
};

/// Run a local primary, two replicas and a broker in front of them, until Ctrl-C.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate dev
  tidegate dev --replicas 3 --data-dir ./cluster     # the data is there again the next time
  tidegate dev --grpc-port 0                         # any free port; it is printed

Calls that run when it is stopped may finish within 3 s.
Exit codes: 0 stopped by a signal; 1 it could not start (PostgreSQL is missing, a port is taken, …); 2 the arguments
are wrong.")]
pub(super) struct DevArgs {
    /// How many streaming replicas
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=16))]
    replicas: u16,
    /// Keep the data in this folder (otherwise in a temporary one, removed at the end)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The gRPC port on 127.0.0.1; 0: any free one
    #[arg(long, value_name = "PORT", default_value_t = 7432)]
    grpc_port: u16,
    /// The HTTP port on 127.0.0.1 (metrics, health); 0: any free one
    #[arg(long, value_name = "PORT", default_value_t = 7433)]
    http_port: u16,
    /// A level or a filter of the broker's log
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log_level: String,
}

pub(super) async fn run(args: DevArgs) -> ExitCode {
    let settings = TelemetrySettings { log_filter: args.log_level, ..TelemetrySettings::default() };
    let _guard = match telemetry::init(&settings) {
        Ok(guard) => guard,
        Err(error) => return fail(error),
    };
    say(format!("Starting PostgreSQL: a primary and {} replicas …", args.replicas));
    let options = LocalOptions {
        replicas: usize::from(args.replicas),
        data_dir: args.data_dir,
        grpc_port: args.grpc_port,
        http_port: args.http_port,
    };
    let started = tokio::select! {
        started = Local::start(options) => started,
        () = stop_signal() => {
            say("Stopped before everything was up");
            return ExitCode::SUCCESS;
        }
    };
    let local = match started {
        Ok(local) => local,
        Err(error) => return fail(error),
    };
    print_addresses(&local);
    stop_signal().await;
    say("Stopping …");
    match local.stop().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn print_addresses(local: &Local) {
    let (grpc, http) = (local.app.grpc_address(), local.app.http_address());
    let line = |role: &str, server: &Server| say(format!("  {role:8} {:10} {}", server.name(), server.url()));
    line("primary", local.cluster.primary());
    local.cluster.replicas().iter().for_each(|server| line("replica", server));
    // As a path that holds in any folder: the line is to be pasted elsewhere.
    let program = std::env::current_exe().map_or_else(|_| "tidegate".to_owned(), |path| path.display().to_string());
    say(format!(
        "  broker   gRPC       http://{grpc}\n  \
           metrics  HTTP       http://{http}/metrics\n\n\
         Try, from another terminal:\n\n  \
           {program} sql --broker http://{grpc} 'SELECT now(), pg_is_in_recovery() AS on_replica'\n\n\
         Ctrl-C stops everything."
    ));
}
