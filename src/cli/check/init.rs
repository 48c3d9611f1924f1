//! `tidegate check --init`: makes the table of idempotency keys in every database, on its cluster's primary, and says what
//! it did or what somebody with more rights must do.

use serde_json::{Value, json};

use super::verdict::ClusterVerdict;
use crate::{
    app,
    config::{Config, DatabaseConfig, RolloutConfig},
    postgres::{KEY_TABLE, KeyTable, KeyTableState, Reading},
};

/// What became of the table in one database.
pub(super) struct Initialised {
    /// The database as callers name it.
    database: String,
    result: Result<Done, String>,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    Created,
    Present,
}

impl Initialised {
    pub(super) fn is_well(&self) -> bool {
        self.result.is_ok()
    }

    pub(super) fn json(&self) -> Value {
        let (state, message) = match &self.result {
            Ok(Done::Created) => ("created", None),
            Ok(Done::Present) => ("present", None),
            Err(message) => ("failed", Some(message)),
        };
        json!({ "database": self.database, "idempotency_keys": state, "message": message })
    }
}

/// Every database in turn.
pub(super) async fn all(config: &Config, clusters: &[ClusterVerdict]) -> Vec<Initialised> {
    let mut done = Vec::with_capacity(config.databases.len());
    let on_own = |rollout: &RolloutConfig| DatabaseConfig {
        name: format!("{} on {}", rollout.database, rollout.cluster),
        cluster: rollout.cluster.clone(),
        dbname: rollout.dbname.clone(),
    };
    // Where a database is moved to, its keys are claimed too; hosts that follow have the table of the primary.
    let moved: Vec<_> = config.rollouts.iter().filter(|rollout| !rollout.reuse_primary).map(on_own).collect();
    for database in config.databases.iter().chain(&moved) {
        done.push(Initialised { database: database.name.clone(), result: one(config, clusters, database).await });
    }
    done
}

async fn one(config: &Config, clusters: &[ClusterVerdict], database: &DatabaseConfig) -> Result<Done, String> {
    let verdict = clusters.iter().find(|cluster| cluster.name == database.cluster);
    let primaries: Vec<_> = verdict.iter().flat_map(|cluster| &cluster.hosts).filter(|host| is_primary(host)).collect();
    let [primary] = primaries.as_slice() else {
        return Err("its cluster has not exactly one primary that answers".to_owned());
    };
    let hosts = config.clusters.iter().filter(|cluster| cluster.name == database.cluster).flat_map(|it| &it.hosts);
    let host = hosts.into_iter().find(|host| host.name == primary.examined.name);
    let host = host.ok_or("the primary is not among the hosts")?;
    let target = app::target(host, config).with_database(&database.dbname);
    let (mut table, state) = KeyTable::open(&target).await.map_err(|error| error.to_string())?;
    match state {
        KeyTableState::Usable => Ok(Done::Present),
        KeyTableState::Forbidden => Err(format!(
            "the table is there, but the login role may not use it; its owner must run: {}",
            table.grants()
        )),
        KeyTableState::Missing => match table.create().await {
            Ok(()) => Ok(Done::Created),
            Err(error) => Err(format!(
                "the table was not made: {error}; run: {} and repeat this, or run the statements above as another role, and: {}",
                table.right_to_create(),
                table.grants()
            )),
        },
    }
}

fn is_primary(host: &super::verdict::HostVerdict) -> bool {
    host.examined.answer.as_ref().is_ok_and(|answer| matches!(answer.reading, Reading::Primary { .. }))
}

/// The statements, then what became of each database.
pub(super) fn text(done: &[Initialised]) -> String {
    let line = |it: &Initialised| match &it.result {
        Ok(Done::Created) => format!("{}: made tidegate.idempotency_keys", it.database),
        Ok(Done::Present) => format!("{}: tidegate.idempotency_keys is there already", it.database),
        Err(message) => format!("problem: {}: {message}", it.database),
    };
    let lines: Vec<String> = done.iter().map(line).collect();
    format!("Idempotency keys need, in each database:\n\n{};\n\n{}\n", KEY_TABLE.join(";\n"), lines.join("\n"))
}
