//! What says where calls go, from the configuration's words to the parts': databases, their moves to clusters of their own,
//! and rules by operation.

use std::sync::Arc;

use super::wiring::pooler;
use crate::{
    broker::{DatabaseSpec, HostSpec, RolloutSpec},
    config::{Config, DatabaseConfig, RolloutConfig, RuleConfig, RuleConsistency},
    model::{Consistency, Glob, Move, Percentage, RolloutState, Rule, Rules},
    topology::{ClusterMembers, Member},
};

/// The cluster whose primary the hosts of this one follow.
pub fn leader<'a>(config: &'a Config, cluster: &str) -> Option<&'a str> {
    let rollout = config.rollouts.iter().find(|rollout| rollout.reuse_primary && rollout.cluster == cluster)?;
    let database = config.databases.iter().find(|database| database.name == rollout.database)?;
    Some(&database.cluster)
}

/// The databases as `broker` takes them, on the hosts of these clusters, which are those of the configuration.
pub(super) fn database_specs(config: &Config, clusters: &[ClusterMembers]) -> Vec<DatabaseSpec> {
    let with_rollout = |database: &DatabaseConfig| {
        let mut spec = database_on(config, clusters, &database.name, &database.cluster, &database.dbname)?;
        let rollout = config.rollouts.iter().find(|rollout| rollout.database == database.name);
        spec.rollout = rollout.and_then(|rollout| {
            let own = database_on(config, clusters, &database.name, &rollout.cluster, &rollout.dbname)?;
            Some(RolloutSpec { own: Box::new(own), state: state(rollout) })
        });
        Some(spec)
    };
    config.databases.iter().filter_map(with_rollout).collect()
}

fn database_on(
    config: &Config,
    clusters: &[ClusterMembers],
    name: &str,
    cluster_name: &str,
    dbname: &str,
) -> Option<DatabaseSpec> {
    // Validation proved that the cluster exists.
    let cluster = clusters.iter().find(|cluster| cluster.name == cluster_name)?;
    let configured = config.clusters.iter().find(|cluster| cluster.name == cluster_name)?;
    let host = |member: &Member| {
        let host = configured.hosts.iter().find(|host| host.name == member.spec.name);
        HostSpec {
            id: member.id,
            identity: Arc::clone(&member.identity),
            name: member.spec.name.clone(),
            target: member.spec.target.clone(),
            pooler: host.and_then(|host| pooler(host, config)),
        }
    };
    let followed = cluster.follows.and_then(|leader| clusters.iter().find(|cluster| cluster.id == leader));
    Some(DatabaseSpec {
        name: name.to_owned(),
        cluster: cluster.id,
        cluster_name: cluster_name.to_owned(),
        dbname: dbname.to_owned(),
        hosts: cluster.hosts.iter().map(host).collect(),
        follows: followed.map(|leader| (leader.id, leader.name.clone())),
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
