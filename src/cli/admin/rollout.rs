//! `tidegate admin rollout`: how far a database has been moved to a cluster of its own.

use clap::{ArgGroup, Args};
use serde_json::json;
use tidegate_client::proto::Rollout;

use super::{Broker, Stop};

/// Show, or set, how far a database has been moved to a cluster of its own.
///
/// What is set holds until the broker stops; what is configured holds from then on. Each broker has to be told.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("set").multiple(true),
    after_help = "\
Examples:
  tidegate admin rollout ci
  tidegate admin rollout ci --percentage 12.5
  tidegate admin rollout ci --percentage 12.5 --use-own false      # nobody, for now"
)]
pub(super) struct RolloutArgs {
    #[command(flatten)]
    pub(super) to: Broker,
    /// The database, by its configured name
    database: String,
    /// The share of sessions that moves, 0 to 100
    #[arg(long, value_name = "PERCENT", group = "set", value_parser = percentage)]
    percentage: Option<f64>,
    /// Everybody (true) or nobody (false), whatever the percentage
    #[arg(long, value_name = "BOOL", group = "set", requires = "percentage")]
    use_own: Option<bool>,
}

pub(super) async fn run(args: &RolloutArgs) -> Result<(), Stop> {
    let client = args.to.connect().await?;
    let rollout = match args.percentage {
        Some(percentage) => client.set_rollout(&args.database, args.use_own, percentage).await?,
        None => client.rollout(&args.database).await?,
    };
    args.to.print(
        || {
            json!({
                "database": rollout.database,
                "origin_cluster": rollout.origin_cluster,
                "own_cluster": rollout.own_cluster,
                "use_own": rollout.use_own,
                "reuse_primary": rollout.reuse_primary,
                "percentage": rollout.percentage,
            })
        },
        || text(&rollout),
    );
    Ok(())
}

fn text(rollout: &Rollout) -> String {
    let Rollout { database, origin_cluster, own_cluster, percentage, .. } = rollout;
    let share = match rollout.use_own {
        Some(true) => "everybody".to_owned(),
        Some(false) => "nobody".to_owned(),
        None => format!("{percentage} % of sessions"),
    };
    let reuse = if rollout.reuse_primary { "; writes stay on the origin's primary" } else { "" };
    format!("{database}: {share} moved from {origin_cluster} to {own_cluster}{reuse}")
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim().parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share));
    number.ok_or_else(|| "write a number of 0 to 100".to_owned())
}
