//! `tidegate admin reload`: has the broker read its configuration anew.

use clap::Args;
use serde_json::json;

use super::{Broker, Stop};

/// Have the broker read its configuration anew, as SIGHUP does, and say what was changed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin reload
  tidegate admin reload --json

What is wrong, or takes a restart, changes nothing: every problem is listed, and the exit code is 1.")]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    pub(super) to: Broker,
}

pub(super) async fn run(args: &ReloadArgs) -> Result<(), Stop> {
    let changes = args.to.connect().await?.reload().await?;
    let as_json = changes.iter().map(|change| json!({ "key": change.key, "what": change.what })).collect::<Vec<_>>();
    let lines: Vec<_> = changes.iter().map(|change| format!("{}: {}", change.key, change.what)).collect();
    args.to.print(
        || json!({ "changes": as_json }),
        || if lines.is_empty() { "nothing has changed".to_owned() } else { lines.join("\n") },
    );
    Ok(())
}
