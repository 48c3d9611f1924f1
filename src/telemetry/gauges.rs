//! Gauges that are read when somebody looks: hosts, lag, pools. The source is asked at each scrape.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

/// What is shown of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostGauges {
    /// The cluster's name.
    pub cluster: String,
    /// The host's name.
    pub host: String,
    /// `primary`, `replica` or `unknown`.
    pub role: &'static str,
    /// Whether it takes calls.
    pub up: bool,
    /// How far behind its primary it is, in seconds; None: unknown, or a primary.
    pub lag_seconds: Option<f64>,
    /// How much WAL it has yet to replay, in bytes; None: unknown, or a primary.
    pub lag_bytes: Option<u64>,
    /// Its replay position (a primary's insert position); None: unknown.
    pub replay_lsn: Option<u64>,
    /// Its pools.
    pub pools: Vec<PoolGauges>,
}

/// What is shown of one pool. Pools of one host and kind are added up, but for the limit, which is theirs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolGauges {
    /// `read` or `write`.
    pub kind: &'static str,
    /// Open connections.
    pub size: u32,
    /// Open and unused.
    pub idle: u32,
    /// Open and lent out.
    pub in_use: u32,
    /// Callers that wait for one.
    pub waiting: u32,
    /// The most that it may open.
    pub limit: u32,
}

/// Gives the hosts as they are now. Called at each scrape, several times: it must be cheap and must not block.
pub(super) type Source = Arc<dyn Fn() -> Vec<HostGauges> + Send + Sync>;

/// What one gauge takes from a host.
type Pick = fn(&HostGauges, &mut dyn FnMut(f64, &[KeyValue]));

/// Registers the gauges.
///
/// They are up-down counters to OpenTelemetry, gauges to Prometheus: its SDK goes on reporting the last value of
/// an observable gauge whose host is gone or whose lag is unknown, which would show a dead replica as healthy.
pub(super) fn register(meter: &Meter, source: &Source) {
    let gauges: [(&'static str, &'static str, Pick); 7] = [
        ("tidegate_host_up", "Whether the host takes calls (1) or not (0).", |host, put| {
            put(f64::from(u8::from(host.up)), &host_labels(host, true));
        }),
        ("tidegate_replica_lag_seconds", "How far the replica is behind; absent: unknown.", |host, put| {
            if let Some(seconds) = host.lag_seconds {
                put(seconds, &host_labels(host, false));
            }
        }),
        ("tidegate_replica_lag_bytes", "WAL that the replica has yet to replay; absent: unknown.", |host, put| {
            if let Some(bytes) = host.lag_bytes {
                put(bytes as f64, &host_labels(host, false));
            }
        }),
        (
            "tidegate_host_wal_position_bytes",
            "Replay position (primary: insert position); absent: unknown.",
            |host, put| {
                if let Some(lsn) = host.replay_lsn {
                    put(lsn as f64, &host_labels(host, true));
                }
            },
        ),
        ("tidegate_pool_connections", "Open connections, by state (idle, in_use).", |host, put| {
            for (kind, pool) in by_kind(host) {
                put(f64::from(pool.idle), &pool_labels(host, kind, Some("idle")));
                put(f64::from(pool.in_use), &pool_labels(host, kind, Some("in_use")));
                // Being opened, or closed but not yet counted: what is neither idle nor lent out.
                let other = pool.size.saturating_sub(pool.idle).saturating_sub(pool.in_use);
                put(f64::from(other), &pool_labels(host, kind, Some("other")));
            }
        }),
        ("tidegate_pool_waiting", "Callers that wait for a connection.", |host, put| {
            for (kind, pool) in by_kind(host) {
                put(f64::from(pool.waiting), &pool_labels(host, kind, None));
            }
        }),
        ("tidegate_pool_limit", "The most connections that may be open.", |host, put| {
            for (kind, pool) in by_kind(host) {
                put(f64::from(pool.limit), &pool_labels(host, kind, None));
            }
        }),
    ];
    for (name, help, pick) in gauges {
        let source = Arc::clone(source);
        gauge(meter, name, help, move |put| source().iter().for_each(|host| pick(host, put)));
    }
}

/// One gauge: what `show` puts at each scrape.
pub(super) fn gauge(
    meter: &Meter,
    name: &'static str,
    help: &'static str,
    show: impl Fn(&mut dyn FnMut(f64, &[KeyValue])) + Send + Sync + 'static,
) {
    let gauge = meter.f64_observable_up_down_counter(name).with_description(help);
    let shown =
        move |instrument: &dyn AsyncInstrument<f64>| show(&mut |value, labels| instrument.observe(value, labels));
    gauge.with_callback(shown).build();
}

/// A host's pools by kind: a host with several databases has several of one kind, and each label set may be
/// observed once only.
fn by_kind(host: &HostGauges) -> Vec<(&'static str, PoolGauges)> {
    let mut sums: Vec<(&'static str, PoolGauges)> = Vec::new();
    for pool in &host.pools {
        match sums.iter_mut().find(|(kind, _)| *kind == pool.kind) {
            Some((_, sum)) => {
                sum.size += pool.size;
                sum.idle += pool.idle;
                sum.in_use += pool.in_use;
                sum.waiting += pool.waiting;
                sum.limit = sum.limit.max(pool.limit);
            }
            None => sums.push((pool.kind, pool.clone())),
        }
    }
    sums
}

fn host_labels(host: &HostGauges, with_role: bool) -> Vec<KeyValue> {
    let mut labels = vec![KeyValue::new("cluster", host.cluster.clone()), KeyValue::new("host", host.host.clone())];
    if with_role {
        labels.push(KeyValue::new("role", host.role));
    }
    labels
}

fn pool_labels(host: &HostGauges, kind: &'static str, state: Option<&'static str>) -> Vec<KeyValue> {
    let mut labels = host_labels(host, false);
    labels.push(KeyValue::new("pool", kind));
    labels.extend(state.map(|state| KeyValue::new("state", state)));
    labels
}
