//! A TCP proxy in front of one server, in this process: it can cut clients off, let them hang, slow them down and count
//! their turns. Of PostgreSQL's protocol it knows where messages begin, to cut a connection at one.

mod connection;
mod cut;
mod door;
mod framing;
mod turns;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
};

use super::error::DevError;
pub use cut::CutAt;
use cut::Plan;
use door::Door;
use turns::Tally;
pub use turns::TurnCount;

/// Client writes within this time of each other are one turn.
const QUIET: Duration = Duration::from_millis(25);

/// A way through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// What happens to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Connections are reset.
    Cut,
    /// Connections stay, and nothing moves.
    Blackhole,
}

#[derive(Debug, Clone, Copy)]
struct Weather {
    flow: Flow,
    delay_to_server: Duration,
    delay_to_client: Duration,
}

/// What the proxy and its connections share.
#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: watch::Sender<usize>,
    /// The count that is under way, if any.
    tally: Mutex<Option<Arc<Tally>>>,
    /// The cut that was planned last, if any.
    plan: Mutex<Option<Arc<Plan>>>,
    /// Connections taken so far.
    taken: AtomicU64,
}

impl Shared {
    fn tally(&self) -> Option<Arc<Tally>> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether new connections are taken, with a signal back once it is so.
struct Order {
    open: bool,
    done: oneshot::Sender<()>,
}

/// A proxy on a port of 127.0.0.1. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    task: AbortHandle,
}

impl Proxy {
    /// Starts a proxy to `target`, which need not be there yet: a client is reset when the target cannot be reached.
    pub async fn start(target: SocketAddr) -> Result<Self, DevError> {
        let (door, port) = Door::open_anywhere()?;
        let weather = Weather { flow: Flow::Open, delay_to_server: Duration::ZERO, delay_to_client: Duration::ZERO };
        let shared = Arc::new(Shared {
            target,
            weather: watch::Sender::new(weather),
            connections: watch::Sender::new(0),
            tally: Mutex::new(None),
            plan: Mutex::new(None),
            taken: AtomicU64::new(0),
        });
        let (orders, inbox) = mpsc::channel(1);
        let task = tokio::spawn(serve(door, Arc::clone(&shared), inbox)).abort_handle();
        Ok(Self { port, shared, orders, task })
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Refuses new connections and resets the existing ones; returns once none is left.
    pub async fn cut(&self) {
        // The door first: what got in before it closed is reset by the new weather.
        self.order(false).await;
        self.set(|weather| weather.flow = Flow::Cut);
        let mut connections = self.shared.connections.subscribe();
        // The sender is ours, so this cannot fail.
        let _ = connections.wait_for(|count| *count == 0).await;
    }

    /// Takes and keeps connections, but moves nothing either way until [`restore`](Self::restore), which also delivers
    /// what was held.
    pub async fn blackhole(&self) {
        self.set(|weather| weather.flow = Flow::Blackhole);
        self.order(true).await;
    }

    /// Ends [`cut`](Self::cut) and [`blackhole`](Self::blackhole). Delays stay.
    pub async fn restore(&self) {
        self.set(|weather| weather.flow = Flow::Open);
        self.order(true).await;
    }

    /// Adds a delay to every chunk, each way; zero ends it. A chunk is what one read brings (up to 64 KiB), and the next is
    /// read when it has left: throughput suffers too.
    pub fn delay(&self, delay: Duration) {
        self.delay_one(Direction::ToServer, delay);
        self.delay_one(Direction::ToClient, delay);
    }

    /// The same one way.
    pub fn delay_one(&self, direction: Direction, delay: Duration) {
        self.set(|weather| match direction {
            Direction::ToServer => weather.delay_to_server = delay,
            Direction::ToClient => weather.delay_to_client = delay,
        });
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Counts turns until the handle is dropped; a count that is under way ends.
    ///
    /// A turn begins when a client writes after the server wrote (or first of all). While counting, what the server writes
    /// is held back until its client has written nothing for 25 ms, so that requests sent without waiting for an answer are
    /// always one turn. A Terminate message on closing counts like any write.
    pub fn count_turns(&self) -> TurnCount {
        self.count_turns_with(QUIET)
    }

    /// The same with another time of quiet.
    pub fn count_turns_with(&self, quiet: Duration) -> TurnCount {
        let tally = Arc::new(Tally::new(quiet));
        *self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&tally));
        TurnCount::new(tally)
    }

    /// How many connections were taken since the start.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::SeqCst)
    }

    /// Cuts a connection right before a protocol message that goes this way: `message` (from 0) of those that begin from
    /// now on, on all connections but the first `spared` ones. All before it is passed on. The client's side is reset;
    /// the server finds what was sent, and then its end, so a backend that is at work goes on until it looks. Replaces a
    /// cut that is planned already.
    pub fn cut_at(&self, spared: u64, direction: Direction, message: u64) -> CutAt {
        let plan = Arc::new(Plan::new(spared, direction, message));
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&plan));
        CutAt { plan }
    }

    fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.shared.weather.send_modify(change);
    }

    async fn order(&self, open: bool) {
        let (done, confirmed) = oneshot::channel();
        if self.orders.send(Order { open, done }).await.is_ok() {
            // An error means that the task ended with its runtime: nothing is taken then anyhow.
            let _ = confirmed.await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns the listener and the connections' tasks, which end with it.
        self.task.abort();
    }
}

async fn serve(mut door: Door, shared: Arc<Shared>, mut orders: mpsc::Receiver<Order>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            client = door.accept() => {
                let number = shared.taken.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(connection::run(client, number, Arc::clone(&shared)));
            }
            Some(order) = orders.recv() => {
                door = if order.open { door.opened().await } else { door.closed().await };
                let _ = order.done.send(());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
