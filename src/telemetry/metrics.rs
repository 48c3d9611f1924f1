//! What is counted and timed, as OpenTelemetry instruments (but for what each call counts: `calls`), rendered as
//! Prometheus text. Owns every metric's name and labels. Label values come from the configuration and from fixed lists,
//! never from callers: their number is bounded.

use std::{fmt, sync::Arc};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter, MeterProvider, UpDownCounter},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::{
    active::ActiveGuard,
    admission,
    calls::CallMetrics,
    gauges::{self, HostGauges},
    health::HealthMetrics,
    placement::PlacementCounters,
    unknown::UnknownOutcomes,
    waiting::{self, WaitingGauges},
};

/// The labels of a route.
#[derive(Debug, Clone, Copy)]
pub struct RouteLabels<'a> {
    /// The configured name of the database.
    pub database: &'a str,
    /// The cluster's name.
    pub cluster: &'a str,
    /// The host's name.
    pub host: &'a str,
    /// `primary` or `replica`.
    pub role: &'static str,
    /// The reason, such as `CAUGHT_UP`.
    pub reason: &'static str,
}

/// Every instrument. Cheap to clone; clones count into the same registry, which belongs to them alone.
#[derive(Clone)]
pub struct Metrics(pub(super) Arc<Instruments>);

pub(super) struct Instruments {
    registry: prometheus::Registry,
    pub(super) meter: Meter,
    /// Held so that the exporter stays connected.
    _provider: SdkMeterProvider,
    pub(super) calls: CallMetrics,
    rejections: Counter<u64>,
    retries: Counter<u64>,
    cancellations: Counter<u64>,
    unknown_outcomes: UnknownOutcomes,
    connections_discarded: Counter<u64>,
    connects: Counter<u64>,
    probe_failures: Counter<u64>,
    tokens_refused: Counter<u64>,
    sessions: UpDownCounter<i64>,
    transactions: UpDownCounter<i64>,
    streams: UpDownCounter<i64>,
    listeners: UpDownCounter<i64>,
    listen_streams: UpDownCounter<i64>,
    listen_gaps: Counter<u64>,
    pub(super) sheds: Counter<u64>,
    discoveries: Counter<u64>,
    placement: PlacementCounters,
    health: HealthMetrics,
    readers_waiting: UpDownCounter<i64>,
    reloads: Counter<u64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Makes the instruments and their own registry.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "an empty registry takes its first collectors")]
    pub fn new() -> Self {
        let registry = prometheus::Registry::new();
        // The names below are written out as Prometheus shows them; only `_total` is added to counters.
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_units()
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .expect("an empty registry takes its first collector");
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("tidegate");
        let counter = |name, help| meter.u64_counter(name).with_description(help).build();
        let active = |name, help| meter.i64_up_down_counter(name).with_description(help).build();
        let instruments = Instruments {
            calls: CallMetrics::new(&registry).expect("an empty registry takes its first collectors"),
            rejections: counter("tidegate_rejections", "Calls that no host could take."),
            retries: counter("tidegate_retries", "Attempts after the first."),
            cancellations: counter("tidegate_cancellations", "Statements cancelled on the server."),
            unknown_outcomes: UnknownOutcomes::new(&meter),
            connections_discarded: counter("tidegate_connections_discarded", "Connections closed instead of reused."),
            connects: counter("tidegate_connects", "Attempts to open a connection."),
            probe_failures: counter("tidegate_probe_failures", "Probes without an answer."),
            tokens_refused: counter("tidegate_position_tokens_refused", "Position tokens that were not accepted."),
            sessions: active("tidegate_sessions_active", "Open Session streams."),
            transactions: active("tidegate_transactions_open", "Open transactions."),
            streams: active("tidegate_streams_active", "Results that are being streamed."),
            listeners: active("tidegate_listeners_active", "Connections that listen."),
            listen_streams: active("tidegate_listen_streams_active", "Open Listen streams."),
            listen_gaps: counter("tidegate_listen_gaps", "Gaps that Listen streams were told of."),
            sheds: admission::sheds(&meter),
            discoveries: counter("tidegate_discoveries", "Look-ups of a cluster's hosts, by result."),
            placement: PlacementCounters::new(&meter),
            health: HealthMetrics::new(&meter),
            readers_waiting: active("tidegate_readers_waiting", "Reads that wait for a replica to catch up."),
            reloads: counter("tidegate_reloads", "Attempts to read the configuration anew."),
            registry,
            meter,
            _provider: provider,
        };
        Self(Arc::new(instruments))
    }

    pub(super) fn placement(&self) -> &PlacementCounters {
        &self.0.placement
    }

    pub(super) fn unknown_outcomes(&self) -> &UnknownOutcomes {
        &self.0.unknown_outcomes
    }

    /// No host could take a call. `database` is a configured name; for any other, pass `""`.
    pub fn rejected(&self, database: &str, reason: &'static str) {
        let labels = [KeyValue::new("database", database.to_owned()), KeyValue::new("reason", reason)];
        self.0.rejections.add(1, &labels);
    }

    /// One more attempt; `kind` is `read` or `write`.
    pub fn retried(&self, kind: &'static str) {
        self.0.retries.add(1, &[KeyValue::new("kind", kind)]);
    }

    /// A statement was cancelled; `cause` such as `deadline` or `caller`.
    pub fn cancelled(&self, cause: &'static str) {
        self.0.cancellations.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// A connection was closed instead of reused; `reason` such as `dirty`, `stale`, `bloated`.
    pub fn connection_discarded(&self, reason: &'static str) {
        self.0.connections_discarded.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A connection was opened, or was not; `result` is `ok` or the kind of failure.
    pub fn connected(&self, cluster: &str, host: &str, result: &'static str) {
        let labels = [
            KeyValue::new("cluster", cluster.to_owned()),
            KeyValue::new("host", host.to_owned()),
            KeyValue::new("result", result),
        ];
        self.0.connects.add(1, &labels);
    }

    /// A probe had no answer.
    pub fn probe_failed(&self, cluster: &str, host: &str) {
        let labels = [KeyValue::new("cluster", cluster.to_owned()), KeyValue::new("host", host.to_owned())];
        self.0.probe_failures.add(1, &labels);
    }

    /// What is counted and shown of the health of hosts.
    pub fn health(&self) -> &HealthMetrics {
        &self.0.health
    }

    /// A position token was not accepted; `reason` such as `signature` or `format`.
    pub fn position_token_refused(&self, reason: &'static str) {
        self.0.tokens_refused.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// The configuration was read anew; `result` is `applied`, `unchanged`, `refused` or `failed`.
    pub fn reloaded(&self, result: &'static str) {
        self.0.reloads.add(1, &[KeyValue::new("result", result)]);
    }

    /// A Session stream is open until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn session_active(&self) -> ActiveGuard {
        ActiveGuard::new(&self.0.sessions)
    }

    /// A transaction is open until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn transaction_open(&self) -> ActiveGuard {
        ActiveGuard::new(&self.0.transactions)
    }

    /// A result is being streamed until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn stream_active(&self) -> ActiveGuard {
        ActiveGuard::new(&self.0.streams)
    }

    /// A connection listens until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn listener_active(&self) -> ActiveGuard {
        ActiveGuard::new(&self.0.listeners)
    }

    /// A Listen stream is open until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn listen_stream_active(&self) -> ActiveGuard {
        ActiveGuard::new(&self.0.listen_streams)
    }

    /// A read waits for a replica until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn reader_waiting(&self) -> ActiveGuard {
        ActiveGuard::new(&self.0.readers_waiting)
    }

    /// A Listen stream has a gap; `reason` is `reconnect` or `overflow`.
    pub fn listen_gap(&self, reason: &'static str) {
        self.0.listen_gaps.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A cluster's hosts were looked up; `result` is `changed`, `unchanged`, `empty` or `failed`.
    pub fn discovery(&self, cluster: &str, result: &'static str) {
        let labels = [KeyValue::new("cluster", cluster.to_owned()), KeyValue::new("result", result)];
        self.0.discoveries.add(1, &labels);
    }

    /// Shows the hosts that `source` gives, at each scrape. Call it once: a second source would count twice.
    pub fn observe(&self, source: Arc<dyn Fn() -> Vec<HostGauges> + Send + Sync>) {
        gauges::register(&self.0.meter, &source);
    }

    /// Shows who waits for a primary, at each scrape. Call it once.
    pub fn observe_waiting(&self, source: Arc<dyn Fn() -> Vec<WaitingGauges> + Send + Sync>) {
        waiting::register(&self.0.meter, &source);
    }

    /// All metrics as Prometheus text (exposition format 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.0.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics do not encode");
            String::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::super::PoolGauges;
    use super::*;

    fn host(name: &str, lag_seconds: Option<f64>) -> HostGauges {
        let pool = PoolGauges { kind: "read", size: 5, idle: 2, in_use: 2, waiting: 3, limit: 10 };
        HostGauges {
            cluster: "main".to_owned(),
            host: name.to_owned(),
            role: "replica",
            up: true,
            lag_seconds,
            lag_bytes: lag_seconds.map(|_| 42),
            replay_lsn: Some(7),
            pools: vec![pool.clone(), pool],
        }
    }

    #[test]
    fn the_text_has_exactly_these_names_and_labels() {
        let metrics = Metrics::new();
        let route = RouteLabels { database: "app", cluster: "main", host: "a:1", role: "replica", reason: "CAUGHT_UP" };
        metrics.route(&route);
        metrics.rejected("app", "NO_HOSTS_AVAILABLE");
        metrics.request("ExecuteRead", "OK", Duration::from_micros(300));
        metrics.waited("replay", Duration::from_millis(3));
        metrics.retried("read");
        metrics.cancelled("deadline");
        metrics.unknown_outcome();
        let _watched = metrics.unknown_watched();
        metrics.connection_discarded("dirty");
        metrics.connected("main", "a:1", "ok");
        metrics.probe_failed("main", "a:1");
        metrics.position_token_refused("signature");
        let (_session, _transaction) = (metrics.session_active(), metrics.transaction_open());
        drop(metrics.stream_active());
        metrics.observe(Arc::new(|| vec![host("a:1", Some(0.25))]));
        let text = metrics.render();
        for line in [
            r#"tidegate_routes_total{cluster="main",database="app",host="a:1",reason="CAUGHT_UP",role="replica"} 1"#,
            r#"tidegate_rejections_total{database="app",reason="NO_HOSTS_AVAILABLE"} 1"#,
            r#"tidegate_request_duration_seconds_bucket{code="OK",method="ExecuteRead",le="0.00025"} 0"#,
            r#"tidegate_request_duration_seconds_bucket{code="OK",method="ExecuteRead",le="0.0005"} 1"#,
            r#"tidegate_request_duration_seconds_bucket{code="OK",method="ExecuteRead",le="60"} 1"#,
            r#"tidegate_request_duration_seconds_count{code="OK",method="ExecuteRead"} 1"#,
            r#"tidegate_wait_duration_seconds_count{what="replay"} 1"#,
            r#"tidegate_retries_total{kind="read"} 1"#,
            r#"tidegate_cancellations_total{cause="deadline"} 1"#,
            "tidegate_unknown_outcomes_total 1",
            "tidegate_unknown_watched 1",
            r#"tidegate_connections_discarded_total{reason="dirty"} 1"#,
            r#"tidegate_connects_total{cluster="main",host="a:1",result="ok"} 1"#,
            r#"tidegate_probe_failures_total{cluster="main",host="a:1"} 1"#,
            r#"tidegate_position_tokens_refused_total{reason="signature"} 1"#,
            "tidegate_sessions_active 1",
            "tidegate_transactions_open 1",
            "tidegate_streams_active 0",
            r#"tidegate_host_up{cluster="main",host="a:1",role="replica"} 1"#,
            r#"tidegate_replica_lag_seconds{cluster="main",host="a:1"} 0.25"#,
            r#"tidegate_replica_lag_bytes{cluster="main",host="a:1"} 42"#,
            r#"tidegate_host_wal_position_bytes{cluster="main",host="a:1",role="replica"} 7"#,
            r#"tidegate_pool_connections{cluster="main",host="a:1",pool="read",state="idle"} 4"#,
            r#"tidegate_pool_connections{cluster="main",host="a:1",pool="read",state="in_use"} 4"#,
            r#"tidegate_pool_connections{cluster="main",host="a:1",pool="read",state="other"} 2"#,
            r#"tidegate_pool_waiting{cluster="main",host="a:1",pool="read"} 6"#,
            r#"tidegate_pool_limit{cluster="main",host="a:1",pool="read"} 10"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("# TYPE tidegate_routes_total counter"), "{text}");
        assert!(text.contains("# TYPE tidegate_host_up gauge"), "{text}");
        assert!(!text.contains("otel_scope") && !text.contains("target_info"), "{text}");
    }

    #[test]
    fn what_is_gone_or_unknown_is_not_shown_any_more() {
        let hosts = Arc::new(Mutex::new(vec![host("a:1", Some(0.25)), host("b:1", Some(1.5))]));
        let metrics = Metrics::new();
        let source = Arc::clone(&hosts);
        metrics.observe(Arc::new(move || source.lock().unwrap().clone()));
        assert!(metrics.render().contains(r#"tidegate_replica_lag_seconds{cluster="main",host="b:1"} 1.5"#));
        *hosts.lock().unwrap() = vec![host("a:1", None)];
        let text = metrics.render();
        assert!(text.contains(r#"tidegate_host_up{cluster="main",host="a:1""#), "{text}");
        assert!(!text.contains("lag") && !text.contains("b:1"), "{text}");
    }

    #[test]
    fn two_brokers_in_one_process_share_nothing() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.unknown_outcome();
        assert!(one.clone().render().contains("tidegate_unknown_outcomes_total 1"));
        assert!(!other.render().contains("tidegate_unknown_outcomes_total 1"));
    }
}
