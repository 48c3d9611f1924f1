//! `tidegate admin explain`: where a call would go now, and why.

use clap::Args;
use tidegate_client::proto::{CallContext, ExplainRouteRequest};

use super::{Broker, Stop, show};
use crate::cli::freshness::Freshness;

/// Say where a call would go now, and why; nothing runs.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate admin explain --session user-7
  tidegate admin explain --position TOKEN --consistency causal --json
  tidegate admin explain --write")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    pub(super) to: Broker,
    /// The logical database [default: the broker's]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    database: String,
    /// The call's session
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    session: String,
    /// A position token that the call carries; may be given several times
    #[arg(long, value_name = "TOKEN")]
    position: Vec<String>,
    /// The call's operation
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    operation: String,
    #[command(flatten)]
    freshness: Freshness,
    /// The call writes; else it reads
    #[arg(long)]
    write: bool,
}

pub(super) async fn run(args: &ExplainArgs) -> Result<(), Stop> {
    let options = args.freshness.options().map_err(Stop::Usage)?;
    let call = ExplainRouteRequest {
        context: Some(CallContext {
            database: args.database.clone(),
            session_id: args.session.clone(),
            positions: args.position.clone(),
            operation: args.operation.clone(),
            ..CallContext::default()
        }),
        options: (!args.write).then(|| (&options).into()),
        write: args.write,
    };
    let answer = args.to.connect().await?.explain(call).await?;
    args.to.print(|| show::route_json(&answer), || show::route_text(&answer));
    Ok(())
}
