//! The application: a configuration becomes the wired parts; they start and stop in order.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::{AdmissionSettings, Broker, DatabaseSpec, HostSpec, Settings},
    config::{BalancePolicyConfig, Config, ConfiguredRole, HostConfig, PostgresUrl, TlsMode},
    console::{self, ConsoleState, Readiness},
    grpc::{self, ServerSettings},
    model::{BalancePolicy, ClusterId, HealthSettings, HostId, Place},
    position::TokenKey,
    postgres::{StatementLimits, Target, Tls},
    telemetry::Metrics,
    topology::{ClusterSpec, ProbeSettings, Topology},
};

/// How long the work for callers that are gone may take to end.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{key}: cannot listen on {address}: {error}; choose another address")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        error: std::io::Error,
    },
}

/// A running broker.
pub struct App {
    broker: Arc<Broker>,
    topology: Topology,
    grpc: SocketAddr,
    http: SocketAddr,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

impl App {
    /// Starts everything: probers first, so that hosts are known soon; then the ports.
    ///
    /// # Errors
    /// An address that cannot be bound. Hosts that are away are no error: they may come.
    pub async fn start(config: &Config) -> Result<App, StartError> {
        let grpc_listener = listen("grpc.listen", config.grpc.listen).await?;
        let http_listener = listen("http.listen", config.http.listen).await?;
        let local = |listener: &TcpListener, asked: SocketAddr| listener.local_addr().unwrap_or(asked);
        let (grpc, http) = (local(&grpc_listener, config.grpc.listen), local(&http_listener, config.http.listen));
        let metrics = Metrics::new();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let clusters = cluster_specs(config);
        let topology = Topology::start(&clusters, probe_settings(config), metrics.clone(), &stop, &tasks);
        let broker = Broker::new(
            broker_settings(config),
            &database_specs(config),
            topology.clone(),
            token_key(config),
            metrics.clone(),
        );
        let gauges = Arc::downgrade(&broker);
        metrics.observe(Arc::new(move || gauges.upgrade().map(|broker| broker.gauges()).unwrap_or_default()));
        let gauges = Arc::downgrade(&broker);
        metrics.observe_admission(Arc::new(move || {
            gauges.upgrade().map(|broker| broker.admission_gauges()).unwrap_or_default()
        }));
        let waiting = Arc::downgrade(&broker);
        metrics.observe_waiting(Arc::new(move || {
            waiting.upgrade().map(|broker| broker.waiting_gauges()).unwrap_or_default()
        }));
        let shutdown = CancellationToken::new();
        let run = Run {
            broker: Arc::clone(&broker),
            stop,
            tasks,
            shutdown: shutdown.clone(),
            settings: server_settings(config),
        };
        let done = tokio::spawn(run.run(grpc_listener, http_listener, metrics));
        Ok(App { broker, topology, grpc, http, shutdown, done })
    }

    /// Where gRPC listens.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where metrics and health listen.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// The broker itself.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What is known of the hosts.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Begins the shutdown: new calls are refused, running ones may finish within the drain timeout.
    pub fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// Waits until the broker has stopped.
    pub async fn stopped(self) {
        // A panic in there was logged by the runtime; there is nothing left to stop.
        let _ = self.done.await;
    }
}

struct Run {
    broker: Arc<Broker>,
    stop: CancellationToken,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    settings: ServerSettings,
}

impl Run {
    /// Stops in order: calls, then the tasks that still record outcomes, then probers; metrics are served to the end.
    async fn run(self, grpc_listener: TcpListener, http_listener: TcpListener, metrics: Metrics) {
        let readiness = {
            let broker = Arc::clone(&self.broker);
            move || {
                let mut reasons = broker.unready();
                if broker.is_draining() {
                    reasons.push("the broker is shutting down".to_owned());
                }
                Readiness { ready: reasons.is_empty(), reasons }
            }
        };
        let router = console::router(ConsoleState { metrics, readiness: Arc::new(readiness) });
        let console = tokio::spawn(console::serve(http_listener, router, self.stop.clone().cancelled_owned()));
        grpc::serve(grpc_listener, Arc::clone(&self.broker), self.settings, self.shutdown.cancelled_owned()).await;
        // No caller is left; cancelled statements end, and outcomes are recorded, in a moment.
        if !self.broker.finish(FINISH_LIMIT).await {
            tracing::warn!("some calls did not end in time; their connections are closed");
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let _ = console.await;
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { key, address, error })
}

/// A host of the configuration as `postgres` takes it.
pub fn target(host: &HostConfig, config: &Config) -> Target {
    target_of(&host.url, config)
}

/// The proxy in front of a host that calls go through, if there is one.
pub fn pooler(host: &HostConfig, config: &Config) -> Option<Target> {
    host.pooler.as_ref().map(|url| target_of(url, config))
}

fn target_of(url: &PostgresUrl, config: &Config) -> Target {
    Target {
        host: url.host.clone(),
        port: url.port,
        user: url.user.clone(),
        password: url.password.as_ref().map(|password| password.expose().to_owned()),
        dbname: url.dbname.clone(),
        tls: match url.tls {
            TlsMode::Disable => Tls::Disable,
            TlsMode::Prefer => Tls::Prefer,
            TlsMode::Require => Tls::Require,
            TlsMode::VerifyFull => Tls::VerifyFull,
        },
        connect_timeout: config.pool.connect_timeout,
        application_name: url.application_name.clone().unwrap_or_else(|| "tidegate".to_owned()),
    }
}

fn cluster_specs(config: &Config) -> Vec<ClusterSpec> {
    let hosts = |hosts: &[HostConfig]| hosts.iter().map(|host| (host.name.clone(), target(host, config))).collect();
    let primary = |hosts: &[HostConfig]| {
        let index = hosts.iter().position(|host| host.configured_role == ConfiguredRole::Primary);
        index.map(|index| HostId::new(index as u16))
    };
    config
        .clusters
        .iter()
        .map(|cluster| ClusterSpec {
            name: cluster.name.clone(),
            hosts: hosts(&cluster.hosts),
            places: cluster.hosts.iter().map(|host| place(host, config)).collect(),
            configured_primary: primary(&cluster.hosts),
        })
        .collect()
}

fn place(host: &HostConfig, config: &Config) -> Place {
    let own_zone = config.balance.zone.as_ref();
    Place { weight: host.place.weight, is_near: own_zone.is_none() || host.place.zone.as_ref() == own_zone }
}

fn database_specs(config: &Config) -> Vec<DatabaseSpec> {
    let host = |host: &HostConfig| HostSpec {
        name: host.name.clone(),
        target: target(host, config),
        pooler: pooler(host, config),
    };
    let spec = |database: &crate::config::DatabaseConfig| {
        // Validation proved that the cluster exists.
        let index = config.clusters.iter().position(|cluster| cluster.name == database.cluster)?;
        Some(DatabaseSpec {
            name: database.name.clone(),
            cluster: ClusterId::new(index as u16),
            cluster_name: database.cluster.clone(),
            dbname: database.dbname.clone(),
            hosts: config.clusters[index].hosts.iter().map(host).collect(),
        })
    };
    config.databases.iter().filter_map(spec).collect()
}

fn probe_settings(config: &Config) -> ProbeSettings {
    ProbeSettings {
        interval: config.probe.interval,
        fast_interval: config.probe.fast_interval,
        timeout: config.probe.timeout,
        stick_timeout: config.consistency.stick_timeout,
        lease: config.health.lease,
        health: HealthSettings {
            failures: config.health.failures,
            successes: config.health.successes,
            quarantine: config.health.quarantine,
            quarantine_max: config.health.quarantine_max,
            slow_start: config.health.slow_start,
        },
    }
}

fn broker_settings(config: &Config) -> Settings {
    Settings {
        stick_timeout: config.consistency.stick_timeout,
        max_lag: config.consistency.max_lag,
        max_clock_skew: config.consistency.max_clock_skew,
        max_lag_bytes: config.consistency.max_lag_bytes.map(|bytes| bytes as u64),
        balance: match config.balance.policy {
            BalancePolicyConfig::RoundRobin => BalancePolicy::RoundRobin,
            BalancePolicyConfig::LeastLoaded => BalancePolicy::LeastLoaded,
        },
        max_wait: config.consistency.max_wait,
        slots: config.consistency.slots,
        admission: AdmissionSettings {
            connections_per_host: config.pool.connections_per_host,
            primary_read_share: config.pool.primary_read_share,
            transaction_share: config.pool.transaction_share,
            max_queue: config.pool.max_queue,
            max_queue_age: config.pool.max_queue_age,
            database_concurrency: config.limits.database_concurrency,
            caller_concurrency: config.limits.caller_concurrency,
        },
        idle_timeout: config.pool.idle_timeout,
        max_lifetime: config.pool.max_lifetime,
        statements: StatementLimits {
            size: NonZeroUsize::new(config.pool.statement_cache_size).unwrap_or(NonZeroUsize::MIN),
            max_age: config.pool.statement_max_age,
        },
        pooled: !config.pool.prepared_statements,
        stream_idle_timeout: config.timeouts.stream_idle_timeout,
        batch_bytes: config.results.batch_bytes,
        max_message_bytes: config.results.max_message_bytes,
        max_write_result_bytes: config.results.max_write_result_bytes,
        max_unanswered: config.session.max_unanswered,
        transaction_idle_timeout: config.session.transaction_idle_timeout,
        session_max_lifetime: config.session.max_lifetime,
        listen_max_streams: config.listen.max_streams,
    }
}

fn server_settings(config: &Config) -> ServerSettings {
    ServerSettings {
        max_request_bytes: config.grpc.max_request_bytes,
        max_concurrent_streams: config.grpc.max_concurrent_streams,
        keepalive_interval: config.grpc.keepalive_interval,
        keepalive_timeout: config.grpc.keepalive_timeout,
        cors_origins: config.grpc.cors_origins.clone(),
        default_timeout: config.timeouts.default_timeout,
        max_message_bytes: config.results.max_message_bytes,
        drain_timeout: config.timeouts.drain_timeout,
    }
}

/// Without a configured secret the key is made up: its tokens are good for this broker and its life only.
fn token_key(config: &Config) -> TokenKey {
    match &config.tokens.secret {
        Some(secret) => TokenKey::from_secret(secret.expose().as_bytes()),
        None => {
            tracing::info!("tokens.secret is not set: position tokens are good for this broker alone, until it stops");
            TokenKey::from_secret(&rand::random::<[u8; 32]>())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{admission::BudgetLimits, config};

    #[test]
    fn the_configuration_asks_for_what_admission_needs() {
        for databases in 0..10 {
            assert_eq!(config::connections_min(databases), BudgetLimits::connections_min(databases));
        }
    }
}
