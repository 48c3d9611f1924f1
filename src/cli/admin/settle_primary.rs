//! `tidegate admin settle-primary`: decides which of several hosts is the primary.

use clap::Args;

use super::{Broker, Host, Stop, show};

/// Decide which of several hosts that claim to be the primary on one timeline is it.
///
/// What was written on the others is left behind. Each broker has to be told, and forgets it when it stops: stop the wrong
/// servers before.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin topology                     # says who claims to be the primary
  tidegate admin settle-primary db2")]
pub(super) struct SettlePrimaryArgs {
    #[command(flatten)]
    pub(super) to: Broker,
    #[command(flatten)]
    host: Host,
}

pub(super) async fn run(args: &SettlePrimaryArgs) -> Result<(), Stop> {
    let cluster = args.to.connect().await?.settle_primary(&args.host.cluster, &args.host.host).await?;
    args.to.print(
        || show::cluster_json(&cluster),
        || format!("{} is the primary of cluster {} for this broker", args.host.host, cluster.name),
    );
    Ok(())
}
