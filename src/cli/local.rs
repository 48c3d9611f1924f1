//! A local cluster with a broker in front of it, for `dev` and `demo`.

use std::{path::PathBuf, time::Duration};

use crate::{
    app::{App, StartError},
    config::{ClusterConfig, Config, ConfiguredRole, DatabaseConfig, HostConfig, PlaceConfig, PostgresUrl},
    dev::{Cluster, ClusterOptions, DevError, Server},
    model::ClusterView,
};

/// Nothing that is waited for on this machine may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What to start.
pub(super) struct LocalOptions {
    pub(super) replicas: usize,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) grpc_port: u16,
    pub(super) http_port: u16,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    #[error(transparent)]
    Cluster(#[from] DevError),
    #[error(transparent)]
    Broker(#[from] StartError),
    #[error("{flag}: cannot listen on 127.0.0.1:{port}: {error}; choose another, or 0 for any free one")]
    Port { flag: &'static str, port: u16, error: std::io::Error },
    #[error("the broker did not find its hosts: {0}")]
    NotReady(String),
}

/// Fails where the port is taken; 0 is any free one.
fn free_port(flag: &'static str, port: u16) -> Result<(), LocalError> {
    let bound = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port));
    bound.map(drop).map_err(|error| LocalError::Port { flag, port, error })
}

/// Both, running.
pub(super) struct Local {
    pub(super) cluster: Cluster,
    pub(super) app: App,
}

impl Local {
    pub(super) async fn start(options: LocalOptions) -> Result<Local, LocalError> {
        // Before anything is started for nothing.
        free_port("--grpc-port", options.grpc_port)?;
        free_port("--http-port", options.http_port)?;
        let cluster_options =
            ClusterOptions { replicas: options.replicas, data_dir: options.data_dir, ..ClusterOptions::default() };
        let cluster = Cluster::start(cluster_options).await?;
        let app = App::start(&config(&cluster, options.grpc_port, options.http_port)).await?;
        let local = Local { cluster, app };
        local.ready().await?;
        Ok(local)
    }

    /// Waits until the broker has found the primary and every replica.
    async fn ready(&self) -> Result<(), LocalError> {
        let found = self.wait_until(|view| {
            let replicas = view.hosts.iter().filter(|host| host.is_up_replica() && host.passed_sample_at.is_some());
            view.primary.is_some() && replicas.count() + 1 == view.hosts.len()
        });
        if found.await { Ok(()) } else { Err(LocalError::NotReady(self.app.broker().unready().join("; "))) }
    }

    /// Waits until what the broker knows of its cluster fulfils a condition, which is looked at whenever that changes.
    /// False if that did not happen within [`PATIENCE`].
    pub(super) async fn wait_until(&self, condition: impl Fn(&ClusterView) -> bool) -> bool {
        let topology = self.app.topology();
        let mut changes = topology.changes();
        let fulfilled = async {
            loop {
                changes.mark_unchanged();
                if topology.snapshot().clusters.iter().all(&condition) {
                    return true;
                }
                if changes.changed().await.is_err() {
                    return false; // the broker has stopped
                }
            }
        };
        tokio::time::timeout(PATIENCE, fulfilled).await.unwrap_or(false)
    }

    /// Stops the broker, then the cluster.
    pub(super) async fn stop(self) -> Result<(), DevError> {
        self.app.begin_shutdown();
        self.app.stopped().await;
        self.cluster.shutdown().await
    }
}

fn config(cluster: &Cluster, grpc_port: u16, http_port: u16) -> Config {
    let host = |server: &Server, configured_role| HostConfig {
        name: server.name().to_owned(),
        configured_role,
        url: PostgresUrl::parse(&server.url()).expect("a server of ours has a valid URL"),
        ip: None,
        pooler: None,
        place: PlaceConfig::default(),
    };
    let primary = std::iter::once(host(cluster.primary(), ConfiguredRole::Primary));
    let hosts = primary.chain(cluster.replicas().iter().map(|server| host(server, ConfiguredRole::Replica))).collect();
    let name = cluster.name().to_owned();
    let database = crate::dev::DATABASE.to_owned();
    let databases = vec![DatabaseConfig { name: database.clone(), cluster: name.clone(), dbname: database }];
    let mut config = Config::with_defaults(vec![ClusterConfig { name, hosts, discovery: None }], databases);
    config.grpc.listen.set_port(grpc_port);
    config.http.listen.set_port(http_port);
    // A stop by hand should not wait for idle clients.
    config.timeouts.drain_timeout = Duration::from_secs(3);
    config
}
