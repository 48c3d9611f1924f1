//! What differs between two configurations, by key: and whether it can change while the broker runs. Shows no secret.

mod placement;

use std::fmt;

use super::{
    ClusterConfig, Config, DatabaseConfig, HostConfig, Secret,
    units::{show_bytes, show_duration},
};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key (`pool.max_queue`), or what was given (`cluster main`, `database app`).
    pub key: String,
    /// What became of it, in a few words.
    pub what: String,
    /// Whether it takes a restart.
    pub needs_restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Everything that differs: first the hosts, databases and rules, then the keys in the order of [`super::KEYS`].
#[must_use]
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Changes::default();
    clusters(&mut changes, &old.clusters, &new.clusters);
    databases(&mut changes, &old.databases, &new.databases);
    placement::rollouts(&mut changes, old, new);
    placement::rules(&mut changes, &old.rules, &new.rules);
    ports(&mut changes, old, new);
    pool(&mut changes, old, new);
    consistency(&mut changes, old, new);
    limits(&mut changes, old, new);
    rest(&mut changes, old, new);
    changes.0
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn note(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.0.push(Change { key: key.into(), what: what.into(), needs_restart: false });
    }

    /// A key that takes effect at once.
    fn live<T: PartialEq>(&mut self, key: &str, (old, new): (T, T), show: impl Fn(&T) -> String) {
        if old != new {
            self.note(key, format!("{} → {}", show(&old), show(&new)));
        }
    }

    /// A key that takes a restart.
    fn fixed<T: PartialEq>(&mut self, key: &str, (old, new): (T, T), show: impl Fn(&T) -> String) {
        let before = self.0.len();
        self.live(key, (old, new), show);
        self.0[before..].iter_mut().for_each(|change| change.needs_restart = true);
    }
}

fn clusters(changes: &mut Changes, old: &[ClusterConfig], new: &[ClusterConfig]) {
    for cluster in old.iter().filter(|old| new.iter().all(|new| new.name != old.name)) {
        changes.note(format!("cluster {}", cluster.name), "removed");
    }
    for cluster in new {
        let key = format!("cluster {}", cluster.name);
        match old.iter().find(|old| old.name == cluster.name) {
            Some(old) => {
                if old.discovery != cluster.discovery {
                    changes.note(&key, "its hosts are discovered in another way");
                }
                hosts(changes, &key, &old.hosts, &cluster.hosts);
            }
            None => changes.note(key, "added"),
        }
    }
}

fn hosts(changes: &mut Changes, cluster: &str, old: &[HostConfig], new: &[HostConfig]) {
    for host in old.iter().filter(|old| new.iter().all(|new| new.name != old.name)) {
        changes.note(cluster, format!("host {} removed", host.name));
    }
    for host in new {
        let Some(before) = old.iter().find(|old| old.name == host.name) else {
            changes.note(cluster, format!("host {} added", host.name));
            continue;
        };
        if before.url.address() != host.url.address() {
            changes.note(cluster, format!("host {} moved to {}", host.name, host.url.address()));
        } else if before.url != host.url {
            changes.note(cluster, format!("host {} has another login", host.name));
        }
        if before.pooler != host.pooler {
            changes.note(cluster, format!("host {} has another pooler", host.name));
        }
        if before.place != host.place {
            let zone = host.place.zone.as_deref().unwrap_or("none");
            changes.note(cluster, format!("host {} has weight {}, zone {zone}", host.name, host.place.weight));
        }
        if before.configured_role != host.configured_role {
            changes.note(cluster, format!("host {} is given another role", host.name));
        }
    }
}

fn databases(changes: &mut Changes, old: &[DatabaseConfig], new: &[DatabaseConfig]) {
    for database in old.iter().filter(|old| new.iter().all(|new| new.name != old.name)) {
        changes.note(format!("database {}", database.name), "removed");
    }
    for database in new {
        let key = format!("database {}", database.name);
        match old.iter().find(|old| old.name == database.name) {
            Some(old) if old == database => {}
            Some(_) => changes.note(key, format!("moved to {} in cluster {}", database.dbname, database.cluster)),
            None => changes.note(key, "added"),
        }
    }
}

fn ports(changes: &mut Changes, old: &Config, new: &Config) {
    let (grpc, to) = (&old.grpc, &new.grpc);
    changes.fixed("grpc.listen", (grpc.listen, to.listen), ToString::to_string);
    changes.live("grpc.max_request_bytes", (grpc.max_request_bytes, to.max_request_bytes), bytes);
    changes.live("grpc.max_concurrent_streams", (grpc.max_concurrent_streams, to.max_concurrent_streams), number);
    changes.live("grpc.keepalive_interval", (grpc.keepalive_interval, to.keepalive_interval), time);
    changes.live("grpc.keepalive_timeout", (grpc.keepalive_timeout, to.keepalive_timeout), time);
    changes.live("grpc.cors_origins", (&grpc.cors_origins, &to.cors_origins), |origins| format!("{origins:?}"));
    changes.fixed("http.listen", (old.http.listen, new.http.listen), ToString::to_string);
}

fn pool(changes: &mut Changes, old: &Config, new: &Config) {
    let (pool, to) = (&old.pool, &new.pool);
    changes.live("pool.connections_per_host", (pool.connections_per_host, to.connections_per_host), number);
    changes.live("pool.primary_read_share", (pool.primary_read_share, to.primary_read_share), number);
    changes.live("pool.transaction_share", (pool.transaction_share, to.transaction_share), number);
    changes.live("pool.connect_timeout", (pool.connect_timeout, to.connect_timeout), time);
    changes.live("pool.idle_timeout", (pool.idle_timeout, to.idle_timeout), time);
    changes.live("pool.max_lifetime", (pool.max_lifetime, to.max_lifetime), time);
    changes.live("pool.statement_cache_size", (pool.statement_cache_size, to.statement_cache_size), number);
    changes.live("pool.statement_max_age", (pool.statement_max_age, to.statement_max_age), time);
    changes.fixed("pool.prepared_statements", (pool.prepared_statements, to.prepared_statements), on_or_off);
    changes.live("pool.max_queue", (pool.max_queue, to.max_queue), number);
    changes.live("pool.max_queue_age", (pool.max_queue_age, to.max_queue_age), time);
    let (limits, to) = (&old.limits, &new.limits);
    let number_or_none = |limit: &Option<usize>| limit.map_or("none".to_owned(), |limit| limit.to_string());
    let calls = (limits.database_concurrency, to.database_concurrency);
    changes.live("limits.database_concurrency", calls, number_or_none);
    changes.live("limits.caller_concurrency", (limits.caller_concurrency, to.caller_concurrency), number_or_none);
    let (lanes, to) = (&old.lanes, &new.lanes);
    changes.live("lanes.connections", (lanes.connections, to.connections), number);
    changes.live("lanes.depth", (lanes.depth, to.depth), number);
    changes.live("lanes.patience", (lanes.patience, to.patience), time);
}

fn consistency(changes: &mut Changes, old: &Config, new: &Config) {
    let (rule, to) = (&old.consistency, &new.consistency);
    changes.live("consistency.stick_timeout", (rule.stick_timeout, to.stick_timeout), time);
    changes.live("consistency.max_lag", (rule.max_lag, to.max_lag), time);
    let bytes_or_none = |limit: &Option<usize>| limit.map_or("none".to_owned(), |limit| bytes(&limit));
    changes.live("consistency.max_lag_bytes", (rule.max_lag_bytes, to.max_lag_bytes), bytes_or_none);
    changes.live("consistency.max_wait", (rule.max_wait, to.max_wait), time);
    changes.live("consistency.max_clock_skew", (rule.max_clock_skew, to.max_clock_skew), time);
    changes.fixed("consistency.slots", (rule.slots, to.slots), number);
    // Its turns, and what is in flight, are counted for the life of the broker.
    changes.fixed("balance.policy", (old.balance.policy, new.balance.policy), |policy| format!("{policy:?}"));
    changes.live("balance.zone", (&old.balance.zone, &new.balance.zone), |zone| {
        zone.as_deref().unwrap_or("none").to_owned()
    });
    let (health, to_health) = (&old.health, &new.health);
    changes.live("health.failures", (health.failures, to_health.failures), number);
    changes.live("health.successes", (health.successes, to_health.successes), number);
    changes.live("health.quarantine", (health.quarantine, to_health.quarantine), time);
    changes.live("health.quarantine_max", (health.quarantine_max, to_health.quarantine_max), time);
    changes.live("health.slow_start", (health.slow_start, to_health.slow_start), time);
    changes.live("health.lease", (health.lease, to_health.lease), time);
    changes.live("probe.interval", (old.probe.interval, new.probe.interval), time);
    changes.live("probe.fast_interval", (old.probe.fast_interval, new.probe.fast_interval), time);
    changes.live("probe.timeout", (old.probe.timeout, new.probe.timeout), time);
}

fn limits(changes: &mut Changes, old: &Config, new: &Config) {
    let (limit, to) = (&old.timeouts, &new.timeouts);
    changes.live("timeouts.default_timeout", (limit.default_timeout, to.default_timeout), time);
    changes.live("timeouts.stream_idle_timeout", (limit.stream_idle_timeout, to.stream_idle_timeout), time);
    changes.live("timeouts.drain_timeout", (limit.drain_timeout, to.drain_timeout), time);
    let (session, to) = (&old.session, &new.session);
    changes.live("session.max_unanswered", (session.max_unanswered, to.max_unanswered), number);
    let idle = (session.transaction_idle_timeout, to.transaction_idle_timeout);
    changes.live("session.transaction_idle_timeout", idle, time);
    changes.live("session.max_lifetime", (session.max_lifetime, to.max_lifetime), time);
    changes.live("listen.max_streams", (old.listen.max_streams, new.listen.max_streams), number);
    let (result, to) = (&old.results, &new.results);
    changes.live("results.batch_bytes", (result.batch_bytes, to.batch_bytes), bytes);
    changes.live("results.max_message_bytes", (result.max_message_bytes, to.max_message_bytes), bytes);
    changes.live("results.max_write_result_bytes", (result.max_write_result_bytes, to.max_write_result_bytes), bytes);
}

fn rest(changes: &mut Changes, old: &Config, new: &Config) {
    // Tokens that callers hold would not be accepted any more.
    let shown = |secret: &&Option<Secret>| if secret.is_some() { "one" } else { "none" }.to_owned();
    changes.fixed("tokens.secret", (&old.tokens.secret, &new.tokens.secret), shown);
    let (telemetry, to) = (&old.telemetry, &new.telemetry);
    changes.fixed("telemetry.log_format", (telemetry.log_format, to.log_format), |format| format!("{format:?}"));
    changes.live("telemetry.log_level", (&telemetry.log_filter, &to.log_filter), ToString::to_string);
    let endpoint = (&telemetry.otlp_endpoint, &to.otlp_endpoint);
    changes.fixed("telemetry.otlp_endpoint", endpoint, |endpoint| endpoint.as_deref().unwrap_or("none").to_owned());
    changes.fixed("telemetry.service_name", (&telemetry.service_name, &to.service_name), ToString::to_string);
    let threads = (old.runtime.threads, new.runtime.threads);
    changes.fixed("runtime.threads", threads, |threads| {
        threads.map_or("one a core".to_owned(), |threads| number(&threads))
    });
    changes.live("reload.watch", (old.reload.watch, new.reload.watch), on_or_off);
    changes.live("admin.token", (&old.admin.token, &new.admin.token), shown);
}

fn time(value: &std::time::Duration) -> String {
    show_duration(*value)
}

fn bytes(value: &usize) -> String {
    show_bytes(*value as u64)
}

fn number(value: &impl fmt::Display) -> String {
    value.to_string()
}

fn on_or_off(value: &bool) -> String {
    if *value { "on" } else { "off" }.to_owned()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::config::{KEYS, PostgresUrl, Secret, ServeFlags, load};

    fn config() -> Config {
        let flags = ServeFlags { primary: Some("postgres://u@a/d".into()), ..ServeFlags::default() };
        load(&flags, &BTreeMap::new()).expect("a configuration")
    }

    fn host(name: &str, url: &str) -> HostConfig {
        let url = PostgresUrl::parse(url).expect("a URL");
        HostConfig { name: name.into(), url, ..config().clusters[0].hosts[0].clone() }
    }

    fn texts(old: &Config, new: &Config) -> Vec<String> {
        changes(old, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_differs_from_itself() {
        assert_eq!(changes(&config(), &config()), []);
    }

    /// Each key with another value, as a file would give it.
    #[test]
    fn every_key_is_compared() {
        let others = BTreeMap::from([
            ("grpc.listen", "127.0.0.1:1"),
            ("grpc.cors_origins", "https://a.example"),
            ("http.listen", "127.0.0.1:2"),
            ("pool.primary_read_share", "0.25"),
            ("pool.transaction_share", "0.25"),
            ("pool.prepared_statements", "off"),
            ("consistency.slots", "4096"),
            ("lanes.connections", "3"),
            ("lanes.depth", "7"),
            ("consistency.stick_timeout", "50s"),
            ("balance.policy", "least-loaded"),
            ("health.failures", "5"),
            ("health.successes", "5"),
            ("balance.zone", "here"),
            ("telemetry.log_format", "json"),
            ("telemetry.log_level", "debug"),
            ("telemetry.otlp_endpoint", "http://127.0.0.1:4317"),
            ("telemetry.service_name", "another"),
            ("tokens.secret", "a secret of enough bytes"),
            ("runtime.threads", "3"),
            ("reload.watch", "on"),
            ("admin.token", "a-token-of-enough-bytes"),
        ]);
        let elsewhere =
            ["primary", "replicas", "hosts", "password", "password_file", "tokens.secret_file", "admin.token_file"];
        for key in KEYS.iter().filter(|key| !elsewhere.contains(&key.name)) {
            let tried = match others.get(key.name) {
                Some(value) => vec![*value],
                None => vec!["11s", "11ms", "1111", "111111", "128KiB"],
            };
            let found = tried.into_iter().find_map(|value| {
                let env = BTreeMap::from([(key.variable(), value.to_owned())]);
                let flags = ServeFlags { primary: Some("postgres://u@a/d".into()), ..ServeFlags::default() };
                let new = load(&flags, &env).ok()?;
                Some(changes(&config(), &new).into_iter().map(|change| change.key).collect::<Vec<_>>())
            });
            assert_eq!(found, Some(vec![key.name.to_owned()]), "{} is not compared", key.name);
        }
    }

    #[test]
    fn hosts_clusters_and_databases_are_named_and_no_password_is_shown() {
        let mut old = config();
        old.clusters[0].hosts.push(host("gone", "postgres://u@gone/d"));
        old.clusters[0].hosts.push(host("moved", "postgres://u@here/d"));
        let mut new = config();
        new.clusters[0].hosts[0].url.password = Some(Secret::new("hunter2"));
        new.clusters[0].hosts.push(host("moved", "postgres://u@there/d"));
        new.clusters[0].hosts.push(host("new", "postgres://u@new/d"));
        new.clusters.push(ClusterConfig { name: "second".into(), hosts: vec![], discovery: None });
        new.databases[0].dbname = "elsewhere".into();
        new.databases.push(DatabaseConfig { name: "e".into(), cluster: "second".into(), dbname: "e".into() });
        assert_eq!(
            texts(&old, &new),
            [
                "cluster main: host gone removed",
                "cluster main: host a:5432 has another login",
                "cluster main: host moved moved to there:5432",
                "cluster main: host new added",
                "cluster second: added",
                "database d: moved to elsewhere in cluster main",
                "database e: added",
            ]
        );
        assert_eq!(texts(&new, &config())[..2], ["cluster second: removed", "cluster main: host moved removed"]);
        assert!(changes(&old, &new).iter().all(|change| !change.needs_restart));
    }

    #[test]
    fn what_takes_a_restart_says_so_and_a_secret_stays_one() {
        let mut new = config();
        new.grpc.listen.set_port(1);
        new.tokens.secret = Some(Secret::new("hunter2-hunter2-hunter2"));
        new.pool.max_queue = 7;
        new.consistency.max_lag = Duration::from_secs(3);
        let all = changes(&config(), &new);
        let fixed: Vec<_> = all.iter().filter(|change| change.needs_restart).map(|change| &*change.key).collect();
        assert_eq!(fixed, ["grpc.listen", "tokens.secret"]);
        assert!(!format!("{all:?}").contains("hunter2"), "{all:?}");
        assert!(texts(&config(), &new).contains(&"consistency.max_lag: 20s → 3s".to_owned()));
    }
}
