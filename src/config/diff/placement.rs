//! What differs in where calls go: the moves of databases, and the rules by operation.

use super::Changes;
use crate::config::{Config, RolloutConfig, RuleConfig};

/// Of databases that there still are: of the others it is said that they were removed.
pub(super) fn rollouts(changes: &mut Changes, old: &Config, new: &Config) {
    let of = |config: &Config, name: &str| config.rollouts.iter().find(|rollout| rollout.database == name).cloned();
    for database in &new.databases {
        let key = format!("database {}", database.name);
        match (of(old, &database.name), of(new, &database.name)) {
            (None, Some(to)) => changes.note(key, format!("is being moved to {}: {}", target(&to), state(&to))),
            (Some(_), None) => changes.note(key, "is not being moved any more"),
            (Some(from), Some(to)) if (&from.cluster, &from.dbname) != (&to.cluster, &to.dbname) => {
                changes.note(key, format!("is being moved to {} instead: {}", target(&to), state(&to)));
            }
            (Some(from), Some(to)) => {
                changes.live(&key, (&from, &to), |rollout| state(rollout));
            }
            (None, None) => {}
        }
    }
}

fn target(rollout: &RolloutConfig) -> String {
    format!("{} in cluster {}", rollout.dbname, rollout.cluster)
}

fn state(rollout: &RolloutConfig) -> String {
    let hundredths = rollout.percentage_hundredths;
    let forced = rollout.use_own.map(|forced| format!(", use_own = {forced}")).unwrap_or_default();
    let reuse = if rollout.reuse_primary { ", reuse_primary" } else { "" };
    format!("{}.{:02} %{forced}{reuse}", hundredths / 100, hundredths % 100)
}

/// By their names; and their order, since the first that matches counts.
pub(super) fn rules(changes: &mut Changes, old: &[RuleConfig], new: &[RuleConfig]) {
    let of = |rules: &[RuleConfig], name: &str| rules.iter().find(|rule| rule.name == name).cloned();
    for rule in old.iter().filter(|rule| of(new, &rule.name).is_none()) {
        changes.note(format!("rule {}", rule.name), "removed");
    }
    for rule in new {
        match of(old, &rule.name) {
            None => changes.note(format!("rule {}", rule.name), "added"),
            Some(before) if before != *rule => changes.note(format!("rule {}", rule.name), "changed"),
            Some(_) => {}
        }
    }
    let order = |rules: &[RuleConfig], others: &[RuleConfig]| -> Vec<String> {
        rules.iter().map(|rule| rule.name.clone()).filter(|name| of(others, name).is_some()).collect()
    };
    if order(old, new) != order(new, old) {
        changes.note("rules", "are in another order");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::{ClusterConfig, Config, RolloutConfig, RuleConfig, RuleConsistency, ServeFlags, changes, load};

    fn config() -> Config {
        let flags = ServeFlags { primary: Some("postgres://u@a/d".into()), ..ServeFlags::default() };
        let mut config = load(&flags, &BTreeMap::new()).expect("a configuration");
        config.clusters.push(ClusterConfig { name: "own".into(), hosts: vec![], discovery: None });
        config
    }

    fn moved(change: impl FnOnce(&mut RolloutConfig)) -> Config {
        let mut config = config();
        let (database, dbname) = (config.databases[0].name.clone(), config.databases[0].dbname.clone());
        let (cluster, use_own) = ("own".into(), None);
        let mut rollout =
            RolloutConfig { database, cluster, dbname, percentage_hundredths: 1207, use_own, reuse_primary: false };
        change(&mut rollout);
        config.rollouts.push(rollout);
        config
    }

    fn texts(old: &Config, new: &Config) -> Vec<String> {
        let changes = changes(old, new);
        assert!(changes.iter().all(|change| !change.needs_restart));
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_part_of_a_move_is_compared() {
        let plain = moved(|_| {});
        assert_eq!(texts(&plain, &plain), [""; 0]);
        assert_eq!(texts(&config(), &plain), ["database d: is being moved to d in cluster own: 12.07 %"]);
        assert_eq!(texts(&plain, &config()), ["database d: is not being moved any more"]);
        for (other, shown) in [
            (moved(|it| it.percentage_hundredths = 5000), "12.07 % → 50.00 %"),
            (moved(|it| it.use_own = Some(false)), "12.07 % → 12.07 %, use_own = false"),
            (moved(|it| it.reuse_primary = true), "12.07 % → 12.07 %, reuse_primary"),
            (moved(|it| it.dbname = "e".into()), "is being moved to e in cluster own instead: 12.07 %"),
            (moved(|it| it.cluster = "other".into()), "is being moved to d in cluster other instead: 12.07 %"),
        ] {
            assert_eq!(texts(&plain, &other), [format!("database d: {shown}")]);
        }
        let mut gone = config();
        gone.databases.clear();
        assert_eq!(texts(&plain, &gone), ["database d: removed"]);
    }

    #[test]
    fn every_part_of_a_rule_and_their_order_is_compared() {
        let rule = |name: &str| RuleConfig {
            name: name.into(),
            operation: "*".into(),
            database: None,
            replica_hundredths: None,
            consistency: None,
        };
        let ruled = |rules: Vec<RuleConfig>| Config { rules, ..config() };
        let both = ruled(vec![rule("a"), rule("b")]);
        assert_eq!(texts(&config(), &both), ["rule a: added", "rule b: added"]);
        assert_eq!(texts(&both, &ruled(vec![rule("b"), rule("a")])), ["rules: are in another order"]);
        assert_eq!(texts(&both, &ruled(vec![rule("b"), rule("c")])), ["rule a: removed", "rule c: added"]);
        for other in [
            RuleConfig { operation: "GET *".into(), ..rule("a") },
            RuleConfig { database: Some("d".into()), ..rule("a") },
            RuleConfig { replica_hundredths: Some(1), ..rule("a") },
            RuleConfig { consistency: Some(RuleConsistency::Causal), ..rule("a") },
        ] {
            assert_eq!(texts(&both, &ruled(vec![other, rule("b")])), ["rule a: changed"]);
        }
    }
}
