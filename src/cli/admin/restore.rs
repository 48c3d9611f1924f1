//! `tidegate admin restore`: lets a drained host take reads again.

use clap::Args;

use super::{Broker, Host, Stop, show};

/// Let a drained host take reads again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin restore db3
  tidegate admin restore db3 --cluster main")]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub(super) to: Broker,
    #[command(flatten)]
    host: Host,
}

pub(super) async fn run(args: &RestoreArgs) -> Result<(), Stop> {
    let host = args.to.connect().await?.restore(&args.host.cluster, &args.host.host).await?;
    args.to.print(|| show::host_json(&host), || format!("{} is restored; it is {}", host.name, show::health(&host)));
    Ok(())
}
