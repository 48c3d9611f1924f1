//! One lane: the reads in flight on it, in the order in which the server answers them, and the keeper that looks after it.
//! A lane cancels nothing. A read whose caller is gone, or has left it behind, is read to its end by a task of its own.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::{future::BoxFuture, task::AtomicWaker};
use tokio::runtime::Handle;

use super::{LaneCounts, Lanes, Left};
use crate::{
    admission::CallPermit,
    broker::{known::Known, pools::Granted},
    clock,
    codec::{BatchBuilder, RowBatch},
    model::{Deadline, LARGE_BYTES, Run},
    postgres::{Lane as Link, LaneRows, PgError},
};

mod keeper;
mod statements;

pub(in crate::broker) use statements::Statement;

/// Set beside the count of those in flight: nobody enters any more.
const ENDING: usize = 1 << 31;

/// What a read in line is told.
const GO_ON: u8 = 0;
const STALLED: u8 = 1;
const LATE: u8 = 2;
const LARGE: u8 = 3;

/// A connection that many reads share.
pub(in crate::broker) struct Lane {
    pub(in crate::broker) link: Link,
    pub(super) began: Instant,
    /// The version of the schema by then.
    pub(super) schema: u64,
    /// The part of the longest life that it has, so that not all of a host end at once.
    pub(super) life: f64,
    patience: Duration,
    /// How many have entered; see [`ENDING`].
    inside: AtomicUsize,
    /// Held while a read is put in line and sent, so that both have one order.
    sending: Mutex<()>,
    line: Mutex<Line>,
    statements: Mutex<statements::Statements>,
    /// Locked while something is prepared; None once the connection was given back.
    seat: tokio::sync::Mutex<Option<Granted>>,
    counts: Arc<LaneCounts>,
}

/// Those in flight.
#[derive(Default)]
struct Line {
    reads: VecDeque<Arc<InLine>>,
    /// When the last one ended.
    ended_at: Option<Instant>,
}

/// One of them.
struct InLine {
    sent_at: Instant,
    deadline: Option<Deadline>,
    /// None: something is being prepared.
    known: Option<Arc<Known>>,
    told: AtomicU8,
    waker: AtomicWaker,
    /// Its place among all that the host's lanes may take, until it ends or its lane has stalled.
    permit: Mutex<Option<CallPermit>>,
}

impl InLine {
    fn new(deadline: Option<Deadline>, known: Option<Arc<Known>>, permit: Option<CallPermit>) -> Arc<InLine> {
        Arc::new(InLine {
            sent_at: clock::now(),
            deadline,
            known,
            told: AtomicU8::new(GO_ON),
            waker: AtomicWaker::new(),
            permit: Mutex::new(permit),
        })
    }

    /// Only the first thing counts.
    fn tell(&self, what: u8) {
        if self.told.compare_exchange(GO_ON, what, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.waker.wake();
        }
    }

    fn take_permit(&self) -> Option<CallPermit> {
        lock(&self.permit).take()
    }
}

/// A place on a lane.
pub(in crate::broker) struct Entered {
    pub(in crate::broker) lane: Arc<Lane>,
    permit: Option<CallPermit>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.lane.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a result may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Room {
    /// Its rows.
    pub(in crate::broker) rows: usize,
    /// The caller's messages.
    pub(in crate::broker) message: usize,
}

/// A result that is complete.
pub(in crate::broker) struct Whole {
    pub(in crate::broker) rows: Option<RowBatch>,
    pub(in crate::broker) row_count: u64,
}

/// Why a read on a lane has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum NoResult {
    /// Its deadline has passed.
    Late,
    /// It is to run elsewhere.
    Left(Left),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lane {
    /// Makes a lane of a connection, and looks after it from now on.
    pub(super) fn begin(lanes: &Arc<Lanes>, (mut lease, grant): Granted, patience: Duration) -> Arc<Lane> {
        // Read before its reset.
        let schema = lanes.schema.current();
        let (link, begun) = lease.begin_lane(keeper::statement_timeout(patience));
        let lane = Arc::new(Lane {
            link,
            began: clock::now(),
            schema,
            life: rand::random_range(0.5..1.0),
            patience,
            inside: AtomicUsize::new(0),
            sending: Mutex::default(),
            line: Mutex::default(),
            statements: Mutex::new(statements::Statements::new()),
            seat: tokio::sync::Mutex::new(Some((lease, grant))),
            counts: Arc::clone(&lanes.counts),
        });
        keeper::keep(Arc::clone(&lane), Arc::downgrade(lanes), begun, patience);
        lane
    }

    /// Takes nobody any more; those in flight go on.
    pub(super) fn end(&self) {
        self.inside.fetch_or(ENDING, Ordering::AcqRel);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.inside.load(Ordering::Acquire) & ENDING != 0
    }

    /// Reads, and prepares, in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.inside.load(Ordering::Acquire) & !ENDING
    }

    /// A place, if there is one of so many.
    pub(super) fn enter(self: &Arc<Self>, permit: Option<CallPermit>, depth: usize) -> Option<Entered> {
        let before = self.inside.fetch_add(1, Ordering::AcqRel);
        let entered = Entered { lane: Arc::clone(self), permit };
        // Else it is given back at once.
        (before & ENDING == 0 && before < depth).then_some(entered)
    }

    fn put_in_line(&self, read: &Arc<InLine>) {
        lock(&self.line).reads.push_back(Arc::clone(read));
    }

    /// The end of a read: how long it took by itself, behind the one in front of it. None: it was not in line any more.
    fn leave_line(&self, read: &Arc<InLine>) -> Option<Duration> {
        let now = clock::now();
        let mut line = lock(&self.line);
        let at = line.reads.iter().position(|other| Arc::ptr_eq(other, read))?;
        line.reads.remove(at);
        let ended_before = line.ended_at.replace(now);
        let began = ended_before.map_or(read.sent_at, |ended| ended.max(read.sent_at));
        Some(now.saturating_duration_since(began))
    }
}

/// A place in line, left however the read ends.
struct OnLane {
    // Left first: the place on the lane is another's then.
    in_line: LinePlace,
    _entered: Entered,
    // Given back last: whoever has it next finds a place.
    _permit: Permit,
}

struct Permit(Arc<InLine>);

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.0.take_permit());
    }
}

struct LinePlace {
    lane: Arc<Lane>,
    read: Arc<InLine>,
    is_left: bool,
}

impl LinePlace {
    fn new(lane: Arc<Lane>, read: Arc<InLine>) -> LinePlace {
        LinePlace { lane, read, is_left: false }
    }

    /// As [`Lane::leave_line`].
    fn leave(&mut self) -> Option<Duration> {
        self.is_left = true;
        self.lane.leave_line(&self.read)
    }
}

impl Drop for LinePlace {
    fn drop(&mut self) {
        if !self.is_left {
            self.lane.leave_line(&self.read);
        }
    }
}

impl Entered {
    /// Sends a read: it is in line from now on.
    pub(in crate::broker) fn send(
        mut self,
        known: &Arc<Known>,
        statement: &Statement,
        params: Vec<crate::codec::Param>,
        room: Room,
        deadline: Deadline,
    ) -> LaneRead {
        let builder = statement.layout.batch();
        let lane = Arc::clone(&self.lane);
        let read = InLine::new(Some(deadline), Some(Arc::clone(known)), self.permit.take());
        let rows = lane.link.run(&statement.prepared, params);
        let in_line = LinePlace::new(Arc::clone(&lane), Arc::clone(&read));
        let on = OnLane { in_line, _entered: self, _permit: Permit(Arc::clone(&read)) };
        let mut work: BoxFuture<'static, _> = Box::pin(on.collect(rows, builder, room));
        let first = {
            let _order = lock(&lane.sending);
            lane.put_in_line(&read);
            // Sends it.
            work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        let (work, done) = match first {
            Poll::Ready(done) => (None, Some(done)),
            Poll::Pending => (Some(work), None),
        };
        LaneRead { read, work, done }
    }
}

impl OnLane {
    /// Takes the rows as they come, to the last one also when they are too many: nothing may be left for those behind.
    async fn collect(mut self, mut rows: LaneRows, mut builder: BatchBuilder, room: Room) -> Result<Whole, NoResult> {
        let (mut bytes, mut fits, mut row_count) = (0, true, 0);
        loop {
            match rows.next().await {
                Ok(Some(row)) => {
                    (bytes, row_count) = (bytes + row.size(), row_count + 1);
                    if fits && (bytes > LARGE_BYTES || builder.push_row(row.cells(), room.rows).is_err()) {
                        fits = false;
                        self.in_line.read.tell(LARGE);
                    }
                }
                Ok(None) => break,
                Err(error) => return Err(NoResult::Left(self.failed(&error))),
            }
        }
        let took = self.in_line.leave();
        let LinePlace { lane, read, .. } = &self.in_line;
        if let (Some(took), Some(known)) = (took, &read.known) {
            lane.counts.demoted(known.ran_on_lane(Run { took, bytes }, &lane.counts.crowd, lane.patience));
            if !fits && bytes <= LARGE_BYTES {
                lane.counts.demoted(known.did_not_fit(room.message));
            }
        }
        if !fits {
            return Err(NoResult::Left(Left::Large));
        }
        Ok(Whole { rows: (row_count > 0).then(|| builder.take()), row_count })
    }

    fn failed(&self, error: &PgError) -> Left {
        const STOPPED: &str = "57014";
        let LinePlace { lane, read, .. } = &self.in_line;
        // On one that was left behind the stall is counted already, and may be forgiven by now.
        if error.sqlstate() == STOPPED
            && !lane.is_ending()
            && let Some(known) = &read.known
        {
            lane.counts.demoted(known.stalled());
        }
        if error.ends_connection() {
            lane.end();
            return Left::Lost;
        }
        Left::Error
    }
}

/// A read in flight. Dropped before its end it is read to that by a task: neither those behind it nor the connection notice.
pub(in crate::broker) struct LaneRead {
    read: Arc<InLine>,
    work: Option<BoxFuture<'static, Result<Whole, NoResult>>>,
    done: Option<Result<Whole, NoResult>>,
}

impl Future for LaneRead {
    type Output = Result<Whole, NoResult>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(done) = self.done.take() {
            return Poll::Ready(done);
        }
        self.read.waker.register(context.waker());
        if let Some(work) = &mut self.work
            && let Poll::Ready(done) = work.as_mut().poll(context)
        {
            self.work = None;
            return Poll::Ready(done);
        }
        match self.read.told.load(Ordering::Acquire) {
            STALLED => Poll::Ready(Err(NoResult::Left(Left::Stalled))),
            LARGE => Poll::Ready(Err(NoResult::Left(Left::Large))),
            LATE => Poll::Ready(Err(NoResult::Late)),
            _ => Poll::Pending,
        }
    }
}

impl Drop for LaneRead {
    fn drop(&mut self) {
        // Outside of a runtime all comes to its end.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

/// Whom a keeper works for.
type Owner = Weak<Lanes>;
