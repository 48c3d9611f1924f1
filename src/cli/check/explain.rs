//! `tidegate check --explain`: the rule that a call would meet, the side of a move that it would be on, and why. Asks no
//! host: what only positions and hosts decide is said to be so.

use clap::Args;
use serde_json::{Value, json};

use crate::{
    app,
    config::{Config, DatabaseConfig},
    model::{Asked, Consistency, Explanation, Percentage, explain},
};

/// The call to explain.
#[derive(Args, Debug)]
pub(super) struct CallArgs {
    /// Say instead what would become of a call: the rule it meets, where it goes and why
    #[arg(long, conflicts_with_all = ["init", "statement"])]
    pub(super) explain: bool,
    /// The call's database, by its configured name; may be left out if there is one only
    #[arg(long, value_name = "NAME", requires = "explain")]
    database: Option<String>,
    /// The call's operation
    #[arg(long, value_name = "LABEL", requires = "explain", default_value = "")]
    operation: String,
    /// The call's session id
    #[arg(long, value_name = "ID", requires = "explain", default_value = "")]
    session: String,
    /// The call reads (the default)
    #[arg(long, requires = "explain", conflicts_with = "write")]
    read: bool,
    /// The call writes
    #[arg(long, requires = "explain")]
    write: bool,
}

/// The explanation as text or as JSON; an error names the databases that there are.
pub(super) fn run(args: &CallArgs, config: &Config, as_json: bool) -> Result<String, String> {
    let database = find(args, config)?;
    let (rules, moving) = (app::rules(config), app::moves(config, database));
    let asked = Asked {
        database: &database.name,
        operation: &args.operation,
        session_id: &args.session,
        consistency: Consistency::default(),
        is_stated: false,
    };
    let explanation = explain(&rules, &database.cluster, moving.as_ref(), asked, args.write);
    let state = moving.map(|moving| moving.state);
    Ok(if as_json { json(&explanation, database, state).to_string() } else { text(&explanation, database, state) })
}

fn find<'a>(args: &CallArgs, config: &'a Config) -> Result<&'a DatabaseConfig, String> {
    match (&args.database, config.databases.as_slice()) {
        (None, [only]) => Ok(only),
        (Some(name), all) if all.iter().any(|database| database.name == *name) => {
            Ok(all.iter().find(|database| database.name == *name).unwrap_or(&all[0]))
        }
        (_, all) => {
            let names: Vec<_> = all.iter().map(|database| database.name.as_str()).collect();
            Err(format!("--database: name one of {}", names.join(", ")))
        }
    }
}

type State = Option<crate::model::RolloutState>;

fn text(explained: &Explanation<'_>, database: &DatabaseConfig, state: State) -> String {
    let mut lines = vec![format!("database   {} (cluster {})", database.name, database.cluster)];
    lines.push(format!("rollout    {}", rollout(explained, state)));
    if let Some(asked) = &explained.read {
        lines.push(format!("rule       {}", rule(explained)));
        lines.push(format!("asks for   {}", consistency(asked.consistency)));
    }
    lines.push(match explained.replica_cluster {
        None => format!("goes to    the primary of {}", explained.primary_cluster),
        Some(replicas) => {
            format!(
                "goes to    a replica of {replicas} that is fresh enough, or the primary of {}",
                explained.primary_cluster
            )
        }
    });
    lines.push(match explained.reason {
        Some(reason) => format!("reason     {}", reason.as_str()),
        None => "reason     by positions and hosts at the time".to_owned(),
    });
    if explained.placement.is_some() && explained.read.is_some() {
        lines.push("but        reads stay where their session has an unexpired position".to_owned());
    }
    lines.join("\n")
}

fn rollout(explained: &Explanation<'_>, state: State) -> String {
    let (Some(placed), Some(state)) = (explained.placement, state) else { return "not being moved".to_owned() };
    let decided = match (state.use_own, placed.draw) {
        (Some(forced), _) => format!("use_own = {forced}"),
        (None, None) => "no session, so it stays".to_owned(),
        (None, Some(draw)) => {
            format!("the session's draw is {}, moved are those below {}", share(draw.get()), state.percentage)
        }
    };
    let reuse = if state.reuse_primary { ", reuse_primary" } else { "" };
    let placement = placed.placement;
    format!("writes: {}, reads: {} ({decided}{reuse})", placement.primary.as_str(), placement.replica.as_str())
}

fn share(hundredths: u16) -> String {
    Percentage::from_hundredths(hundredths).unwrap_or_default().to_string()
}

fn rule(explained: &Explanation<'_>) -> String {
    let Some(rule) = explained.rule else { return "none".to_owned() };
    let named = format!("{} ({:?})", rule.name, &*rule.operation);
    match (rule.replicas, explained.rule_draw) {
        (None, _) => named,
        (Some(Percentage::NONE), _) => format!("{named}: primary only"),
        (Some(share_of), Some(draw)) => {
            format!("{named}: the session's draw is {}, replicas take those below {share_of}", share(draw.get()))
        }
        (Some(share_of), None) => format!("{named}: replicas take {share_of} of such calls, by chance"),
    }
}

fn consistency(consistency: Consistency) -> String {
    match consistency {
        Consistency::Session => "SESSION".to_owned(),
        Consistency::Causal => "CAUSAL".to_owned(),
        Consistency::Bounded { max_staleness } => format!("BOUNDED, {} s at most", max_staleness.as_secs_f64()),
        Consistency::Eventual => "EVENTUAL".to_owned(),
        Consistency::Strong => "STRONG".to_owned(),
    }
}

fn json(explained: &Explanation<'_>, database: &DatabaseConfig, state: State) -> Value {
    let placed = explained.placement.zip(state);
    json!({
        "database": database.name,
        "cluster": database.cluster,
        "rollout": placed.map(|(placed, state)| json!({
            "use_own": state.use_own,
            "reuse_primary": state.reuse_primary,
            "percentage": state.percentage.to_string(),
            "draw": placed.draw.map(|draw| share(draw.get())),
            "writes": placed.placement.primary.as_str(),
            "reads": placed.placement.replica.as_str(),
        })),
        "rule": explained.rule.map(|rule| json!({
            "name": &*rule.name,
            "operation": &*rule.operation,
            "replica_percentage": rule.replicas.map(|share| share.to_string()),
            "draw": explained.rule_draw.map(|draw| share(draw.get())),
        })),
        "consistency": explained.read.as_ref().map(|asked| consistency(asked.consistency)),
        "primary_cluster": explained.primary_cluster,
        "replica_cluster": explained.replica_cluster,
        "reason": explained.reason.map(crate::model::RouteReason::as_str),
    })
}
