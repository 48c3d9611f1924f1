//! `tidegate serve`: a broker, until SIGTERM or SIGINT.

use std::{net::SocketAddr, process::ExitCode};

use clap::Args;

use super::{configuration, fail, say, stop_signal};
use crate::{
    app::App,
    config::{Config, ServeFlags},
    telemetry,
};

/// Run a broker. Settings come from the file, then TIDEGATE_* variables, then flags; the later wins.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate serve --primary postgres://app@db1/app --replica postgres://app@db2/app
  TIDEGATE_PASSWORD=… tidegate serve --config /etc/tidegate.toml
  tidegate serve --config tidegate.toml --grpc-listen 0.0.0.0:7432

SIGTERM and SIGINT drain: new calls are refused, running ones may finish within timeouts.drain_timeout.
A second one stops at once.
Exit codes: 0 stopped in order; 1 it could not start, or was stopped at once; 2 the configuration is wrong (every problem is listed).")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: ServeFlags,
}

pub(super) async fn run(args: ServeArgs) -> ExitCode {
    let config = match configuration(&args.flags) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let guard = match telemetry::init(&config.telemetry) {
        Ok(guard) => guard,
        Err(error) => return fail(error),
    };
    let code = serve(&config).await;
    // It may wait for the collector, so not on a runtime thread.
    let _ = tokio::task::spawn_blocking(move || guard.shutdown()).await;
    code
}

async fn serve(config: &Config) -> ExitCode {
    let app = match App::start(config).await {
        Ok(app) => app,
        Err(error) => return fail(error),
    };
    for cluster in &config.clusters {
        let hosts: Vec<_> = cluster.hosts.iter().map(|host| host.url.address()).collect();
        tracing::info!(cluster = %cluster.name, hosts = %hosts.join(", "), "cluster configured");
    }
    say(format!("gRPC on {}{}", app.grpc_address(), reach(app.grpc_address())));
    say(format!("HTTP on {}{} (/metrics, /healthz, /readyz)", app.http_address(), reach(app.http_address())));
    stop_signal().await;
    tracing::info!("stopping");
    app.begin_shutdown();
    tokio::select! {
        () = app.stopped() => ExitCode::SUCCESS,
        () = stop_signal() => fail("stopped at once, at the second signal"),
    }
}

/// Says from where an address can be reached: it matters that nobody is surprised.
fn reach(address: SocketAddr) -> &'static str {
    if address.ip().is_loopback() { " (this machine only)" } else { " (reachable from other machines)" }
}
