//! `[[rule]]`: what a read's operation says of where it goes.

use std::time::Duration;

use toml::{Table, Value};

use super::{
    DatabaseConfig,
    clusters::{refuse_rest, required_text},
    read::Reader,
    rollout::percentage,
    units::parse_duration,
};

/// One rule; of several that match a read, the first counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleConfig {
    /// What metrics and explanations call it; unique. `rule[0]` and so on unless it was named.
    pub name: String,
    /// The operations that it is for: `*` stands for any text.
    pub operation: String,
    /// The only database that it is for; it exists. None: all.
    pub database: Option<String>,
    /// The share of reads that replicas may take, in hundredths of a percent, at most 10,000; 0: `primary_only`. None: all.
    pub replica_hundredths: Option<u16>,
    /// The consistency of reads that ask for none.
    pub consistency: Option<RuleConsistency>,
}

/// A consistency as a rule names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleConsistency {
    /// `session`.
    Session,
    /// `causal`.
    Causal,
    /// `bounded`, with its `max_staleness`.
    Bounded(Duration),
    /// `eventual`.
    Eventual,
    /// `strong`.
    Strong,
}

/// Reads the rules.
pub(super) fn rules(reader: &mut Reader<'_>, databases: &[DatabaseConfig]) -> Vec<RuleConfig> {
    let mut rules: Vec<RuleConfig> = Vec::new();
    for (index, table) in std::mem::take(&mut reader.raw.rules).into_iter().enumerate() {
        let rule = rule(reader, index, table, databases);
        if rules.iter().any(|other| other.name == rule.name) {
            let message = format!("`{}` is taken by another rule", rule.name);
            reader.problems.add(format!("rule[{index}].name"), message);
        }
        rules.push(rule);
    }
    rules
}

fn rule(reader: &mut Reader<'_>, index: usize, mut table: Table, databases: &[DatabaseConfig]) -> RuleConfig {
    let key = format!("rule[{index}]");
    let name = match table.contains_key("name") {
        true => required_text(reader, &key, "name", &mut table),
        false => key.clone(),
    };
    let operation = required_text(reader, &key, "operation", &mut table);
    let database = table.contains_key("database").then(|| required_text(reader, &key, "database", &mut table));
    if let Some(named) = database.as_ref().filter(|named| !named.is_empty())
        && !databases.iter().any(|database| database.name == *named)
    {
        let message = format!("there is no database `{named}`; correct it, or leave it out: for all");
        reader.problems.add(format!("{key}.database"), message);
    }
    let says_something = ["primary_only", "replica_percentage", "consistency"].iter().any(|it| table.contains_key(*it));
    if !says_something {
        let message = "says nothing; write primary_only = true, replica_percentage = … or consistency = \"…\"";
        reader.problems.add(&key, message);
    }
    let replica_hundredths = replicas(reader, &key, &mut table);
    let consistency = consistency(reader, &key, &mut table);
    if replica_hundredths == Some(0) && consistency.is_some() {
        let message = "has no use where every read goes to the primary; leave it out";
        reader.problems.add(format!("{key}.consistency"), message);
    }
    let known = "name, operation, database, primary_only, replica_percentage, consistency and max_staleness";
    refuse_rest(reader, &key, &table, known);
    RuleConfig { name, operation, database, replica_hundredths, consistency }
}

fn replicas(reader: &mut Reader<'_>, key: &str, table: &mut Table) -> Option<u16> {
    let primary_only = match table.remove("primary_only") {
        Some(Value::Boolean(true)) => true,
        Some(_) => {
            reader.problems.add(format!("{key}.primary_only"), "is true, without quotes, or left out");
            false
        }
        None => false,
    };
    match table.remove("replica_percentage") {
        Some(_) if primary_only => {
            let message = "goes without primary_only, which lets replicas take none; keep one";
            reader.problems.add(format!("{key}.replica_percentage"), message);
            None
        }
        Some(value) => Some(percentage(reader, &format!("{key}.replica_percentage"), &value)),
        None => primary_only.then_some(0),
    }
}

fn consistency(reader: &mut Reader<'_>, key: &str, table: &mut Table) -> Option<RuleConsistency> {
    let (consistency_key, staleness_key) = (format!("{key}.consistency"), format!("{key}.max_staleness"));
    let staleness = table.remove("max_staleness").and_then(|value| {
        let parsed = value.as_str().ok_or_else(|| "is a duration; write it as text, such as \"5s\"".to_owned());
        parsed.and_then(parse_duration).map_err(|message| reader.problems.add(&staleness_key, message)).ok()
    });
    let written = table.contains_key("consistency").then(|| required_text(reader, key, "consistency", table));
    let consistency = match (written.as_deref(), staleness) {
        (Some("bounded"), Some(staleness)) => return Some(RuleConsistency::Bounded(staleness)),
        (Some("bounded"), None) => {
            reader.problems.add(&staleness_key, "is missing or wrong; bounded needs such as max_staleness = \"5s\"");
            None
        }
        (Some("session"), _) => Some(RuleConsistency::Session),
        (Some("causal"), _) => Some(RuleConsistency::Causal),
        (Some("eventual"), _) => Some(RuleConsistency::Eventual),
        (Some("strong"), _) => Some(RuleConsistency::Strong),
        // An empty one is a problem already.
        (None | Some(""), _) => None,
        (Some(other), _) => {
            let message = format!("`{other}` is none; write session, causal, bounded, eventual or strong");
            reader.problems.add(consistency_key, message);
            None
        }
    };
    if staleness.is_some() && written.as_deref() != Some("bounded") {
        reader.problems.add(staleness_key, "goes with consistency = \"bounded\" only");
    }
    consistency
}
