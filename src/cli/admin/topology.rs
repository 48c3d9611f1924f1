//! `tidegate admin topology`: what the broker knows of its hosts, once or as it changes.

use std::time::Duration;

use clap::Args;

use super::{Broker, Stop, duration, show};

/// Show the clusters and hosts as the broker knows them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin topology
  tidegate admin topology --json | jq '.clusters[].hosts[] | select(.health != \"up\")'
  tidegate admin topology --watch --interval 2s      # until Ctrl-C, or until the broker stops")]
pub(super) struct TopologyArgs {
    #[command(flatten)]
    pub(super) to: Broker,
    /// Go on, and print it again whenever it has changed
    #[arg(long)]
    watch: bool,
    /// The least time between two prints
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s", requires = "watch")]
    interval: Duration,
}

pub(super) async fn run(args: &TopologyArgs) -> Result<(), Stop> {
    let client = args.to.connect().await?;
    let print = |topology: &_| args.to.print(|| show::topology_json(topology), || show::topology_text(topology));
    if !args.watch {
        print(&client.topology().await?);
        return Ok(());
    }
    let mut stream = client.watch(Some(args.interval)).await?;
    loop {
        print(&stream.next().await?);
    }
}
