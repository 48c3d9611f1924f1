//! `tidegate serve`: a broker, until SIGTERM or SIGINT.

use std::{convert::Infallible, net::SocketAddr, process::ExitCode, sync::Arc};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{environment, fail, on_threads, say, stop_signal, wrong};
use crate::{
    app::{App, Reloader},
    config::{Config, Files, ServeFlags, Source},
    telemetry::{self, LogFilter},
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
SIGHUP reads the configuration anew (with reload.watch on, so does a change of its files), without dropping a call;
what is wrong, or takes a restart, changes nothing and is logged. Flags and variables stay as they were at the start.
Exit codes: 0 stopped in order; 1 it could not start, or was stopped at once; 2 the configuration is wrong (every problem is listed).")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: ServeFlags,
}

pub(super) fn run(args: ServeArgs) -> ExitCode {
    let source = Source::new(args.flags, environment());
    match source.load() {
        (Ok(config), files) => on_threads(config.runtime.threads, run_configured(&config, source, files)),
        (Err(problems), _) => wrong(&problems),
    }
}

async fn run_configured(config: &Config, source: Source, files: Files) -> ExitCode {
    let guard = match telemetry::init(&config.telemetry) {
        Ok(guard) => guard,
        Err(error) => return fail(error),
    };
    let code = serve(config, source, files, guard.filter()).await;
    // It may wait for the collector, so not on a runtime thread.
    let _ = tokio::task::spawn_blocking(move || guard.shutdown()).await;
    code
}

async fn serve(config: &Config, source: Source, files: Files, logs: LogFilter) -> ExitCode {
    // From now on a SIGHUP is a reload, not the end: also one that comes while hosts are still being found.
    let Ok(hangups) = signal(SignalKind::hangup()) else { return fail("SIGHUP cannot be listened for") };
    let app = match App::start(config).await {
        Ok(app) => app,
        Err(error) => return fail(error),
    };
    let reloader = Arc::new(Reloader::new(&app, source, files, Some(logs)));
    reloader.serve_operators(&app);
    for cluster in &config.clusters {
        let hosts: Vec<_> = cluster.hosts.iter().map(|host| host.url.address()).collect();
        tracing::info!(cluster = %cluster.name, hosts = %hosts.join(", "), "cluster configured");
    }
    say(format!("gRPC on {}{}", app.grpc_address(), reach(app.grpc_address())));
    say(format!("HTTP on {}{} (/metrics, /healthz, /readyz)", app.http_address(), reach(app.http_address())));
    tokio::select! {
        () = stop_signal() => {}
        never = reload_at(hangups, &reloader) => match never {},
        () = reloader.watch() => {}
    }
    tracing::info!("stopping");
    app.begin_shutdown();
    tokio::select! {
        () = app.stopped() => ExitCode::SUCCESS,
        () = stop_signal() => fail("stopped at once, at the second signal"),
    }
}

/// Reloads at each SIGHUP. What came of it is logged there.
async fn reload_at(mut hangups: Signal, reloader: &Reloader) -> Infallible {
    loop {
        if hangups.recv().await.is_none() {
            return std::future::pending().await;
        }
        let _ = reloader.reload().await;
    }
}

/// Says from where an address can be reached: it matters that nobody is surprised.
fn reach(address: SocketAddr) -> &'static str {
    if address.ip().is_loopback() { " (this machine only)" } else { " (reachable from other machines)" }
}
