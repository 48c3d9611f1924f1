//! `tidegate admin`: shows and steers a running broker, through its admin service. Here: which broker, and as whom.

mod drain;
mod explain;
mod reload;
mod restore;
mod rollout;
mod settle_primary;
mod show;
mod topology;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;
use tidegate_client::{AdminClient, Error};

use super::{
    fail, say,
    sql::{broker_url, duration, error_json, print_error},
    usage,
};

/// Show and steer a running broker.
///
/// With admin.token configured, the broker wants it: from TIDEGATE_ADMIN_TOKEN or --token-file. Without one it lets
/// programs on its own machine in, if its port is bound to a loopback address.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin topology --watch
  tidegate admin explain --session user-7
  tidegate admin drain db3                          # before its maintenance
  tidegate admin reload --token-file /run/secrets/tidegate-admin

Exit codes: 0 done; 1 the broker refused, or failed; 2 the arguments are wrong; 3 no broker could be reached.")]
pub(super) struct AdminArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Topology(topology::TopologyArgs),
    Explain(explain::ExplainArgs),
    Drain(drain::DrainArgs),
    Restore(restore::RestoreArgs),
    Reload(reload::ReloadArgs),
    SettlePrimary(settle_primary::SettlePrimaryArgs),
    Rollout(rollout::RolloutArgs),
}

/// Which broker, and as whom.
#[derive(Args, Debug)]
struct Broker {
    /// The broker's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7432", value_parser = broker_url)]
    broker: String,
    /// A file with the broker's admin.token [default: the variable TIDEGATE_ADMIN_TOKEN, or none]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    timeout: Duration,
    /// Print JSON: one document, or one a line; errors as JSON too
    #[arg(long)]
    json: bool,
}

/// The host to decide on.
#[derive(Args, Debug)]
struct Host {
    /// The host's configured name
    host: String,
    /// Its cluster, if several have a host of that name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    cluster: String,
}

/// Why the command stops.
enum Stop {
    Token(PathBuf, io::Error),
    Call(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Call(error)
    }
}

impl Broker {
    async fn connect(&self) -> Result<AdminClient, Stop> {
        let token = match &self.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| Stop::Token(path.clone(), error))?),
            None => super::environment().remove("TIDEGATE_ADMIN_TOKEN").filter(|token| !token.is_empty()),
        };
        let client = AdminClient::connect(&self.broker).await?.with_timeout(self.timeout);
        Ok(match token {
            Some(token) => client.with_token(token.trim_end_matches(['\r', '\n']))?,
            None => client,
        })
    }

    /// Prints for programs or for people.
    fn print(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        say(if self.json { json().to_string() } else { text() });
    }

    fn end(&self, result: Result<(), Stop>) -> ExitCode {
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(Stop::Token(path, error)) => usage(format!("--token-file {}: {error}", path.display())),
            Err(Stop::Call(error)) => {
                let mut err = io::stderr().lock();
                let printed = match self.json {
                    true => io::Write::write_fmt(&mut err, format_args!("{}\n", error_json(&error))),
                    false => print_error(&mut err, &self.broker, &error),
                };
                drop(err);
                match printed {
                    Err(error) => fail(error),
                    Ok(()) => ExitCode::from(if error.is_unreachable() { 3 } else { 1 }),
                }
            }
        }
    }
}

/// Runs the command. The exit code is as the help says.
pub(super) async fn run(args: AdminArgs) -> ExitCode {
    match args.command {
        Command::Topology(args) => args.to.end(topology::run(&args).await),
        Command::Explain(args) => args.to.end(explain::run(&args).await),
        Command::Drain(args) => args.to.end(drain::run(&args).await),
        Command::Restore(args) => args.to.end(restore::run(&args).await),
        Command::Reload(args) => args.to.end(reload::run(&args).await),
        Command::SettlePrimary(args) => args.to.end(settle_primary::run(&args).await),
        Command::Rollout(args) => args.to.end(rollout::run(&args).await),
    }
}
