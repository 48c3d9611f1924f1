//! Tables: what a database's move and the rules by operation may say, and every mistake in them.

use super::{
    RuleConsistency,
    tests::{from_file, load_from, problems},
    *,
};
use std::time::Duration;

/// Two clusters, and a database in the first with these keys more.
fn moved(keys: &str) -> String {
    format!(
        "[[cluster]]\nname = \"main\"\nprimary = \"postgres://ann@db1/app\"\n\
         [[cluster]]\nname = \"own\"\nhosts = [\"postgres://ann@db2/app\"]\n\
         [[database]]\nname = \"ci\"\ncluster = \"main\"\ndbname = \"app\"\n{keys}"
    )
}

fn ruled(keys: &str) -> String {
    format!("primary = \"postgres://ann@db1/app\"\n[[rule]]\n{keys}")
}

#[test]
fn a_database_that_is_being_moved() {
    let rollout = |keys: &str| {
        let mut config = from_file(&moved(keys)).unwrap();
        assert_eq!((config.databases.len(), config.rollouts.len()), (1, 1), "the own cluster gets no database");
        config.rollouts.remove(0)
    };
    let least = rollout("own_cluster = \"own\"");
    let expected = RolloutConfig {
        database: "ci".into(),
        cluster: "own".into(),
        dbname: "app".into(),
        percentage_hundredths: 0,
        use_own: None,
        reuse_primary: false,
    };
    assert_eq!(least, expected);
    let most = rollout("own_cluster = \"own\"\nown_dbname = \"ci\"\nown_percentage = 12.07\nuse_own = false");
    let expected = RolloutConfig { dbname: "ci".into(), percentage_hundredths: 1207, use_own: Some(false), ..least };
    assert_eq!(most, expected);
    assert!(rollout("own_cluster = \"own\"\nreuse_primary = \"main\"\nown_percentage = 100").reuse_primary);
    for (percentage, hundredths) in [("0", 0), ("0.01", 1), ("29.29", 2929), ("100.0", 10_000)] {
        let keys = format!("own_cluster = \"own\"\nown_percentage = {percentage}");
        assert_eq!(rollout(&keys).percentage_hundredths, hundredths);
    }
}

#[test]
fn every_mistake_about_a_move_is_named() {
    let own = "own_cluster = \"own\"\n";
    for (keys, key, says) in [
        ("own_percentage = 5", "database[0].own_percentage", "goes with own_cluster"),
        ("use_own = true", "database[0].use_own", "goes with own_cluster"),
        ("own_cluster = \"other\"", "database[0].own_cluster", "there is no cluster `other`"),
        ("own_cluster = \"main\"", "database[0].own_cluster", "where the database is"),
        (&format!("{own}own_percentage = 100.01"), "database[0].own_percentage", "steps of 0.01"),
        (&format!("{own}own_percentage = 1.005"), "database[0].own_percentage", "steps of 0.01"),
        (&format!("{own}own_percentage = \"5\""), "database[0].own_percentage", "0 to 100"),
        (&format!("{own}use_own = \"true\""), "database[0].use_own", "without quotes"),
        (&format!("{own}reuse_primary = \"own\""), "database[0].reuse_primary", "write \"main\""),
        (
            &format!("{own}reuse_primary = \"main\"\nown_dbname = \"ci\""),
            "database[0].reuse_primary",
            "leave own_dbname",
        ),
        (
            &format!("{own}reuse_primary = \"main\"\n[[database]]\nname = \"b\"\ncluster = \"own\""),
            "database[0].reuse_primary",
            "database `b` uses them otherwise",
        ),
        (
            &format!("{own}reuse_primary = \"main\"\n[[database]]\nname = \"b\"\ncluster = \"main\"\n{own}"),
            "database[0].reuse_primary",
            "database `b` uses them otherwise",
        ),
        (&format!("{own}own_hosts = 5"), "database[0].own_hosts", "no such key"),
    ] {
        // Without own_cluster the other cluster needs a database.
        let cluster =
            if keys.starts_with("own_cluster") { "" } else { "\n[[database]]\nname = \"b\"\ncluster = \"own\"" };
        let own_is_missing = keys.contains("\"other\"") || keys.contains("= \"main\"") && !keys.contains(own.trim());
        let cluster = if own_is_missing { "\n[[database]]\nname = \"b\"\ncluster = \"own\"" } else { cluster };
        problems(&moved(&format!("{keys}{cluster}")), &[(key, says)]);
    }
    let with_primary = moved("own_cluster = \"own\"\nreuse_primary = \"main\"")
        .replace("hosts = [\"postgres://ann@db2/app\"]", "primary = \"postgres://ann@db2/app\"");
    problems(&with_primary, &[("database[0].reuse_primary", "cannot follow `main`")]);
}

#[test]
fn where_a_database_is_moved_to_it_takes_its_part_of_the_connections() {
    let with = |connections: u32| {
        let beside = "own_cluster = \"own\"\n[[database]]\nname = \"b\"\ncluster = \"own\"";
        moved(&format!("{beside}\n[pool]\nconnections_per_host = {connections}"))
    };
    problems(&with(9), &[("pool.connections_per_host", "2 database(s) on cluster own")]);
    assert_eq!(from_file(&with(10)).unwrap().pool.connections_per_host, 10);
}

#[test]
fn a_variable_overrides_the_file() {
    let loaded = |name: &str, keys: &str, env: &[(&str, &str)]| {
        let file = moved(&format!("own_cluster = \"own\"\n{keys}")).replace("\"ci\"", &format!("\"{name}\""));
        load_from(&file, env, &ServeFlags::default()).map(|config| config.rollouts[0].use_own)
    };
    let variable = "TIDEGATE_DATABASE_CI_2_X_USE_OWN";
    assert_eq!(loaded("ci-2.x", "use_own = false", &[(variable, "true")]), Ok(Some(true)));
    assert_eq!(loaded("ci-2.x", "use_own = true", &[(variable, "false")]), Ok(Some(false)));
    assert_eq!(loaded("ci-2.x", "use_own = true", &[(variable, "")]), Ok(Some(true)), "empty is not set");
    let problem = |name: &str, keys: &str, env: &[(&str, &str)]| {
        let found = loaded(name, keys, env).unwrap_err();
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let wrong = problem("ci", "", &[("TIDEGATE_DATABASE_CI_USE_OWN", "yes")]);
    assert!(wrong.starts_with("TIDEGATE_DATABASE_CI_USE_OWN: `yes` is neither"), "{wrong}");
    let nobody = problem("ci", "", &[("TIDEGATE_DATABASE_CD_USE_OWN", "true")]);
    assert!(nobody.contains("there is no such database"), "{nobody}");
    let unmoved = "[[database]]\nname = \"b\"\ncluster = \"main\"";
    let unmoved = problem("ci", unmoved, &[("TIDEGATE_DATABASE_B_USE_OWN", "true")]);
    assert!(unmoved.contains("has no own_cluster"), "{unmoved}");
    let twins = "[[database]]\nname = \"c_i\"\ncluster = \"main\"\nown_cluster = \"own\"";
    let twins = problem("c.i", twins, &[]);
    assert!(twins.starts_with("TIDEGATE_DATABASE_C_I_USE_OWN: would be meant for both"), "{twins}");
}

#[test]
fn rules() {
    let config = from_file(&ruled(
        "operation = \"worker.*\"\nprimary_only = true\n\
         [[rule]]\nname = \"v2\"\noperation = \"GET /v2/*\"\ndatabase = \"app\"\nreplica_percentage = 12.5\n\
         consistency = \"bounded\"\nmax_staleness = \"5s\"",
    ))
    .unwrap();
    let worker = RuleConfig {
        name: "rule[0]".into(),
        operation: "worker.*".into(),
        database: None,
        replica_hundredths: Some(0),
        consistency: None,
    };
    let v2 = RuleConfig {
        name: "v2".into(),
        operation: "GET /v2/*".into(),
        database: Some("app".into()),
        replica_hundredths: Some(1250),
        consistency: Some(RuleConsistency::Bounded(Duration::from_secs(5))),
    };
    assert_eq!(config.rules, [worker, v2]);
}

#[test]
fn every_mistake_in_a_rule_is_named() {
    for (keys, key, says) in [
        ("primary_only = true", "rule[0].operation", "is missing"),
        ("operation = \"a\"", "rule[0]", "says nothing"),
        ("operation = \"a\"\nprimary_only = false", "rule[0].primary_only", "is true"),
        ("operation = \"a\"\nprimary_only = true\nreplica_percentage = 5", "rule[0].replica_percentage", "keep one"),
        ("operation = \"a\"\nreplica_percentage = 101", "rule[0].replica_percentage", "0 to 100"),
        ("operation = \"a\"\nprimary_only = true\nconsistency = \"strong\"", "rule[0].consistency", "has no use"),
        ("operation = \"a\"\nconsistency = \"weak\"", "rule[0].consistency", "write session, causal"),
        ("operation = \"a\"\nconsistency = \"bounded\"", "rule[0].max_staleness", "bounded needs"),
        ("operation = \"a\"\nconsistency = \"strong\"\nmax_staleness = \"5s\"", "rule[0].max_staleness", "only"),
        ("operation = \"a\"\nprimary_only = true\ndatabase = \"b\"", "rule[0].database", "there is no database `b`"),
        ("operation = \"a\"\nprimary_only = true\nhost = \"b\"", "rule[0].host", "no such key"),
        (
            "name = \"n\"\noperation = \"a\"\nprimary_only = true\n[[rule]]\nname = \"n\"\noperation = \"b\"\nprimary_only = true",
            "rule[1].name",
            "taken by another rule",
        ),
    ] {
        problems(&ruled(keys), &[(key, says)]);
    }
    problems("rule = 5\nprimary = \"postgres://ann@db1/app\"", &[("rule", "[[rule]]")]);
}
