//! Every scalar key of the configuration, in one flat table: what exists, and what it is for.

/// A key outside `[[cluster]]` and `[[database]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// As written in the file: `section.key`, or `key` at the top.
    pub name: &'static str,
    /// What it sets, in a few words.
    pub help: &'static str,
}

impl Key {
    /// Its environment variable: `pool.max_queue` is `TIDEGATE_POOL_MAX_QUEUE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("TIDEGATE_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

/// Every scalar key.
pub const KEYS: &[Key] = &[
    Key { name: "primary", help: "URL of the primary of a single cluster, `main`" },
    Key { name: "replicas", help: "URLs of its replicas" },
    Key { name: "hosts", help: "URLs of its hosts, roles found by asking" },
    Key { name: "password", help: "for every URL that has none" },
    Key { name: "password_file", help: "a file with that password" },
    Key { name: "grpc.listen", help: "address of the gRPC port" },
    Key { name: "grpc.max_request_bytes", help: "largest request message" },
    Key { name: "grpc.max_concurrent_streams", help: "calls on one connection" },
    Key { name: "grpc.keepalive_interval", help: "between pings to a quiet client" },
    Key { name: "grpc.keepalive_timeout", help: "for the answer to a ping" },
    Key { name: "grpc.cors_origins", help: "origins that may call over gRPC-Web" },
    Key { name: "http.listen", help: "address of the HTTP port" },
    Key { name: "pool.connections_per_host", help: "connections to one host" },
    Key { name: "pool.primary_read_share", help: "share of the primary's connections for reads" },
    Key { name: "pool.transaction_share", help: "share of the writes' connections for transactions" },
    Key { name: "pool.connect_timeout", help: "time to open a connection" },
    Key { name: "pool.idle_timeout", help: "how long an unused connection stays open" },
    Key { name: "pool.max_lifetime", help: "how old a connection gets" },
    Key { name: "pool.statement_cache_size", help: "prepared statements a connection" },
    Key { name: "pool.statement_max_age", help: "how long a prepared statement is trusted" },
    Key { name: "pool.prepared_statements", help: "on, or off: a transaction-pooling proxy is in between" },
    Key { name: "pool.max_queue", help: "callers waiting in one queue, or for one primary" },
    Key { name: "pool.max_queue_age", help: "how long one may wait in it" },
    Key { name: "limits.database_concurrency", help: "calls at a time on one database" },
    Key { name: "limits.caller_concurrency", help: "of these, one caller's" },
    Key { name: "lanes.connections", help: "connections to a replica that short reads share" },
    Key { name: "lanes.depth", help: "reads in flight on one of them" },
    Key { name: "lanes.patience", help: "how long one may hold up those behind it" },
    Key { name: "consistency.stick_timeout", help: "how long a position binds reads" },
    Key { name: "consistency.max_lag", help: "a replica further behind takes no reads" },
    Key { name: "consistency.max_lag_bytes", help: "a replica with more WAL to replay takes no reads" },
    Key { name: "consistency.max_wait", help: "how long reads wait for a replica to catch up" },
    Key { name: "consistency.max_clock_skew", help: "how far brokers' clocks may differ" },
    Key { name: "consistency.slots", help: "slots of the position table" },
    Key { name: "balance.policy", help: "round-robin or least-loaded" },
    Key { name: "balance.zone", help: "the broker's zone: its hosts are preferred" },
    Key { name: "probe.interval", help: "between probes" },
    Key { name: "probe.fast_interval", help: "between probes while a replica catches up" },
    Key { name: "probe.timeout", help: "time for one answer" },
    Key { name: "health.failures", help: "failed probes until a host is down" },
    Key { name: "health.successes", help: "answers until it is back" },
    Key { name: "health.quarantine", help: "first quarantine of a host that flaps" },
    Key { name: "health.quarantine_max", help: "longest quarantine" },
    Key { name: "health.slow_start", help: "until a host that came back has its whole share" },
    Key { name: "health.lease", help: "how long a primary's role counts unconfirmed" },
    Key { name: "timeouts.default_timeout", help: "for calls without a deadline" },
    Key { name: "timeouts.stream_idle_timeout", help: "for results that nobody reads" },
    Key { name: "timeouts.drain_timeout", help: "for open calls at shutdown" },
    Key { name: "session.max_unanswered", help: "unanswered requests of one stream" },
    Key { name: "session.transaction_idle_timeout", help: "for transactions without a request" },
    Key { name: "session.max_lifetime", help: "how long one stream may live" },
    Key { name: "listen.max_streams", help: "Listen streams on one database" },
    Key { name: "results.batch_bytes", help: "size of a batch of a result" },
    Key { name: "results.max_message_bytes", help: "largest message sent" },
    Key { name: "results.max_write_result_bytes", help: "largest result of a write" },
    Key { name: "tokens.secret", help: "signs position tokens" },
    Key { name: "tokens.secret_file", help: "a file with that secret" },
    Key { name: "telemetry.log_format", help: "text or json" },
    Key { name: "telemetry.log_level", help: "level or filter" },
    Key { name: "telemetry.otlp_endpoint", help: "collector of traces" },
    Key { name: "telemetry.service_name", help: "this broker's name in traces" },
    Key { name: "runtime.threads", help: "threads that serve calls" },
    Key { name: "reload.watch", help: "on: a change of the files is taken over" },
    Key { name: "admin.token", help: "what operators show" },
    Key { name: "admin.token_file", help: "a file with that token" },
];

/// The key that a variable sets.
pub(super) fn of_variable(variable: &str) -> Option<&'static str> {
    KEYS.iter().find(|key| key.variable() == variable).map(|key| key.name)
}

/// Variables that are read elsewhere, or set by others.
///
/// Kubernetes gives every container variables of the form `NAME_SERVICE_HOST` and `NAME_PORT_7432_TCP_ADDR` for
/// every service: one called `tidegate` must not stop the broker.
pub(super) fn is_foreign_variable(variable: &str) -> bool {
    const ELSEWHERE: [&str; 4] = ["TIDEGATE_CONFIG", "TIDEGATE_PG_BIN", "TIDEGATE_PG_USER", "TIDEGATE_BROKER"];
    const PREFIXES: [&str; 3] = ["TIDEGATE_TEST_", "TIDEGATE_DEV_", "TIDEGATE_BENCH_"];
    ELSEWHERE.contains(&variable)
        || PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
        || variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || variable.split("_PORT_").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::KEYS;

    #[test]
    fn the_readme_names_every_key_and_no_other() {
        let readme = include_str!("../../README.md");
        let table = readme.split("| key | default | meaning |").nth(1).expect("the table of keys");
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `"));
        let named: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        let keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(named, keys);
    }
}
