//! Databases, their moves to clusters of their own, and rules, from the configuration's words to the parts'.

use crate::{
    broker::{DatabaseSpec, HostSpec, RolloutSpec},
    config::{Config, DatabaseConfig, HostConfig, RolloutConfig, RuleConfig, RuleConsistency},
    model::{ClusterId, Consistency, Glob, Move, Percentage, RolloutState, Rule, Rules},
};

/// Validation proved that the cluster exists.
fn cluster_id(config: &Config, name: &str) -> Option<ClusterId> {
    config.clusters.iter().position(|cluster| cluster.name == name).map(|index| ClusterId::new(index as u16))
}

/// The cluster whose primary the hosts of this one follow, with its name.
pub fn leader(config: &Config, cluster: &str) -> Option<(ClusterId, String)> {
    let rollout = config.rollouts.iter().find(|rollout| rollout.reuse_primary && rollout.cluster == cluster)?;
    let database = config.databases.iter().find(|database| database.name == rollout.database)?;
    Some((cluster_id(config, &database.cluster)?, database.cluster.clone()))
}

pub(super) fn databases(config: &Config) -> Vec<DatabaseSpec> {
    let with_rollout = |database: &DatabaseConfig| {
        let mut spec = database_on(config, &database.name, &database.cluster, &database.dbname)?;
        let rollout = config.rollouts.iter().find(|rollout| rollout.database == database.name);
        spec.rollout = rollout.and_then(|rollout| {
            let own = database_on(config, &database.name, &rollout.cluster, &rollout.dbname)?;
            Some(RolloutSpec { own: Box::new(own), state: state(rollout) })
        });
        Some(spec)
    };
    config.databases.iter().filter_map(with_rollout).collect()
}

fn database_on(config: &Config, name: &str, cluster: &str, dbname: &str) -> Option<DatabaseSpec> {
    let id = cluster_id(config, cluster)?;
    let host = |host: &HostConfig| HostSpec {
        name: host.name.clone(),
        target: super::target(host, config),
        pooler: super::pooler(host, config),
    };
    Some(DatabaseSpec {
        name: name.to_owned(),
        cluster: id,
        cluster_name: cluster.to_owned(),
        dbname: dbname.to_owned(),
        hosts: config.clusters[id.index()].hosts.iter().map(host).collect(),
        follows: leader(config, cluster),
        rollout: None,
    })
}

fn state(rollout: &RolloutConfig) -> RolloutState {
    RolloutState {
        use_own: rollout.use_own,
        reuse_primary: rollout.reuse_primary,
        percentage: Percentage::from_hundredths(rollout.percentage_hundredths).unwrap_or_default(),
    }
}

/// The move of a database, for explanations.
pub fn moves<'a>(config: &'a Config, database: &'a DatabaseConfig) -> Option<Move<'a>> {
    let rollout = config.rollouts.iter().find(|rollout| rollout.database == database.name)?;
    Some(Move { origin: &database.cluster, own: &rollout.cluster, state: state(rollout) })
}

/// The rules by operation.
pub fn rules(config: &Config) -> Rules {
    let rule = |rule: &RuleConfig| Rule {
        name: rule.name.as_str().into(),
        operation: rule.operation.as_str().into(),
        glob: Glob::new(&rule.operation),
        database: rule.database.as_deref().map(Into::into),
        replicas: rule.replica_hundredths.and_then(Percentage::from_hundredths),
        consistency: rule.consistency.map(|consistency| match consistency {
            RuleConsistency::Session => Consistency::Session,
            RuleConsistency::Causal => Consistency::Causal,
            RuleConsistency::Bounded(max_staleness) => Consistency::Bounded { max_staleness },
            RuleConsistency::Eventual => Consistency::Eventual,
            RuleConsistency::Strong => Consistency::Strong,
        }),
    };
    Rules::new(config.rules.iter().map(rule).collect())
}
