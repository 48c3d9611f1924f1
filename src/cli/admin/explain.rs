//! `tidegate admin explain`: where a call would go now, and why.

use std::time::Duration;

use clap::Args;
use tidegate_client::proto::{CallContext, Consistency, ExplainRouteRequest, ReadOptions};

use super::{Broker, Stop, duration, show};
use crate::cli::sql::Level;

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
    /// How fresh the read must be
    #[arg(long, value_name = "LEVEL", conflicts_with = "write")]
    consistency: Option<Level>,
    /// How far behind a replica may be: means --consistency bounded
    #[arg(
        long, value_name = "DURATION", value_parser = duration, conflicts_with = "write",
        required_if_eq("consistency", "bounded")
    )]
    max_staleness: Option<Duration>,
    /// How long the read may wait for a replica
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "write")]
    max_wait: Option<Duration>,
    /// The call writes; else it reads
    #[arg(long)]
    write: bool,
}

pub(super) async fn run(args: &ExplainArgs) -> Result<(), Stop> {
    let consistency = match (args.consistency, args.max_staleness) {
        (None, None) => Consistency::Unspecified,
        (None | Some(Level::Bounded), _) => Consistency::Bounded,
        (Some(Level::Session), _) => Consistency::Session,
        (Some(Level::Causal), _) => Consistency::Causal,
        (Some(Level::Strong), _) => Consistency::Strong,
        (Some(Level::Eventual), _) => Consistency::Eventual,
    };
    let options = ReadOptions {
        consistency: consistency.into(),
        max_staleness: args.max_staleness.and_then(|limit| limit.try_into().ok()),
        max_wait: args.max_wait.and_then(|limit| limit.try_into().ok()),
        max_message_bytes: 0,
    };
    let call = ExplainRouteRequest {
        context: Some(CallContext {
            database: args.database.clone(),
            session_id: args.session.clone(),
            positions: args.position.clone(),
            operation: args.operation.clone(),
            ..CallContext::default()
        }),
        options: (!args.write).then_some(options),
        write: args.write,
    };
    let answer = args.to.connect().await?.explain(call).await?;
    args.to.print(|| show::route_json(&answer), || show::route_text(&answer));
    Ok(())
}
