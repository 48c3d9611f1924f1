//! What every integration test starts: a PostgreSQL cluster of its own and a broker in front of it, both gone when the
//! test ends, however it ends.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tidegate::{
    app::App,
    config::{ClusterConfig, Config, ConfiguredRole, DatabaseConfig, HostConfig, PlaceConfig, PostgresUrl, Secret},
    dev::{Cluster, ClusterOptions, DATABASE, Server},
    model::ClusterView,
    postgres::KeyTable,
};
use tidegate_client::{Client, ClientBuilder, Consistency, ReadOptions, Receipt, Rows, Value};
use tokio::task::JoinSet;

/// Nothing that a test awaits may take longer: a test that would hang fails instead.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster and a broker.
pub struct Bed {
    pub cluster: Cluster,
    pub config: Config,
    app: Option<App>,
}

impl Bed {
    /// A primary, two replicas, and a broker that has found them all.
    pub async fn start() -> Bed {
        Bed::with(ClusterOptions::default(), |_| {}).await
    }

    /// The same, with another cluster or another configuration.
    pub async fn with(options: ClusterOptions, change: impl FnOnce(&mut Config)) -> Bed {
        let cluster = Cluster::start(options).await.expect("the cluster starts");
        let mut config = config_for(&cluster);
        change(&mut config);
        let mut bed = Bed { cluster, config, app: None };
        bed.start_broker().await;
        bed
    }

    /// Starts the broker (it must not run), and waits until it has found every server that runs.
    pub async fn start_broker(&mut self) {
        let app = App::start(&self.config).await.expect("the broker starts");
        self.app = Some(app);
        // A replica that had yet to replay what the primary had written when both were asked first is asked a second time.
        let patience = PATIENCE + self.config.probe.interval;
        wait_for(self.app(), patience, "the broker has found every host", || all_hosts_up(self.app())).await;
    }

    /// Starts another broker before the same servers, which has found every server that runs; stopped with [`stop`].
    pub async fn second_broker(&self, config: &Config) -> App {
        let app = App::start(config).await.expect("the second broker starts");
        wait_until(&app, "the second broker has found every host", || all_hosts_up(&app)).await;
        app
    }

    /// Stops the broker in order, and starts another with the same configuration: it remembers nothing.
    pub async fn restart_broker(&mut self) {
        self.stop_broker().await;
        self.start_broker().await;
    }

    /// Stops the broker in order.
    pub async fn stop_broker(&mut self) {
        stop(self.app.take().expect("the broker runs")).await;
    }

    /// Starts the broker (it must not run), and waits only until its first cluster looks as said.
    pub async fn start_broker_when(&mut self, what: &str, is_so: impl Fn(&ClusterView) -> bool) {
        self.app = Some(App::start(&self.config).await.expect("the broker starts"));
        self.wait_until(what, || is_so(&self.view())).await;
    }

    /// What the broker knows of its first cluster.
    pub fn view(&self) -> ClusterView {
        self.app().topology().snapshot().clusters[0].clone()
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().expect("the broker runs")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.app().grpc_address())
    }

    /// A client of the broker, on a connection of its own.
    pub async fn client(&self) -> Client {
        self.connect(Client::builder()).await
    }

    /// A client whose calls belong to a session.
    pub async fn session_client(&self, session_id: &str) -> Client {
        // Without tokens: what is tested is the broker's memory, not the client's.
        self.connect(Client::builder().session_id(session_id).remember_positions(false)).await
    }

    pub async fn connect(&self, builder: ClientBuilder) -> Client {
        builder.database(DATABASE).timeout(PATIENCE).connect(self.url()).await.expect("the broker accepts connections")
    }

    /// A client without a time limit of its own: its calls end by `timeouts.default_timeout`, however slow the machine is.
    pub async fn unlimited_client(&self, builder: ClientBuilder) -> Client {
        builder.database(DATABASE).connect(self.url()).await.expect("the broker accepts connections")
    }

    /// Makes the table of idempotency keys, as `tidegate check --init` does.
    pub async fn init_keys(&self) {
        let target = tidegate::app::target(&self.config.clusters[0].hosts[0], &self.config);
        let (mut table, _) = KeyTable::open(&target).await.expect("the primary answers");
        table.create().await.expect("the table is made");
    }

    /// What `/metrics` shows for a series, summed over the series whose name and labels contain all of `parts`.
    pub fn metric(&self, parts: &[&str]) -> f64 {
        let text = self.app().broker().metrics().render();
        let matching =
            text.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
        matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Awaits a condition on what the broker knows of its hosts: looked at whenever that changes.
    pub async fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        wait_until(self.app(), what, condition).await;
    }

    /// Waits until the broker has seen every replica replay all that the primary has written so far.
    pub async fn wait_until_caught_up(&self) {
        let insert =
            self.cluster.primary().sql("SELECT pg_current_wal_flush_lsn()").await.expect("the primary answers");
        let flushed: tidegate::model::Lsn = insert.trim().parse().expect("an LSN");
        self.wait_until("every replica has caught up", || {
            let snapshot = self.app().topology().snapshot();
            snapshot.clusters[0]
                .hosts
                .iter()
                .all(|host| !host.is_up_replica() || host.replay.is_some_and(|replay| replay >= flushed))
        })
        .await;
    }
}

fn all_hosts_up(app: &App) -> bool {
    let snapshot = app.topology().snapshot();
    snapshot.clusters.iter().all(|view| {
        // One without a primary of its own follows another's.
        view.primary_reachable
            && view.hosts.iter().all(|host| Some(host.id) == view.primary || host.passed_sample_at.is_some())
    })
}

async fn wait_until(app: &App, what: &str, condition: impl Fn() -> bool) {
    wait_for(app, PATIENCE, what, condition).await;
}

async fn wait_for(app: &App, patience: Duration, what: &str, condition: impl Fn() -> bool) {
    let mut changes = app.topology().changes();
    within_time(patience, what, async {
        loop {
            changes.mark_unchanged();
            if condition() {
                return;
            }
            changes.changed().await.expect("the monitor runs");
        }
    })
    .await;
}

/// A client of such a broker's database.
pub async fn client_of(app: &App, database: &str) -> Client {
    let url = format!("http://{}", app.grpc_address());
    Client::builder().database(database).timeout(PATIENCE).connect(url).await.expect("the broker accepts connections")
}

/// Stops a broker in order.
pub async fn stop(app: App) {
    app.begin_shutdown();
    app.stopped().await;
}

/// Awaits something that must happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_time(PATIENCE, what, future).await
}

async fn within_time<T>(patience: Duration, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(patience, future)
        .await
        .unwrap_or_else(|_| panic!("did not happen within {patience:?}: {what}"))
}

/// Awaits a condition that only asking can tell.
pub async fn poll_until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The configuration for a cluster: hosts by their names, free ports, short waits where only failures wait.
pub fn config_for(cluster: &Cluster) -> Config {
    let host = |server: &Server, configured_role| HostConfig {
        name: server.name().to_owned(),
        configured_role,
        url: PostgresUrl::parse(&server.url()).expect("a valid URL"),
        ip: None,
        pooler: None,
        place: PlaceConfig::default(),
    };
    let primary = std::iter::once(host(cluster.primary(), ConfiguredRole::Primary));
    let hosts = primary.chain(cluster.replicas().iter().map(|server| host(server, ConfiguredRole::Replica))).collect();
    let name = cluster.name().to_owned();
    let databases = vec![DatabaseConfig { name: DATABASE.into(), cluster: name.clone(), dbname: DATABASE.into() }];
    let mut config = Config::with_defaults(vec![ClusterConfig { name, hosts, discovery: None }], databases);
    config.grpc.listen.set_port(0);
    config.http.listen.set_port(0);
    config.timeouts.drain_timeout = Duration::from_secs(5);
    // A busy machine keeps a probe waiting; a host that is dead refuses it at once.
    config.probe.timeout = Duration::from_secs(10);
    // What comes back is to be known soon, and no test is to depend on how often others stalled the machine.
    config.health.quarantine = Duration::ZERO;
    config.health.slow_start = Duration::ZERO;
    config.health.lease = Duration::from_secs(600);
    config.tokens.secret = Some(Secret::new("a secret for the tests".to_owned()));
    config
}

/// For tests that watch the wire: probers that are silent meanwhile, and few connections.
pub fn quietly(config: &mut Config) {
    config.pool.connections_per_host = 2;
    // No verdicts are asked for beside what is watched.
    config.lanes.connections = 0;
    config.probe.interval = Duration::from_secs(50);
    config.probe.fast_interval = Duration::from_secs(50);
    // Long silence must not make a replica look too old.
    config.consistency.max_lag = Duration::from_secs(300);
    config.consistency.stick_timeout = Duration::from_secs(600);
}

/// Creates `counters(id int primary key, n int)` with one row.
pub async fn create_counters(bed: &Bed) {
    let client = bed.client().await;
    client
        .execute("CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)", [])
        .await
        .expect("the table is created");
    client.execute("INSERT INTO counters VALUES (1, 0)", []).await.expect("the row is inserted");
    bed.wait_until_caught_up().await;
}

/// Reads one value of type int4 or int8, with the receipt.
pub async fn read_int(client: &Client, sql: &str, options: ReadOptions) -> (i64, Receipt) {
    let rows = read_rows(client, sql, [], options).await;
    let value = rows.iter().next().expect("a row").get::<i64>(0).expect("an integer");
    (value, rows.receipt().clone())
}

pub async fn read_rows(
    client: &Client,
    sql: &str,
    params: impl IntoIterator<Item = Value>,
    options: ReadOptions,
) -> Rows {
    client.read_with(sql, params, options).await.expect("the read starts").rows().await.expect("the read ends")
}

/// The row that most tests write and read: see [`create_counters`].
pub const READ_COUNTER: &str = "SELECT n FROM counters WHERE id = 1";

/// Any healthy replica, whatever the caller has written.
pub fn eventual() -> ReadOptions {
    ReadOptions::new().consistency(Consistency::Eventual)
}

/// How many of `tasks` times `reads` reads of the counter each host has answered.
pub async fn count_by_host(
    client: &Client,
    options: &ReadOptions,
    tasks: usize,
    reads: usize,
) -> BTreeMap<String, usize> {
    let mut readers = JoinSet::new();
    for _ in 0..tasks {
        let (client, options) = (client.clone(), options.clone());
        readers.spawn(async move {
            let mut hosts = Vec::with_capacity(reads);
            for _ in 0..reads {
                hosts.push(read_int(&client, READ_COUNTER, options.clone()).await.1.host);
            }
            hosts
        });
    }
    let mut counts = BTreeMap::new();
    for host in readers.join_all().await.into_iter().flatten() {
        *counts.entry(host).or_default() += 1;
    }
    counts
}

/// Sets the counter; answers the write's position token.
pub async fn set_counter(client: &Client, n: i64) -> String {
    let sql = format!("UPDATE counters SET n = {n} WHERE id = 1");
    client.execute(&sql, []).await.expect("the write succeeds").position
}

/// Reads the counter with the default consistency.
pub async fn read_counter(client: &Client) -> (i64, Receipt) {
    read_int(client, READ_COUNTER, ReadOptions::new()).await
}

/// Reads the counter, which must be `n` every time, until a receipt is as wanted; answers that receipt.
pub async fn read_counter_until(what: &str, client: &Client, n: i64, wanted: impl Fn(&Receipt) -> bool) -> Receipt {
    within(what, async {
        loop {
            let (read, receipt) = read_counter(client).await;
            assert_eq!(read, n, "a stale read: {receipt:?}");
            if wanted(&receipt) {
                return receipt;
            }
            // A step behind the fastest probe: the broker, not the test, is to use the processor meanwhile.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

pub async fn pause_all(bed: &Bed) {
    for replica in bed.cluster.replicas() {
        replica.pause_replay().await.expect("replay pauses");
    }
}

pub async fn resume_all(bed: &Bed) {
    for replica in bed.cluster.replicas() {
        replica.resume_replay().await.expect("replay resumes");
    }
}
