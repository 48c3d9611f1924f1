//! `tidegate admin drain`: keeps new reads from a replica.

use clap::Args;

use super::{Broker, Host, Stop, show};

/// Keep new reads from a replica; what runs there goes on to its end.
///
/// It lasts until the host is restored, leaves the configuration, or the broker stops. Each broker has to be told.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin drain db3
  tidegate admin drain db3 --json | jq '[.pools[].in_use] | add'      # what is still in use there

The primary cannot be drained: switch over first.")]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) to: Broker,
    #[command(flatten)]
    host: Host,
}

pub(super) async fn run(args: &DrainArgs) -> Result<(), Stop> {
    let host = args.to.connect().await?.drain(&args.host.cluster, &args.host.host).await?;
    args.to.print(
        || show::host_json(&host),
        || format!("{} is drained; {} connections are in use", host.name, show::in_use(&host)),
    );
    Ok(())
}
