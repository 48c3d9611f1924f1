//! The application: a configuration becomes the wired parts; they start and stop in order.

mod control;
mod discovery;
mod placement;
mod reload;
mod wiring;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker::Broker,
    config::{Config, HostConfig},
    console::{self, ConsoleState, Readiness},
    grpc::{self, ReloadOffer, ServerSettings},
    telemetry::Metrics,
    topology::{Roster, Topology},
};

pub use control::Control;
pub use discovery::discover;
pub use placement::{leader, moves, rules};
pub use reload::{ReloadRefused, ReloadReport, Reloader};
pub use wiring::{pooler, target};

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
    control: Arc<Control>,
    reload: ReloadOffer,
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
        let mut roster = Roster::default();
        let clusters = roster.assign(wiring::cluster_specs(config));
        let databases = placement::database_specs(config, &clusters);
        let probing = wiring::probe_settings(config);
        let topology = Topology::start(clusters, probing, metrics.clone(), &stop, &tasks);
        let broker = Broker::new(
            wiring::broker_settings(config),
            &databases,
            rules(config),
            topology.clone(),
            wiring::token_key(config),
            metrics.clone(),
        );
        let (server, settings) = watch::channel(wiring::server_settings(config));
        let life = (&stop, &tasks);
        let control = Control::new(config.clone(), roster, Arc::clone(&broker), topology.clone(), server, life);
        let gauges = Arc::downgrade(&broker);
        metrics.observe(Arc::new(move || gauges.upgrade().map(|broker| broker.gauges()).unwrap_or_default()));
        let gauges = Arc::downgrade(&broker);
        metrics.observe_admission(Arc::new(move || {
            gauges.upgrade().map(|broker| broker.admission_gauges()).unwrap_or_default()
        }));
        let gauges = Arc::downgrade(&broker);
        metrics
            .observe_lanes(Arc::new(move || gauges.upgrade().map(|broker| broker.lane_gauges()).unwrap_or_default()));
        let waiting = Arc::downgrade(&broker);
        metrics.observe_waiting(Arc::new(move || {
            waiting.upgrade().map(|broker| broker.waiting_gauges()).unwrap_or_default()
        }));
        let shutdown = CancellationToken::new();
        let reload = ReloadOffer::default();
        let offer = reload.clone();
        let run = Run { broker: Arc::clone(&broker), stop, tasks, shutdown: shutdown.clone(), settings, reload: offer };
        let done = tokio::spawn(run.run(grpc_listener, http_listener, metrics));
        Ok(App { broker, topology, control: Arc::new(control), reload, grpc, http, shutdown, done })
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

    /// What is configured, and changes it while the broker runs.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Goes by this configuration from now on: see [`Control::apply`].
    ///
    /// # Errors
    /// As there.
    pub async fn apply(&self, config: Config) -> Result<ReloadReport, ReloadRefused> {
        self.control.apply(config).await
    }

    /// The hosts of a cluster, as a discovery found them: see [`Control::set_discovered`].
    pub async fn set_discovered(&self, cluster: &str, hosts: Vec<HostConfig>) {
        self.control.set_discovered(cluster, hosts).await;
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
    settings: watch::Receiver<ServerSettings>,
    reload: ReloadOffer,
}

impl Run {
    /// Stops in order: calls, then the tasks that still record outcomes, then probers; metrics are served to the end.
    async fn run(self, grpc_listener: TcpListener, http_listener: TcpListener, metrics: Metrics) {
        let readiness = {
            let broker = Arc::clone(&self.broker);
            move || {
                let (can_serve, lines) = broker.readiness();
                let (mut reasons, impaired) = if can_serve { (Vec::new(), lines) } else { (lines, Vec::new()) };
                let is_draining = broker.is_draining();
                if is_draining {
                    reasons.push("the broker is shutting down".to_owned());
                }
                Readiness { ready: can_serve && !is_draining, reasons, impaired }
            }
        };
        let router = console::router(ConsoleState { metrics, readiness: Arc::new(readiness) });
        let console = tokio::spawn(console::serve(http_listener, router, self.stop.clone().cancelled_owned()));
        let (broker, shutdown) = (Arc::clone(&self.broker), self.shutdown.cancelled_owned());
        grpc::serve(grpc_listener, broker, self.settings, self.reload, shutdown).await;
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
