//! The request path, readable from the top down: `read`, `write`, `session`. A call comes in typed, is bound to its
//! positions, routed by a pure decision, given a connection, executed; nothing flows back but outcomes.

mod admit;
mod await_topology;
mod blind;
mod budgets;
mod caller;
mod choose;
mod clean;
mod clean_write;
mod collect;
mod database;
mod execute;
mod failure;
mod hosts;
mod keyed;
mod known;
mod lanes;
mod listen;
mod operate;
mod overseer;
mod placement;
mod pools;
mod reach;
mod read;
mod readiness;
mod ready;
mod reason;
mod request;
mod scans;
mod seen;
mod session;
mod settle;
mod settled;
mod stream;
mod unknown;
mod wait;
mod wiring;
mod write;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Room,
    clock,
    model::{BalancePolicy, ClusterView, HostId, Lsn, Role, RouteReason, Rules},
    position::{SessionPositions, TokenKey},
    postgres::{Facts, PgError, StatementLimits},
    telemetry::{HostGauges, Metrics, PoolGauges, RouteLabels, WaitingGauges},
    topology::Topology,
};
use await_topology::Waiting;
use budgets::HostBudgets;
use database::Database;
use placement::Served;
use pools::Seat;
use wiring::Databases;

pub use admit::AdmissionSettings;
pub use database::{DatabaseSpec, HostSpec};
pub use failure::{Failure, Outcome};
pub use lanes::LaneSettings;
pub use listen::{ListenEvent, ListenRequest, ListenStream};
pub use operate::{ClusterReport, PlaceName, RouteAccount};
pub use placement::{RolloutReport, RolloutSpec};
pub use reason::Reason;
pub use request::{
    Context, ReadHeader, ReadPart, ReadRequest, ReadSummary, Receipt, StatementOutcome, StatementText, WriteRequest,
    WriteResult,
};
pub use session::{
    CopyPiece, Notice, SessionAnswer, SessionCommand, SessionEnd, SessionQueue, SessionReply, SessionRequest,
    SessionRequests, copy_pieces, session_queue,
};
pub use settled::Settled;
pub use stream::ReadStream;

// What requests and failures are made of, for the adapters above.
pub use crate::admission::CallerId;
pub use crate::postgres::{Begin, Isolation, Savepoint, ServerError};

/// Control connections that may look for the backends of unknown writes at a time.
const LOOKS: usize = 2;

/// What the request path needs of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a position binds reads.
    pub stick_timeout: Duration,
    /// A replica further behind takes no reads.
    pub max_lag: Duration,
    /// How far the clocks of brokers may differ.
    pub max_clock_skew: Duration,
    /// A replica with more bytes of WAL to replay takes no reads.
    pub max_lag_bytes: Option<u64>,
    /// How reads are shared among the replicas that may take them.
    pub balance: BalancePolicy,
    /// How long a read that says nothing of it waits for a replica to catch up.
    pub max_wait: Duration,
    /// Slots of the position table.
    pub slots: usize,
    /// Who may have a connection, and who may run.
    pub admission: AdmissionSettings,
    /// Connections that short reads share.
    pub lanes: LaneSettings,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// A connection is closed after this.
    pub max_lifetime: Duration,
    /// Prepared statements kept a connection.
    pub statements: StatementLimits,
    /// Nothing is kept prepared, nor anything else that would outlast a transaction: a proxy may stand between.
    pub pooled: bool,
    /// A result stream that nobody reads is cancelled after this.
    pub stream_idle_timeout: Duration,
    /// A part of a streamed result is cut at this many bytes.
    pub batch_bytes: usize,
    /// The largest message sent, in bytes.
    pub max_message_bytes: usize,
    /// The largest result of a write, in bytes.
    pub max_write_result_bytes: usize,
    /// Unanswered requests a session may have.
    pub max_unanswered: usize,
    /// A transaction without a request for this long is rolled back.
    pub transaction_idle_timeout: Duration,
    /// How long a session's stream may live.
    pub session_max_lifetime: Duration,
    /// Listen streams on one database.
    pub listen_max_streams: usize,
}

/// The broker: everything that one request path shares.
pub struct Broker {
    settings: ArcSwap<Settings>,
    databases: ArcSwap<Databases>,
    /// Databases that are not served any more, until their connections are closed.
    leaving: Mutex<Vec<Arc<Database>>>,
    rules: ArcSwap<Rules>,
    topology: Topology,
    budgets: HostBudgets,
    positions: SessionPositions,
    token_key: TokenKey,
    metrics: Metrics,
    scans: scans::Scans,
    /// Calls that wait for a primary.
    waiting: Waiting,
    blindness: blind::Blindness,
    /// Looks for backends of unknown writes, at a time.
    looks: Semaphore,
    /// Readers that may wait for a replica.
    waiting_readers: Arc<Room>,
    /// Sessions that were shown something that is not recorded yet.
    holds: seen::Holds,
    /// Tasks that work for callers; a drain waits for them.
    tasks: TaskTracker,
    /// Cancelled when the start is over.
    started: CancellationToken,
    /// Cancelled when a drain begins.
    draining: CancellationToken,
    /// Cancelled when it must end.
    stop: CancellationToken,
}

impl Broker {
    /// Wires a broker. Must be called inside a tokio runtime.
    pub fn new(
        settings: Settings,
        databases: &[DatabaseSpec],
        rules: Rules,
        topology: Topology,
        token_key: TokenKey,
        metrics: Metrics,
    ) -> Arc<Broker> {
        let broker = Arc::new(Broker {
            positions: SessionPositions::new(settings.slots, clock::now()),
            budgets: HostBudgets::new(&settings),
            scans: scans::Scans::default(),
            waiting: Waiting::default(),
            waiting_readers: Arc::default(),
            holds: seen::Holds::default(),
            databases: ArcSwap::default(),
            leaving: Mutex::default(),
            rules: ArcSwap::default(),
            settings: ArcSwap::from_pointee(settings.clone()),
            topology,
            token_key,
            metrics,
            blindness: blind::Blindness::default(),
            looks: Semaphore::new(LOOKS),
            tasks: TaskTracker::new(),
            started: CancellationToken::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        broker.serve(databases, rules, &settings);
        broker
    }

    /// Limits and timeouts, as they are now.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Arc<Database>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counters and histograms.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Runs work for a caller; a drain waits for it.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Checks a context by itself: the database, the session id, the tokens.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn check(&self, context: &Context) -> Result<(), Failure> {
        self.place_write(context).map(drop)
    }

    /// Idle sessions end from now on; running calls go on.
    pub fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// True once a drain began.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the tasks that work for callers have ended, or stops waiting after `limit`: true if all ended.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.tasks.close();
        let all = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        self.stop.cancel();
        all
    }

    /// The state of every host and pool, for gauges.
    pub fn gauges(&self) -> Vec<HostGauges> {
        let now = clock::now();
        let snapshot = self.topology.snapshot();
        let hosts = snapshot.clusters.iter().flat_map(|view| view.hosts.iter().map(move |host| (view, host)));
        hosts
            .map(|(view, host)| HostGauges {
                cluster: view.name.to_string(),
                host: host.name.to_string(),
                role: host.role.map_or("unknown", Role::as_str),
                up: host.health == crate::model::HostHealth::Up,
                lag_seconds: (host.role == Some(Role::Replica))
                    .then(|| view.staleness(host, now))
                    .flatten()
                    .map(|lag| lag.as_secs_f64()),
                lag_bytes: (host.role == Some(Role::Replica)).then(|| view.lag_bytes(host)).flatten(),
                replay_lsn: host.replay.map(Lsn::get),
                pools: self.pool_gauges(view, host.id),
            })
            .collect()
    }

    /// Who waits for a primary, for gauges.
    pub fn waiting_gauges(&self) -> Vec<WaitingGauges> {
        self.waiting.gauges()
    }

    fn pool_gauges(&self, view: &ClusterView, host: HostId) -> Vec<PoolGauges> {
        let databases = self.databases.load();
        let sides = databases.values().flat_map(|served| served.sides()).filter(|side| side.cluster == view.id);
        let states = sides.filter_map(|database| database.hosts.pools(host)).flat_map(|pools| {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            pools.states().map(|(purpose, state)| PoolGauges {
                kind: purpose.as_str(),
                size: count(state.in_use + state.idle),
                idle: count(state.idle),
                in_use: count(state.in_use),
                waiting: count(state.waiting),
                limit: count(state.limit),
            })
        });
        states.collect()
    }

    fn database(&self, name: &str) -> Result<Arc<Served>, Failure> {
        let databases = self.databases.load();
        if name.is_empty() {
            let mut all = databases.values();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(Arc::clone(only)),
                _ => {
                    let message =
                        format!("context.database is empty, and there are several: name one of {}", self.names());
                    Err(Failure::field(Reason::FieldMissing, "context.database", message))
                }
            };
        }
        databases.get(name).cloned().ok_or_else(|| {
            let shown: String = name.chars().take(63).collect();
            let message = format!("there is no database {shown:?} here; there is {}", self.names());
            Failure::field(Reason::DatabaseUnknown, "context.database", message)
        })
    }

    fn names(&self) -> String {
        let mut names: Vec<_> = self.databases.load().keys().map(|name| format!("{name:?}")).collect();
        names.sort();
        names.join(", ")
    }

    /// Whether that host is still the primary, its role confirmed within the lease, and these facts are of the server that
    /// is. Asked after every wait, and before a commit: a write that went to a primary which was left behind would be lost
    /// with it (rule 7).
    fn is_primary(&self, database: &Database, host: HostId, facts: &Facts) -> bool {
        let snapshot = self.topology.snapshot();
        let view = snapshot.cluster(database.cluster);
        view.timeline == facts.timeline && view.is_primary(host, facts.started_us, clock::now())
    }

    /// Whether a COMMIT may be sent; when not, the transaction is rolled back for certain.
    fn may_commit(&self, database: &Database, host: HostId, seat: &Seat) -> Result<(), Failure> {
        let refused = if seat.is_closed() {
            Failure::from_exchange(PgError::Lost("it ended before the commit".into()), Outcome::RolledBack)
        } else if self.is_primary(database, host, seat.facts()) {
            return Ok(());
        } else {
            // A promotion came between: what is committed there is lost with the branch that it is on.
            Failure::outvoted()
        };
        Err(refused.outcome(Outcome::RolledBack))
    }

    fn count_route(&self, database: &Database, receipt: &Receipt) {
        self.metrics.route(&RouteLabels {
            database: &database.name,
            cluster: &receipt.cluster,
            host: &receipt.host,
            role: receipt.role.as_str(),
            reason: receipt.reason.as_str(),
        });
    }

    fn receipt(
        &self,
        view: &ClusterView,
        host: HostId,
        reason: RouteReason,
        required: Option<Lsn>,
        attempts: u32,
        now: Instant,
    ) -> Receipt {
        let chosen = view.host(host);
        let is_primary = view.primary == Some(host);
        Receipt {
            cluster: view.name.to_string(),
            host: chosen.map(|host| host.name.to_string()).unwrap_or_default(),
            host_id: host,
            role: if is_primary { Role::Primary } else { Role::Replica },
            reason,
            timeline: view.timeline,
            required,
            replayed: chosen.filter(|_| !is_primary).and_then(|host| host.replay),
            staleness: if is_primary {
                Some(Duration::ZERO)
            } else {
                chosen.and_then(|host| view.staleness(host, now))
            },
            waited: Duration::ZERO,
            attempts,
            elsewhere: None,
        }
    }
}
