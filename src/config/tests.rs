//! Tables: precedence, defaults, all problems at once, and no secret in any output.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use super::*;

const FILES: &[(&str, &str)] =
    &[("token.secret", "0123456789abcdef-file\n"), ("empty", "\n"), ("password", "from-password-file\r\n")];

pub(super) fn load_from(file: &str, env: &[(&str, &str)], flags: &ServeFlags) -> Result<Config, Problems> {
    let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut flags = flags.clone();
    flags.config = Some("tidegate.toml".into());
    load_with(&flags, &env, &|path: &Path| match path.to_str() {
        Some("tidegate.toml") => Ok(file.to_owned()),
        Some(name) => FILES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    })
}

pub(super) fn from_file(file: &str) -> Result<Config, Problems> {
    load_from(file, &[], &ServeFlags::default())
}

/// A file that is complete but for what is added.
fn with(rest: &str) -> String {
    format!("primary = \"postgres://ann@db1/app\"\n{rest}")
}

#[track_caller]
pub(super) fn problems(file: &str, expected: &[(&str, &str)]) {
    let found = from_file(file).expect_err("there are problems");
    let found: Vec<_> = found.iter().collect();
    assert_eq!(found.len(), expected.len(), "{file}\n{found:#?}");
    for (problem, (key, says)) in found.iter().zip(expected) {
        assert_eq!(&problem.key, key, "{problem}");
        assert!(problem.message.contains(says), "{problem} does not say {says}");
    }
}

#[test]
fn two_flags_are_enough() {
    let flags = ServeFlags {
        primary: Some("postgres://ann@db1/app".to_owned()),
        replicas: vec!["postgres://ann@db2/app".to_owned(), "postgres://ann@db3:5433/app".to_owned()],
        ..ServeFlags::default()
    };
    let config = load_with(&flags, &BTreeMap::new(), &|_| Err(io::Error::from(io::ErrorKind::NotFound))).unwrap();
    assert_eq!(config.clusters.len(), 1);
    let names: Vec<_> =
        config.clusters[0].hosts.iter().map(|host| (host.name.as_str(), host.configured_role)).collect();
    assert_eq!(
        names,
        [
            ("db1:5432", ConfiguredRole::Primary),
            ("db2:5432", ConfiguredRole::Replica),
            ("db3:5433", ConfiguredRole::Replica)
        ]
    );
    let database = DatabaseConfig { name: "app".to_owned(), cluster: "main".to_owned(), dbname: "app".to_owned() };
    assert_eq!(config.databases, [database]);
    assert_eq!(config.grpc.listen.to_string(), "127.0.0.1:7432");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7433");
    assert_eq!(config.consistency, ConsistencyConfig::default());
    assert_eq!(config.tokens.secret, None);
}

#[test]
fn a_flag_wins_over_a_variable_which_wins_over_the_file() {
    let file = with("[grpc]\nlisten = \"127.0.0.1:1\"\n[pool]\nmax_queue = 1");
    let env = [("TIDEGATE_GRPC_LISTEN", "127.0.0.1:2")];
    let flags = ServeFlags { grpc_listen: Some("127.0.0.1:3".to_owned()), ..ServeFlags::default() };
    let listen = |env: &[(&str, &str)], flags: &ServeFlags| load_from(&file, env, flags).unwrap().grpc.listen.port();
    assert_eq!(listen(&[], &ServeFlags::default()), 1);
    assert_eq!(listen(&env, &ServeFlags::default()), 2);
    assert_eq!(listen(&env, &flags), 3);
    assert_eq!(listen(&[("TIDEGATE_GRPC_LISTEN", "")], &ServeFlags::default()), 1, "empty is not set");
    assert_eq!(load_from(&file, &env, &flags).unwrap().pool.max_queue, 1);
}

#[test]
fn variables_alone_are_enough() {
    let env: BTreeMap<String, String> = [
        ("TIDEGATE_PRIMARY", "postgres://ann@db1/app"),
        ("TIDEGATE_REPLICAS", "postgres://ann@db2/app, postgres://ann@db3/app postgres://ann:own@db4/app"),
        ("TIDEGATE_PASSWORD", "shared"),
        ("TIDEGATE_CONSISTENCY_STICK_TIMEOUT", "40s"),
        ("TIDEGATE_POOL_CONNECTIONS_PER_HOST", "7"),
        ("TIDEGATE_POOL_PRIMARY_READ_SHARE", "0.25"),
        ("TIDEGATE_RESULTS_BATCH_BYTES", "128KiB"),
        ("TIDEGATE_GRPC_CORS_ORIGINS", "https://a.example, http://localhost:3000"),
        ("TIDEGATE_TOKENS_SECRET", "0123456789abcdef"),
        ("TIDEGATE_TELEMETRY_LOG_FORMAT", "json"),
        ("TIDEGATE_PG_BIN", "/usr/lib"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("TIDEGATE_PORT_7432_TCP_ADDR", "10.0.0.1"),
        ("TIDEGATE_PORT", "tcp://10.0.0.1:7432"),
        ("PATH", "/bin"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let config = load_with(&ServeFlags::default(), &env, &|_| Err(io::Error::from(io::ErrorKind::NotFound))).unwrap();
    let passwords: Vec<_> =
        config.clusters[0].hosts.iter().map(|host| host.url.password.as_ref().unwrap().expose()).collect();
    assert_eq!(passwords, ["shared", "shared", "shared", "own"]);
    assert_eq!(config.consistency.stick_timeout, Duration::from_secs(40));
    assert_eq!((config.pool.connections_per_host, config.pool.primary_read_share), (7, 0.25));
    assert_eq!(config.results.batch_bytes, 128 << 10);
    assert_eq!(config.grpc.cors_origins, ["https://a.example", "http://localhost:3000"]);
    assert_eq!(config.tokens.secret.unwrap().expose(), "0123456789abcdef");
}

#[test]
fn clusters_and_databases_in_a_file() {
    let config = from_file(
        r#"
        [[cluster]]
        name = "main"
        primary = { name = "p1", url = "postgres://ann@db1/app" }
        replicas = ["postgres://ann@db2/app"]
        password_file = "password"
        [[cluster]]
        name = "other"
        hosts = ["postgres://ann@db8/reports", "postgres://ann@db9/reports"]
        [[database]]
        name = "shop"
        cluster = "main"
        dbname = "app"
        [[database]]
        name = "audit"
        cluster = "main"
        [tokens]
        secret_file = "token.secret"
        "#,
    )
    .unwrap();
    assert_eq!(config.clusters[0].hosts[0].name, "p1");
    assert_eq!(config.clusters[0].hosts[1].url.password.as_ref().unwrap().expose(), "from-password-file");
    assert_eq!(config.clusters[1].hosts[0].configured_role, ConfiguredRole::Unstated);
    let databases: Vec<_> =
        config.databases.iter().map(|d| (d.name.as_str(), d.cluster.as_str(), d.dbname.as_str())).collect();
    assert_eq!(databases, [("shop", "main", "app"), ("audit", "main", "audit"), ("reports", "other", "reports")]);
    assert_eq!(config.tokens.secret.unwrap().expose(), "0123456789abcdef-file");
}

#[test]
fn every_problem_at_once_with_its_key() {
    let file = with(
        r#"
        colour = "blue"
        [grpc]
        listen = "localhost"
        max_request_bytes = "4MB"
        cors_origins = ["example.org"]
        [pool]
        connections_per_host = 0
        primary_read_share = 1
        idle_timeout = 30
        queue = 5
        [consistency]
        slots = 1000000
        max_lag = "30s"
        [probe]
        fast_interval = "0ms"
        timeout = "4s"
        [health]
        quarantine = "6m"
        [tokens]
        secret = "short"
        [telemetry]
        log_format = "xml"
        log_level = "tidegate=loud"
        otlp_endpoint = "https://collector:4317"
        [server]
        max_queue = 1
        "#,
    );
    problems(
        &file,
        &[
            ("colour", "no such key"),
            ("pool.queue", "no such key"),
            ("server", "no such key"),
            ("grpc.cors_origins", "is not an origin"),
            ("grpc.listen", "127.0.0.1:7432"),
            ("grpc.max_request_bytes", "4MiB"),
            ("pool.connections_per_host", "2 to 10000"),
            ("pool.primary_read_share", "below 1"),
            ("pool.idle_timeout", "with a unit"),
            ("consistency.stick_timeout", "max_lag (30s) + max_clock_skew (5s) exceed stick_timeout (30s)"),
            ("consistency.slots", "1048576"),
            ("probe.fast_interval", "1ms to 1m"),
            ("health.quarantine", "6m is above health.quarantine_max"),
            ("health.lease", "5s is not above probe.interval (1s) + probe.timeout (4s)"),
            ("tokens.secret", "16 bytes"),
            ("telemetry.log_format", "text or json"),
            ("telemetry.log_level", "write a level"),
            ("telemetry.otlp_endpoint", "http://"),
        ],
    );
    let shown = from_file(&file).unwrap_err().to_string();
    assert_eq!(shown.lines().count(), 18, "one a line:\n{shown}");
}

#[test]
fn a_problem_names_the_variable_or_flag_that_made_it() {
    let env = [("TIDEGATE_PROBE_TIMEOUT", "1"), ("TIDEGATE_PROBE_TIME", "1s")];
    let flags = ServeFlags { http_listen: Some("7433".to_owned()), ..ServeFlags::default() };
    let found = load_from(&with(""), &env, &flags).unwrap_err().to_string();
    assert!(found.contains("probe.timeout:") && found.contains("(set by TIDEGATE_PROBE_TIMEOUT)"), "{found}");
    assert!(found.contains("TIDEGATE_PROBE_TIME: no such variable"), "{found}");
    assert!(found.contains("(set by --http-listen)"), "{found}");
}

#[test]
fn problems_of_clusters() {
    problems("", &[("primary", "--primary URL")]);
    problems(&with("[[cluster]]\nname = \"x\""), &[("primary", "one of the two ways")]);
    problems("replicas = []", &[("cluster[0]", "has no host")]);
    problems("[[cluster]]\nname = \"x\"", &[("cluster[0]", "has no host")]);
    problems(&with("replicas = [\"postgres://ann@db9/app\", \"nonsense\"]"), &[("replicas[1]", "PostgreSQL URL")]);
    problems(&with("hosts = [\"postgres://ann@DB1:5432/app\"]"), &[("cluster[0]", "has DB1:5432 twice")]);
    problems(
        &with("[[database]]\nname = \"a b\"\ncluster = \"x\"\n[[database]]\nname = \"app\""),
        &[("database[0].name", "not a name"), ("database[0].cluster", "no cluster `x`")],
    );
    let two = "[[cluster]]\nname = \"a\"\nhosts = [\"postgres://u@h1/app\"]\n[[cluster]]\nname = \"a\"\nhosts = [\"postgres://u@h2/app\"]\ncolour = 1";
    problems(two, &[("cluster[1].colour", "known are"), ("cluster[1].name", "taken")]);
    let same_dbname =
        two.replace("name = \"a\"\nhosts = [\"postgres://u@h2", "name = \"b\"\nhosts = [\"postgres://u@h2");
    problems(&same_dbname.replace("\ncolour = 1", ""), &[("database", "`b` needs a [[database]]")]);
    let many: Vec<_> = (0..65).map(|n| format!("\"postgres://u@h{n}/app\"")).collect();
    problems(&format!("hosts = [{}]", many.join(",")), &[("cluster[0]", "at most 64")]);
}

#[test]
fn balancing_is_read_and_its_problems_are_named() {
    let host = |rest: &str| format!("{{ name = \"r\", url = \"postgres://u@h2/app\", {rest} }}");
    let cluster = |rest: &str| {
        let replicas = format!("replicas = [{}, \"postgres://u@h3/app\"]", host(rest));
        format!("[[cluster]]\nname = \"a\"\nprimary = \"postgres://u@h1/app\"\n{replicas}\n")
    };
    let config = from_file(&format!(
        "{}[balance]\npolicy = \"least-loaded\"\nzone = \"eu-1\"\n[consistency]\nmax_lag_bytes = \"16MiB\"",
        cluster("weight = 0, zone = \"eu-1\"")
    ))
    .unwrap();
    assert_eq!(
        (config.balance.policy, config.balance.zone.as_deref()),
        (BalancePolicyConfig::LeastLoaded, Some("eu-1"))
    );
    assert_eq!(config.consistency.max_lag_bytes, Some(16 << 20));
    let places: Vec<_> = config.clusters[0].hosts.iter().map(|host| &host.place).collect();
    let default = PlaceConfig::default();
    assert_eq!(places, [&default, &PlaceConfig { weight: 0, zone: Some("eu-1".to_owned()), priority: 0 }, &default]);

    let config = from_file(&cluster("weight = 1000")).unwrap();
    assert_eq!((config.balance, config.consistency.max_lag_bytes), (BalanceConfig::default(), None));
    for weight in ["1001", "-1", "0.5", "\"1\""] {
        problems(&cluster(&format!("weight = {weight}")), &[("cluster[0].replicas[0].weight", "from 0 to 1000")]);
    }
    problems(&cluster("zone = 1"), &[("cluster[0].replicas[0].zone", "in quotes")]);
    problems(&cluster("zone = \"a b\""), &[("cluster[0].replicas[0].zone", "not a name")]);
    problems(
        &with("[balance]\npolicy = \"random\"\nzone = \"\"\n[consistency]\nmax_lag_bytes = 1"),
        &[
            ("consistency.max_lag_bytes", "1KiB"),
            ("balance.policy", "round-robin or least-loaded"),
            ("balance.zone", "not a name"),
        ],
    );
}

#[test]
fn problems_of_files() {
    problems("primary = \"postgres://ann:hunter2@db1/app\" x", &[("config", "line 1 is not TOML")]);
    problems(&with("password_file = \"empty\""), &[("password_file", "is empty")]);
    problems(&with("password_file = \"missing\"\npassword = \"x\""), &[("password", "keep one")]);
    problems(&with("[tokens]\nsecret_file = \"missing\""), &[("tokens.secret_file", "cannot read missing")]);
    problems(&with("[admin]\ntoken = \"short\""), &[("admin.token", "16 bytes")]);
    problems(&with("[admin]\ntoken = \"a token with spaces in it\""), &[("admin.token", "a space")]);
    problems(&with("grpc = 1"), &[("grpc", "is a section")]);
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = "password = \"hunter2-shared\"\nreplicas = [\"postgres://ann:hunter2@db2/app\"]\n[tokens]\nsecret = \"hunter2-0123456789\"";
    let config = from_file(&with(secrets)).unwrap();
    assert_eq!(config.clusters[0].hosts[1].url.password.as_ref().unwrap().expose(), "hunter2");
    for shown in [format!("{config:?}"), format!("{config:#?}"), config.clusters[0].hosts[1].url.to_string()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let flags = ServeFlags { primary: Some("postgres://ann:hunter2@db/app".to_owned()), ..ServeFlags::default() };
    assert_eq!(format!("{flags:?}"), "[\"--primary\"]");
    for wrong in [
        "primary = \"postgres://ann:hunter2@db1,db2/app\"",
        "primary = \"postgres://ann:hunter2@db1:x/app\"",
        "primary = [\"hunter2\"]",
        "primary = \"postgres://ann:hunter2@db1/app\ntokens = 1",
        "password = [\"hunter2\"]",
        "replicas = { hunter2 = \"hunter2\" }",
        "[tokens]\nsecret = \"hunter2\"",
        "[tokens]\nsecret = 2\nsecret_file = [\"hunter2\"]",
    ] {
        let shown = from_file(wrong).unwrap_err();
        assert!(!format!("{shown} {shown:?}").contains("hunter2"), "{wrong}: {shown}");
    }
}

#[test]
fn every_key_is_read_and_has_its_variable() {
    for key in KEYS {
        let env = [(key.variable(), "\u{1}".to_owned())];
        let shown = match load_with(&ServeFlags::default(), &env.into(), &|_| Err(io::ErrorKind::NotFound.into())) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        };
        assert!(!shown.contains("no such"), "{}: {shown}", key.name);
        // A list of hosts fails under its element's key; a password may be anything.
        let section = key.name.trim_end_matches("_file");
        assert!(shown.contains(section) || key.name == "password", "{} is not read: {shown}", key.name);
    }
}

#[test]
fn a_pooler_needs_prepared_statements_off_and_the_same_login() {
    let host = |pooler: &str| {
        let url = "postgres://ann:secret@db:5432/app";
        format!("[[cluster]]\nname = \"c\"\nprimary = {{ name = \"a\", url = \"{url}\", pooler = \"{pooler}\" }}\n")
    };
    let off = "[pool]\nprepared_statements = \"off\"\n";
    let good = format!("{off}{}", host("postgres://ann@db:6432/app?sslmode=disable"));
    let config = from_file(&good);
    let config = config.expect("a valid configuration");
    let pooler = config.clusters[0].hosts[0].pooler.as_ref().expect("a pooler");
    assert_eq!((pooler.port, pooler.password.as_ref().map(|it| it.expose())), (6432, Some("secret")));
    assert!(!config.pool.prepared_statements);
    for (text, names) in [
        (host("postgres://ann@db:6432/app"), "pool.prepared_statements: must be off: host `a` has a pooler"),
        (format!("{off}{}", host("postgres://bob@db:6432/app")), "another user or database"),
        (format!("{off}{}", host("postgres://ann@db:6432/other")), "another user or database"),
        (format!("{off}{}", host("postgres://ann@DB:5432/app")), "is url itself"),
        (format!("{off}{}", host("nowhere")), "cluster[0].primary.pooler: is not a PostgreSQL URL"),
        (format!("[pool]\nprepared_statements = \"maybe\"\n{}", host("postgres://ann@db:6432/app")), "write on or off"),
    ] {
        let problems = from_file(&text);
        let problems = problems.expect_err(&text).to_string();
        assert!(problems.contains(names), "{text}: {problems}");
    }
}

#[test]
fn a_budget_must_serve_every_database_and_limits_are_off_unless_set() {
    let databases = "[[database]]\nname = \"a\"\n[[database]]\nname = \"b\"\n";
    let pool = |connections: u32| with(&format!("[pool]\nconnections_per_host = {connections}\n{databases}"));
    problems(&pool(9), &[("pool.connections_per_host", "write at least 10")]);
    let config = from_file(&pool(10)).unwrap();
    assert_eq!((config.limits.database_concurrency, config.limits.caller_concurrency), (None, None));
    let limits = with("[limits]\ndatabase_concurrency = 0\ncaller_concurrency = 5");
    let config = from_file(&limits).unwrap();
    assert_eq!((config.limits.database_concurrency, config.limits.caller_concurrency), (None, Some(5)));
}
