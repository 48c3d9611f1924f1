//! A whole local cluster: a primary and its replicas, started together, and stopped however this process ends.

use std::{env, path::PathBuf, sync::Arc};

use futures_util::future::try_join_all;

use super::{
    basebackup,
    error::DevError,
    folder,
    installation::Installation,
    server::{Server, Site},
    settings,
    watchdog::Watchdog,
};

/// The superuser: no password on 127.0.0.1.
pub const SUPERUSER: &str = "postgres";
/// The service's role: a member of `pg_monitor`, and the owner of [`DATABASE`].
pub const USER: &str = "tidegate";
/// The password of [`USER`].
pub const PASSWORD: &str = "tidegate";
/// The database of every cluster.
pub const DATABASE: &str = "app";

pub(super) const PRIMARY: &str = "primary";

/// What kind of cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// A word for the temporary folder's name.
    pub name: String,
    /// How many streaming replicas.
    pub replicas: usize,
    /// Where the data is kept; servers of an earlier run are started again from there. None: a temporary folder, which is
    /// removed at the end.
    pub data_dir: Option<PathBuf>,
    /// More settings for every server's configuration, such as `("work_mem", "8MB")`.
    pub settings: Vec<(String, String)>,
    /// The size of WAL segments in MiB, a power of two; PostgreSQL's own is 16. Only for a new cluster.
    pub wal_segment_mb: Option<u32>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { name: "dev".into(), replicas: 2, data_dir: None, settings: Vec::new(), wal_segment_mb: None }
    }
}

/// A running cluster. When it is dropped, or its process ends in whatever way, its servers stop and a temporary folder is
/// removed; nothing waits for that except [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Cluster {
    name: String,
    folder: PathBuf,
    installation: Installation,
    /// The primary first.
    servers: Vec<Arc<Server>>,
    /// The random text that all its processes carry.
    marker: String,
    watchdog: Watchdog,
}

impl Cluster {
    /// Starts a cluster; returns once every replica streams.
    pub async fn start(options: ClusterOptions) -> Result<Self, DevError> {
        let plan = Plan::new(options).await?;
        // Before there is anything to clean up. An error below drops it, and so cleans up.
        let watchdog = Watchdog::start(&plan.marker, &plan.folder, plan.options.data_dir.is_some()).await?;
        folder::prepare(&plan.folder, &plan.installation).await?;
        folder::arrange(&plan.folder, &plan.installation).await?;
        let primary = plan.start_primary().await?;
        let replicas = (1..=plan.options.replicas).map(|number| plan.start_replica(number, &primary));
        let replicas = try_join_all(replicas).await?;
        let servers = std::iter::once(primary).chain(replicas).map(Arc::new).collect();
        let Plan { options, folder, installation, marker } = plan;
        Ok(Self { name: options.name, folder, installation, servers, marker, watchdog })
    }

    /// The name from its options.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its servers' data and logs are.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The PostgreSQL that it runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The server that was the primary at the start.
    pub fn primary(&self) -> &Arc<Server> {
        &self.servers[0]
    }

    /// The servers that were replicas at the start.
    pub fn replicas(&self) -> &[Arc<Server>] {
        &self.servers[1..]
    }

    /// The replica with this index, from 0. Panics if there are not so many.
    pub fn replica(&self, index: usize) -> &Arc<Server> {
        &self.replicas()[index]
    }

    /// All servers, the first primary first.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// A text for the command line of a further process that is to end with the cluster: whatever carries it is killed
    /// when the cluster goes, however that comes about.
    pub fn marker(&self, name: &str) -> String {
        format!("{name}{}", self.marker)
    }

    /// Stops everything, and waits until it is gone.
    pub async fn shutdown(self) -> Result<(), DevError> {
        self.watchdog.finish().await
    }
}

/// What a start goes by.
struct Plan {
    options: ClusterOptions,
    installation: Installation,
    folder: PathBuf,
    /// The random part of the text that every process of this cluster carries. It is not in the folder's name: somebody
    /// who looks into a file there must not be taken for a server.
    marker: String,
}

impl Plan {
    async fn new(options: ClusterOptions) -> Result<Self, DevError> {
        let installation = Installation::find().await?;
        let unique: u32 = rand::random();
        let folder = match &options.data_dir {
            Some(kept) => std::path::absolute(kept).map_err(DevError::io("find the current folder"))?,
            None => env::temp_dir().join(format!("tidegate-{}-{unique:08x}", options.name)),
        };
        let marker = format!("@tidegate-{:016x}", rand::random::<u64>());
        Ok(Self { options, installation, folder, marker })
    }

    fn site(&self, name: String) -> Site {
        Site {
            data: self.folder.join(&name),
            log: self.folder.join(format!("{name}.log")),
            marker: format!("{name}{}", self.marker),
            installation: self.installation.clone(),
            conf: settings::render(self.options.data_dir.is_some(), &self.options.settings),
            name,
        }
    }

    async fn start_primary(&self) -> Result<Server, DevError> {
        let site = self.site(PRIMARY.into());
        if !folder::is_data(&site.data) {
            basebackup::create(&site, self.options.wal_segment_mb).await?;
        }
        let primary = Server::first_start(site).await?;
        // Not only after initdb: an earlier run may have ended between the two.
        if primary
            .sql_in("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"))
            .await?
            .is_empty()
        {
            let roles = format!(
                "DO $$ BEGIN CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor; \
                 EXCEPTION WHEN duplicate_object THEN NULL; END $$; CREATE DATABASE {DATABASE} OWNER {USER};"
            );
            primary.sql_in("postgres", &roles).await?;
        }
        Ok(primary)
    }

    async fn start_replica(&self, number: usize, primary: &Server) -> Result<Server, DevError> {
        let site = self.site(format!("replica{number}"));
        if !folder::is_data(&site.data) {
            basebackup::copy(&site, primary.port()).await?;
        }
        basebackup::point(&site, primary.port())?;
        let replica = Server::first_start(site).await?;
        replica.wait_streaming(primary).await?;
        Ok(replica)
    }
}
