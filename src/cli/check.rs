//! `tidegate check`: validates a configuration, asks every host what it is, and says what is wrong.

mod examine;
mod explain;
mod following;
mod init;
mod print;
mod statement;
mod verdict;

use std::process::ExitCode;

use clap::Args;
use futures_util::future::join_all;

use self::verdict::ClusterVerdict;
use super::{configuration, fail, say, usage};
use crate::{
    app,
    config::{Config, ServeFlags},
};

/// Validate a configuration, connect to every host, and print what each one is.
///
/// Takes the same flags, file and TIDEGATE_* variables as `tidegate serve`; listens on nothing.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate check --primary postgres://app@db1/app --replica postgres://app@db2/app
  TIDEGATE_PASSWORD=… tidegate check --config /etc/tidegate.toml
  tidegate check --config tidegate.toml --json
  tidegate check --config tidegate.toml --statement 'SELECT n FROM orders WHERE id = $1'
  tidegate check --config tidegate.toml --explain --database ci --operation 'GET /v2/tags' --session u7
  tidegate check --init --config tidegate.toml     # once, for writes with idempotency keys

Exit codes: 0 all is well (there may be warnings), or the statement is clean; 1 a host is unreachable or wrong, the table
is neither there nor could be made, or the statement is not clean; 2 the configuration is wrong.")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    flags: ServeFlags,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Say instead whether this statement is clean (proved to leave nothing behind on a connection), and if not, why
    #[arg(long, value_name = "SQL", conflicts_with = "init")]
    statement: Option<String>,
    #[command(flatten)]
    call: explain::CallArgs,
    /// Make the table of idempotency keys in every database, if it is not there
    #[arg(long)]
    init: bool,
}

pub(super) async fn run(args: CheckArgs) -> ExitCode {
    let config = match configuration(&args.flags) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if args.call.explain {
        return match explain::run(&args.call, &config, args.json) {
            Ok(explanation) => {
                say(explanation);
                ExitCode::SUCCESS
            }
            Err(message) => usage(message),
        };
    }
    if let Some(statement) = &args.statement {
        let verdicts = statement::judge(statement, &config).await;
        say(if args.json { statement::json(&verdicts) } else { statement::text(&verdicts) });
        let clean = verdicts.iter().all(statement::StatementVerdict::is_clean);
        return if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (config, failed) = app::discover(config).await;
    for (cluster, error) in &failed {
        fail(format!("cluster {cluster}: discover: {error}"));
    }
    let clusters = examine(&config).await;
    let tables = if args.init { init::all(&config, &clusters).await } else { Vec::new() };
    if args.json {
        say(print::json(&clusters, &tables));
    } else {
        if args.init {
            say(init::text(&tables));
        }
        say(print::text(&clusters));
    }
    let well = failed.is_empty()
        && clusters.iter().all(ClusterVerdict::is_well)
        && tables.iter().all(init::Initialised::is_well);
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All hosts of all clusters at once.
async fn examine(config: &Config) -> Vec<ClusterVerdict> {
    let clusters = config.clusters.iter().map(|cluster| async {
        let hosts = join_all(cluster.hosts.iter().map(|host| examine::host(host, config))).await;
        verdict::cluster(&cluster.name, hosts, config.pool.connections_per_host)
    });
    let mut clusters = join_all(clusters).await;
    following::judge(config, &mut clusters);
    clusters
}
