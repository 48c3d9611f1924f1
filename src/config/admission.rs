//! Who may run, and whether there are connections enough for what is configured.

use super::{ClusterConfig, DatabaseConfig, PoolConfig, RolloutConfig, read::Reader};

/// How many calls run at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Of one database; None: any number.
    pub database_concurrency: Option<usize>,
    /// Of one caller on one database; None: any number.
    pub caller_concurrency: Option<usize>,
}

/// Reads the section.
pub(super) fn limits(reader: &mut Reader<'_>) -> LimitsConfig {
    let mut limit = |key| Some(reader.count(key, 0, 0..=1_000_000)).filter(|&limit| limit > 0);
    LimitsConfig {
        database_concurrency: limit("limits.database_concurrency"),
        caller_concurrency: limit("limits.caller_concurrency"),
    }
}

/// Notes a budget that is too small for the databases of a cluster, those that are being moved there among them.
pub(super) fn check_budget(
    reader: &mut Reader<'_>,
    pool: &PoolConfig,
    clusters: &[ClusterConfig],
    (databases, rollouts): (&[DatabaseConfig], &[RolloutConfig]),
) {
    for cluster in clusters {
        let at_home = databases.iter().filter(|database| database.cluster == cluster.name).count();
        let on_it = at_home + rollouts.iter().filter(|rollout| rollout.cluster == cluster.name).count();
        let least = connections_min(on_it);
        if (pool.connections_per_host as usize) < least {
            let message = format!(
                "{} are too few for the {on_it} database(s) on cluster {}: {CONTROL_CONNECTIONS} are for probes and \
                 questions, and each database needs one to listen, one for reads and one for writes; write at least {least}",
                pool.connections_per_host, cluster.name
            );
            reader.problems.add("pool.connections_per_host", message);
        }
    }
}

/// Connections to a host that no call uses, as `admission` has it; a test of `app` holds them against each other.
const CONTROL_CONNECTIONS: usize = 4;

/// The fewest connections to a host that serve so many databases.
pub(crate) fn connections_min(databases: usize) -> usize {
    CONTROL_CONNECTIONS + 3 * databases
}
