//! The command line: one file a subcommand.

mod admin;
mod bench;
mod check;
mod demo;
mod dev;
mod freshness;
mod local;
mod receipt;
mod serve;
mod sql;
mod table;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    future::Future,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::config::{self, Config, Problems, ServeFlags};

/// The exit code for a command line or a configuration that is wrong.
const USAGE: u8 = 2;

/// A gRPC connection broker for PostgreSQL that always lets a caller see its own writes.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(serve::ServeArgs),
    Dev(dev::DevArgs),
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    Sql(sql::SqlArgs),
    Admin(admin::AdminArgs),
    Bench(bench::BenchArgs),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(args) => serve::run(args),
            Command::Dev(args) => on_threads(None, dev::run(args)),
            Command::Demo(args) => on_threads(None, demo::run(args)),
            Command::Check(args) => on_threads(None, check::run(args)),
            Command::Sql(args) => on_threads(None, sql::run(args)),
            Command::Admin(args) => on_threads(None, admin::run(args)),
            Command::Bench(args) => on_threads(None, bench::run(args)),
        }
    }
}

/// Runs a command to its end, with so many threads for its tasks; None: one for each core.
fn on_threads(threads: Option<usize>, command: impl Future<Output = ExitCode>) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => fail(format!("the runtime did not start: {error}")),
    }
}

/// Prints a line for people and programs that read standard output; a closed pipe is not an error.
fn say(line: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    // Whoever closed the pipe wants to hear no more.
    let _ = writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush());
}

/// Prints what went wrong; the exit code 1 says that something did.
fn fail(message: impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "tidegate: {message}");
    ExitCode::FAILURE
}

/// Prints what is wrong with how the program was called.
fn usage(message: impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "tidegate: {message}");
    ExitCode::from(USAGE)
}

fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// The configuration of the file, the environment and the flags; or all its problems, printed, and the exit code.
fn configuration(flags: &ServeFlags) -> Result<Config, ExitCode> {
    config::load(flags, &environment()).map_err(|problems| wrong(&problems))
}

/// Prints what is wrong with the configuration.
fn wrong(problems: &Problems) -> ExitCode {
    usage(format!("the configuration is wrong:\n{problems}"))
}

/// Resolves at the first SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
