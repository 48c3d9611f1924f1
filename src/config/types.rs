//! The validated configuration: typed values with their defaults; no live objects.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use super::{
    AdminConfig, BalanceConfig, DiscoveryConfig, HealthConfig, PlaceConfig, PostgresUrl, ReloadConfig, RolloutConfig,
    RuleConfig, Secret, admission::LimitsConfig, lanes::LanesConfig, runtime::RuntimeConfig,
};
use crate::telemetry::TelemetrySettings;

/// Everything that a broker needs to know before it starts. Its Debug form shows no secret.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gRPC port.
    pub grpc: GrpcConfig,
    /// The HTTP port (metrics, health).
    pub http: HttpConfig,
    /// The PostgreSQL clusters: at least one; names are unique.
    pub clusters: Vec<ClusterConfig>,
    /// The databases that callers may name: at least one; names are unique, clusters exist.
    pub databases: Vec<DatabaseConfig>,
    /// The databases that are being moved to a cluster of their own: one each at most.
    pub rollouts: Vec<RolloutConfig>,
    /// Rules by operation, in their order.
    pub rules: Vec<RuleConfig>,
    /// Connection pools.
    pub pool: PoolConfig,
    /// How many calls run at a time.
    pub limits: LimitsConfig,
    /// Connections that short reads share.
    pub lanes: LanesConfig,
    /// What binds reads to a position, and for how long.
    pub consistency: ConsistencyConfig,
    /// How reads are shared among replicas.
    pub balance: BalanceConfig,
    /// How often hosts are asked.
    pub probe: ProbeConfig,
    /// When hosts get requests.
    pub health: HealthConfig,
    /// Limits on time.
    pub timeouts: TimeoutsConfig,
    /// The Session stream.
    pub session: SessionConfig,
    /// The Listen stream.
    pub listen: ListenConfig,
    /// Sizes of results.
    pub results: ResultsConfig,
    /// Position tokens.
    pub tokens: TokensConfig,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
    /// What it takes of its machine.
    pub runtime: RuntimeConfig,
    /// Reading it again while the broker runs.
    pub reload: ReloadConfig,
    /// The operator's service.
    pub admin: AdminConfig,
}

impl Config {
    /// These clusters and databases (taken as valid), and the defaults for all else.
    #[must_use]
    pub fn with_defaults(clusters: Vec<ClusterConfig>, databases: Vec<DatabaseConfig>) -> Self {
        Self {
            grpc: GrpcConfig::default(),
            http: HttpConfig::default(),
            clusters,
            databases,
            rollouts: Vec::new(),
            rules: Vec::new(),
            pool: PoolConfig::default(),
            limits: LimitsConfig::default(),
            lanes: LanesConfig::default(),
            consistency: ConsistencyConfig::default(),
            balance: BalanceConfig::default(),
            probe: ProbeConfig::default(),
            health: HealthConfig::default(),
            timeouts: TimeoutsConfig::default(),
            session: SessionConfig::default(),
            listen: ListenConfig::default(),
            results: ResultsConfig::default(),
            tokens: TokensConfig::default(),
            telemetry: TelemetrySettings::default(),
            runtime: RuntimeConfig::default(),
            reload: ReloadConfig::default(),
            admin: AdminConfig::default(),
        }
    }
}

/// The gRPC port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The largest request message, in bytes.
    pub max_request_bytes: usize,
    /// Concurrent streams (calls) on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Between two pings to a client that sends nothing.
    pub keepalive_interval: Duration,
    /// A client that answers no ping for this long is gone.
    pub keepalive_timeout: Duration,
    /// Origins whose pages may call over gRPC-Web; `*` means any; empty means none.
    pub cors_origins: Vec<String>,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7432)),
            max_request_bytes: 4 << 20,
            max_concurrent_streams: 1024,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            cors_origins: Vec::new(),
        }
    }
}

/// The HTTP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7433)) }
    }
}

/// One PostgreSQL primary and its streaming replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// At most 63 bytes of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// At most 64 hosts, names and addresses unique within the cluster; none if they are discovered.
    pub hosts: Vec<HostConfig>,
    /// How its hosts are found, if they are not listed.
    pub discovery: Option<DiscoveryConfig>,
}

impl ClusterConfig {
    /// The URLs that the configuration gives, for hosts that are listed and for those to be found.
    pub fn urls(&self) -> impl Iterator<Item = &PostgresUrl> {
        self.hosts.iter().map(|host| &host.url).chain(self.discovery.iter().map(|discovery| &discovery.url))
    }
}

/// One PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// How logs, metrics and receipts call it; `host:port` unless it was named.
    pub name: String,
    /// What the configuration takes it for: a hint. What it is, is found by asking it.
    pub configured_role: ConfiguredRole,
    /// How to reach it.
    pub url: PostgresUrl,
    /// The address of a host that was found by its name: connected to instead of what the URL's host resolves to.
    pub ip: Option<IpAddr>,
    /// The transaction-pooling proxy in front of it that calls go through: same user and database.
    pub pooler: Option<PostgresUrl>,
    /// Its part in the cluster's reads.
    pub place: PlaceConfig,
}

/// What a configuration says of a host's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfiguredRole {
    /// Given as `primary`.
    Primary,
    /// Given among `replicas`.
    Replica,
    /// Given among `hosts`.
    Unstated,
}

/// A database as callers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The name that callers use: at most 63 bytes of `[A-Za-z0-9_.-]`.
    pub name: String,
    /// The name of an existing cluster.
    pub cluster: String,
    /// The PostgreSQL database in it.
    pub dbname: String,
}

/// Connection pools.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Connections to one host, over all its databases and whatever they are for.
    pub connections_per_host: u32,
    /// The share of the primary's connections that reads may use: above 0, below 1.
    pub primary_read_share: f64,
    /// The share of the writes' connections that sessions' transactions may hold: above 0, below 1.
    pub transaction_share: f64,
    /// The time to open one connection, log-in included.
    pub connect_timeout: Duration,
    /// How long an unused connection stays open.
    pub idle_timeout: Duration,
    /// How old a connection gets.
    pub max_lifetime: Duration,
    /// Prepared statements kept for each connection: at least 1.
    pub statement_cache_size: usize,
    /// A statement that was prepared longer ago is prepared anew.
    pub statement_max_age: Duration,
    /// Whether statements are kept prepared. Off: a transaction-pooling proxy may stand in between, and nothing is left on
    /// a connection beyond a transaction.
    pub prepared_statements: bool,
    /// Callers that may wait in one queue.
    pub max_queue: usize,
    /// How long one may wait in it.
    pub max_queue_age: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            connections_per_host: 20,
            primary_read_share: 0.5,
            transaction_share: 0.75,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
            statement_cache_size: 256,
            statement_max_age: Duration::from_secs(60),
            prepared_statements: true,
            max_queue: 1024,
            max_queue_age: Duration::from_secs(10),
        }
    }
}

/// What binds reads to a position, and for how long. `max_lag + max_clock_skew <= stick_timeout` holds, so that
/// no position expires into a stale read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyConfig {
    /// How long a position binds reads after the write.
    pub stick_timeout: Duration,
    /// A replica further behind than this takes no reads.
    pub max_lag: Duration,
    /// A replica with more bytes of WAL to replay takes no reads. None: bytes do not matter.
    pub max_lag_bytes: Option<usize>,
    /// How long a read that says nothing of it waits for a replica to catch up before the primary is asked; 0: not at all.
    pub max_wait: Duration,
    /// How far the clocks of brokers may differ.
    pub max_clock_skew: Duration,
    /// Slots of the position table (16 bytes each): a power of two.
    pub slots: usize,
}

impl Default for ConsistencyConfig {
    fn default() -> Self {
        Self {
            stick_timeout: Duration::from_secs(30),
            max_lag: Duration::from_secs(20),
            max_lag_bytes: None,
            max_wait: Duration::ZERO,
            max_clock_skew: Duration::from_secs(5),
            slots: 1 << 20,
        }
    }
}

/// How often hosts are asked for their role and position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Between probes when nothing is waited for.
    pub interval: Duration,
    /// Between probes while a replica has yet to pass a write; never above `interval`.
    pub fast_interval: Duration,
    /// The time for one answer.
    pub timeout: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            fast_interval: Duration::from_millis(5),
            timeout: Duration::from_secs(2),
        }
    }
}

/// Limits on time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// For a call whose client set no deadline.
    pub default_timeout: Duration,
    /// A result stream that nobody reads for this long is cancelled.
    pub stream_idle_timeout: Duration,
    /// How long calls may go on once the broker was told to stop.
    pub drain_timeout: Duration,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(30),
            stream_idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// The Session stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Requests of one stream that may be unanswered.
    pub max_unanswered: usize,
    /// A transaction without a request for this long is rolled back.
    pub transaction_idle_timeout: Duration,
    /// How long one stream may live.
    pub max_lifetime: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            max_unanswered: 64,
            transaction_idle_timeout: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(3600),
        }
    }
}

/// The Listen stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// Streams on one database.
    pub max_streams: usize,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self { max_streams: 1000 }
    }
}

/// Sizes of results, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsConfig {
    /// A batch of a streamed result is cut once it is this large.
    pub batch_bytes: usize,
    /// The largest message sent; at least `batch_bytes`. Clients refuse more than 4 MiB unless told otherwise.
    pub max_message_bytes: usize,
    /// The largest result of a write (its RETURNING rows), which travels in one message.
    pub max_write_result_bytes: usize,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self { batch_bytes: 64 << 10, max_message_bytes: 4 << 20, max_write_result_bytes: 4 << 20 }
    }
}

/// Position tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokensConfig {
    /// What signs them: at least 16 bytes. None: the broker makes one up when it starts, and its tokens die with it.
    pub secret: Option<Secret>,
}
