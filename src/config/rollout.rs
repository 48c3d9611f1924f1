//! The move of a database to a cluster of its own: the keys `own_…`, `use_own` and `reuse_primary` of a `[[database]]`,
//! and the variable that overrides them in a hurry.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{ClusterConfig, ConfiguredRole, DatabaseConfig, clusters::required_text, read::Reader};

/// Before and behind the database's name in the variable that overrides `use_own`.
const VARIABLE: (&str, &str) = ("TIDEGATE_DATABASE_", "_USE_OWN");

/// A database that is being moved to a cluster of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutConfig {
    /// The database's name.
    pub database: String,
    /// The name of the cluster that it is moved to, which exists and is not the one where it is.
    pub cluster: String,
    /// The PostgreSQL database in it.
    pub dbname: String,
    /// The share of sessions that has moved, in hundredths of a percent: at most 10,000.
    pub percentage_hundredths: u16,
    /// Set: everybody or nobody, whatever the percentage.
    pub use_own: Option<bool>,
    /// Writes stay where the database is; the cluster's hosts are replicas of that cluster's primary.
    pub reuse_primary: bool,
}

/// Takes these keys out of a database's table.
pub(super) fn take(
    reader: &mut Reader<'_>,
    key: &str,
    table: &mut Table,
    database: &DatabaseConfig,
) -> Option<RolloutConfig> {
    if !table.contains_key("own_cluster") {
        for name in ["own_dbname", "own_percentage", "use_own", "reuse_primary"] {
            if table.remove(name).is_some() {
                let message =
                    "goes with own_cluster, the cluster that the database is moved to; add that, or leave it out";
                reader.problems.add(format!("{key}.{name}"), message);
            }
        }
        return None;
    }
    let cluster = required_text(reader, key, "own_cluster", table);
    let dbname = match table.contains_key("own_dbname") {
        true => required_text(reader, key, "own_dbname", table),
        false => database.dbname.clone(),
    };
    let percentage_hundredths = match table.remove("own_percentage") {
        Some(value) => percentage(reader, &format!("{key}.own_percentage"), &value),
        None => 0,
    };
    let use_own = match table.remove("use_own") {
        Some(Value::Boolean(forced)) => Some(forced),
        Some(_) => {
            reader.problems.add(format!("{key}.use_own"), "is true or false, without quotes");
            None
        }
        None => None,
    };
    let reuse_primary = table.contains_key("reuse_primary");
    if reuse_primary {
        let followed = required_text(reader, key, "reuse_primary", table);
        if !followed.is_empty() && followed != database.cluster {
            let message = format!("is the cluster where the database is: write \"{}\"", database.cluster);
            reader.problems.add(format!("{key}.reuse_primary"), message);
        } else if dbname != database.dbname {
            let message = "goes with the same database on both sides, which replicas have; leave own_dbname out";
            reader.problems.add(format!("{key}.reuse_primary"), message);
        }
    }
    let database = database.name.clone();
    Some(RolloutConfig { database, cluster, dbname, percentage_hundredths, use_own, reuse_primary })
}

/// A percentage as hundredths; 0 if it is none, which is noted.
pub(super) fn percentage(reader: &mut Reader<'_>, key: &str, value: &Value) -> u16 {
    let given = match value {
        Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        Value::Float(number) => Some(*number),
        _ => None,
    };
    let hundredths = given.map(|given| given * 100.0).filter(|it| (0.0..=10_000.0).contains(it));
    match hundredths {
        Some(hundredths) if (hundredths - hundredths.round()).abs() < 1e-6 => hundredths.round() as u16,
        _ => {
            reader.problems.add(key, format!("{value} is not a percentage; write 0 to 100, in steps of 0.01"));
            0
        }
    }
}

/// What concerns several databases, or databases and clusters; and the variables.
pub(super) fn check(
    reader: &mut Reader<'_>,
    clusters: &[ClusterConfig],
    databases: &[DatabaseConfig],
    rollouts: &mut [RolloutConfig],
) {
    for rollout in rollouts.iter() {
        let Some((key, database)) = place_of(databases, rollout) else { continue };
        let own = format!("{key}.own_cluster");
        if rollout.cluster == database.cluster && !rollout.cluster.is_empty() {
            reader.problems.add(own, "is the cluster where the database is; name another one");
        } else if !rollout.cluster.is_empty() && !clusters.iter().any(|cluster| cluster.name == rollout.cluster) {
            reader.problems.add(own, format!("there is no cluster `{}`; add a [[cluster]]", rollout.cluster));
        }
    }
    check_followers(reader, clusters, databases, rollouts);
    override_by_variables(reader, databases, rollouts);
}

/// The table of a rollout's database, and the database.
fn place_of<'a>(databases: &'a [DatabaseConfig], rollout: &RolloutConfig) -> Option<(String, &'a DatabaseConfig)> {
    let index = databases.iter().position(|database| database.name == rollout.database)?;
    Some((format!("database[{index}]"), &databases[index]))
}

/// A cluster whose hosts follow another's primary has none of its own, and no use but that.
fn check_followers(
    reader: &mut Reader<'_>,
    clusters: &[ClusterConfig],
    databases: &[DatabaseConfig],
    rollouts: &[RolloutConfig],
) {
    for rollout in rollouts.iter().filter(|rollout| rollout.reuse_primary) {
        let Some((key, database)) = place_of(databases, rollout) else { continue };
        let key = format!("{key}.reuse_primary");
        let name = &rollout.cluster;
        let at_home = databases.iter().find(|other| other.cluster == *name).map(|other| &other.name);
        let otherwise = rollouts.iter().find(|other| {
            let follows = place_of(databases, other).map(|(_, it)| &it.cluster).filter(|_| other.reuse_primary);
            other.cluster == *name && follows != Some(&database.cluster)
        });
        if let Some(other) = at_home.or(otherwise.map(|other| &other.database)) {
            let message = format!(
                "the hosts of cluster `{name}` would be replicas of `{}`, but database `{other}` uses them otherwise; \
                 give one of the two another cluster",
                database.cluster
            );
            reader.problems.add(key.as_str(), message);
        }
        let has_primary = |cluster: &&ClusterConfig| {
            cluster.name == *name && cluster.hosts.iter().any(|host| host.configured_role == ConfiguredRole::Primary)
        };
        if clusters.iter().any(|cluster| has_primary(&cluster)) {
            let message = format!(
                "cluster `{name}` has a `primary`, which cannot follow `{}`; write its hosts as `replicas` or `hosts`",
                database.cluster
            );
            reader.problems.add(key, message);
        }
    }
}

/// Whether a variable is one that overrides `use_own`.
pub(super) fn is_override(variable: &str) -> bool {
    let inside = variable.strip_prefix(VARIABLE.0).and_then(|rest| rest.strip_suffix(VARIABLE.1));
    inside.is_some_and(|name| !name.is_empty())
}

/// The variable that overrides `use_own` of a database.
fn variable_of(database: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}{}{}", VARIABLE.0, database.chars().map(plain).collect::<String>(), VARIABLE.1)
}

fn override_by_variables(reader: &mut Reader<'_>, databases: &[DatabaseConfig], rollouts: &mut [RolloutConfig]) {
    let written: BTreeMap<String, String> = std::mem::take(&mut reader.raw.overrides);
    let mut named: BTreeMap<String, Vec<&mut RolloutConfig>> = BTreeMap::new();
    for rollout in rollouts {
        named.entry(variable_of(&rollout.database)).or_default().push(rollout);
    }
    for (variable, rollouts) in &named {
        // Also while it is not set: nobody should find out in the hurry that it is for.
        if let [first, second, ..] = rollouts.as_slice() {
            let message =
                format!("would be meant for both database `{}` and `{}`; rename one", first.database, second.database);
            reader.problems.add(variable, message);
        }
    }
    for (variable, text) in written {
        let forced = match text.trim() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                reader.problems.add(&variable, format!("`{text}` is neither true nor false; write one of them"));
                None
            }
        };
        match (named.get_mut(&variable), databases.iter().find(|database| variable_of(&database.name) == variable)) {
            (Some(rollouts), _) => rollouts.iter_mut().for_each(|rollout| rollout.use_own = forced.or(rollout.use_own)),
            (None, Some(database)) => {
                let message = format!("database `{}` has no own_cluster to use; unset the variable", database.name);
                reader.problems.add(&variable, message);
            }
            (None, None) => {
                reader.problems.add(&variable, "there is no such database; unset the variable or correct its name");
            }
        }
    }
}
