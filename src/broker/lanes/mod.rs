//! The lanes of one host for one database: which there are, who may go on one, and when another is worth it. A lane is a
//! connection of the host's budget on which several clean, short reads are in flight at a time; what becomes of a read on it
//! is `lane`'s, and which reads try at all is `read`'s.
//!
//! A lane answers, or it does not: whatever goes wrong there, the read runs on a connection of its own instead.

mod lane;
mod read;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    Settings,
    known::{Freshness, Known},
    pools::{Connections, Granted, open},
};
use crate::{
    admission::{Account, CallLimits, CallPermit, CallerId, Limiter, Shed, Use},
    clock,
    model::{Deadline, Demotion},
    postgres::HostIdentity,
    telemetry::LaneGauges,
};
use lane::{Entered, Lane, Statement};
pub(super) use read::Begun;

const PLACE: &str = "a place among the short reads of a replica (lanes.connections, lanes.depth)";

/// With fewer in flight on each, another lane is not worth its connection.
const WORTH_ANOTHER: usize = 2;

/// After a connection could not be had, none is tried for so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How connections are shared by short reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneSettings {
    /// Lanes to one host for one database; 0: none, and no statement is taken for clean.
    pub connections: usize,
    /// Reads in flight on one lane.
    pub depth: usize,
    /// How long the read at the head of a lane may hold up those behind it.
    pub patience: Duration,
}

/// Why a read left a lane, or did not go there, and ran on a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The read at the head took too long.
    Stalled,
    /// Its result was too large.
    Large,
    /// The server refused it, or stopped it.
    Error,
    /// The connection was lost.
    Lost,
    /// The connection was not proved to see what it must.
    Unproved,
    /// There was no lane, or the statement was not prepared there yet.
    NoLane,
}

impl Left {
    const ALL: [Left; 6] = [Left::Stalled, Left::Large, Left::Error, Left::Lost, Left::Unproved, Left::NoLane];

    fn as_str(self) -> &'static str {
        match self {
            Left::Stalled => "stalled",
            Left::Large => "large",
            Left::Error => "error",
            Left::Lost => "lost",
            Left::Unproved => "unproved",
            Left::NoLane => "no_lane",
        }
    }
}

/// Why a read has no place on a lane, nor is to look elsewhere.
#[derive(Debug)]
pub(super) enum NotEntered {
    /// Its deadline has passed.
    Late,
    /// Sent away from the line.
    Shed(Shed),
}

/// What happened on a database's lanes so far.
#[derive(Debug, Default)]
pub(crate) struct LaneCounts {
    answered: AtomicU64,
    left: [AtomicU64; 6],
    pub(super) demotions: [AtomicU64; 3],
}

impl LaneCounts {
    pub(super) fn left(&self, why: Left) {
        self.left[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gauges(&self, database: &str) -> LaneGauges {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LaneGauges {
            database: database.to_owned(),
            answered: of(&self.answered),
            left: Left::ALL.map(|why| (why.as_str(), of(&self.left[why as usize]))).to_vec(),
            demotions: Demotion::ALL.map(|why| (why.as_str(), of(&self.demotions[why as usize]))).to_vec(),
            lanes: 0,
            in_flight: 0,
            waiting: 0,
        }
    }
}

/// The lanes of one host for one database.
pub(crate) struct Lanes {
    account: Arc<Account<Connections>>,
    identity: Arc<HostIdentity>,
    counts: Arc<LaneCounts>,
    limits: ArcSwap<Limits>,
    lanes: ArcSwap<Vec<Arc<Lane>>>,
    /// Held while `lanes` change.
    change: Mutex<Change>,
    /// Those who wait for a place on any.
    line: Arc<Limiter>,
    is_closed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    lanes: LaneSettings,
    max_queue: usize,
    max_queue_age: Duration,
    /// The longest that a lane goes without a reset, and a prepared statement without being prepared anew.
    max_age: Duration,
}

#[derive(Debug, Default)]
struct Change {
    is_opening: bool,
    not_before: Option<Instant>,
}

impl Limits {
    fn of(settings: &Settings) -> Limits {
        let (admission, max_age) = (&settings.admission, settings.statements.max_age);
        let (max_queue, max_queue_age) = (admission.max_queue, admission.max_queue_age);
        Limits { lanes: settings.lanes, max_queue, max_queue_age, max_age }
    }

    /// For so many lanes; without any nobody waits.
    fn of_line(&self, lanes: usize) -> CallLimits {
        let database = (lanes > 0).then_some(lanes * self.lanes.depth);
        CallLimits { database, caller: None, max_queue: self.max_queue, max_queue_age: self.max_queue_age }
    }
}

impl Lanes {
    /// None yet.
    pub(super) fn new(
        account: &Arc<Account<Connections>>,
        identity: &Arc<HostIdentity>,
        counts: &Arc<LaneCounts>,
        settings: &Settings,
    ) -> Arc<Lanes> {
        let limits = Limits::of(settings);
        Arc::new(Lanes {
            account: Arc::clone(account),
            identity: Arc::clone(identity),
            counts: Arc::clone(counts),
            line: Limiter::of(PLACE, limits.of_line(0)),
            limits: ArcSwap::from_pointee(limits),
            lanes: ArcSwap::default(),
            change: Mutex::default(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Goes by these limits from now on: lanes that are too many end, and what is in flight on them does first.
    pub(super) fn set_limits(&self, settings: &Settings) {
        let limits = Limits::of(settings);
        self.limits.store(Arc::new(limits));
        drop(self.changing(|lanes| lanes.iter().skip(limits.lanes.connections).for_each(|lane| lane.end())));
    }

    /// Takes nobody any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        drop(self.changing(|lanes| lanes.iter().for_each(|lane| lane.end())));
    }

    fn changing(&self, change: impl FnOnce(&mut Vec<Arc<Lane>>)) -> std::sync::MutexGuard<'_, Change> {
        let guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lanes = Vec::clone(&self.lanes.load());
        change(&mut lanes);
        lanes.retain(|lane| !lane.is_ending());
        let limits = self.limits.load().of_line(lanes.len());
        self.lanes.store(Arc::new(lanes));
        self.line.set_limits(limits);
        guard
    }

    /// Whether a lane of this age, and made for this epoch, is to end.
    fn is_over(&self, lane: &Lane, now: Instant) -> bool {
        lane.link.epoch() != self.identity.epoch()
            || now.saturating_duration_since(lane.began) >= self.limits.load().max_age.mul_f64(lane.life)
    }

    /// A place on a lane, once there is one, until the deadline. None: there are no lanes, or not any more. What is fresh is
    /// asked for behind the wait: schemas change meanwhile.
    pub(super) async fn enter(
        self: &Arc<Self>,
        (known, fresh): (&Arc<Known>, impl Fn() -> Freshness),
        caller: &CallerId,
        deadline: Deadline,
    ) -> Result<Option<(Entered, Arc<Statement>, Duration)>, NotEntered> {
        // What may run at once is not kept from it by a look at the clock.
        let mut entering = std::pin::pin!(self.line.enter(caller));
        let (entered, waited) = match futures_util::poll!(entering.as_mut()) {
            std::task::Poll::Ready(entered) => (entered, Duration::ZERO),
            std::task::Poll::Pending => {
                let began = clock::now();
                let entered = tokio::time::timeout_at(deadline.instant().into(), entering).await;
                (entered.map_err(|_| NotEntered::Late)?, clock::now().saturating_duration_since(began))
            }
        };
        let permit: CallPermit = entered.map_err(NotEntered::Shed)?;
        let fresh = fresh();
        let (lanes, epoch) = (self.lanes.load(), self.identity.epoch());
        let open = lanes.iter().filter(|lane| !lane.is_ending() && lane.link.epoch() == epoch);
        // Where it is not prepared yet, it will be.
        let ready = open.filter_map(|lane| lane.statement(known, fresh).map(|statement| (lane, statement)));
        let best = ready.min_by_key(|(lane, _)| lane.in_flight());
        let is_worth_another = best.as_ref().is_none_or(|(lane, _)| lane.in_flight() >= WORTH_ANOTHER);
        if is_worth_another && lanes.len() < self.limits.load().lanes.connections {
            self.open_another();
        }
        let depth = self.limits.load().lanes.depth;
        let entered = best.and_then(|(lane, statement)| Some((lane.enter(Some(permit), depth)?, statement)));
        Ok(entered.map(|(entered, statement)| (entered, statement, waited)))
    }

    /// Makes one more lane: at once of an idle connection; else its connection is waited for like a caller's, beside what
    /// goes on.
    fn open_another(self: &Arc<Self>) {
        {
            let mut change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
            let is_too_soon = change.not_before.is_some_and(|not_before| clock::now() < not_before);
            let is_closed = self.is_closed.load(Ordering::Acquire);
            if change.is_opening || is_too_soon || is_closed || self.account.share(Use::Lane) == 0 {
                return;
            }
            change.is_opening = true;
        }
        let at_once = self.account.try_take(Use::Lane).map(|grant| (grant.store().reads().checkout(), grant));
        match at_once {
            Some((Some(lease), grant)) => self.add(Some((lease, grant))),
            other => {
                let (lanes, grant) = (Arc::clone(self), other.map(|(_, grant)| grant));
                tokio::spawn(async move {
                    let grant = match grant {
                        Some(grant) => Some(grant),
                        None => lanes.account.take(Use::Lane, &CallerId::Unknown).await.ok().flatten(),
                    };
                    let granted = match grant {
                        Some(grant) => open(grant).await.ok(),
                        None => None,
                    };
                    lanes.add(granted);
                });
            }
        }
    }

    /// None: there was no connection to be had.
    fn add(self: &Arc<Self>, granted: Option<Granted>) {
        let not_before = granted.is_none().then(|| clock::now() + RETRY_AFTER);
        let mut unwanted = None;
        let mut change = self.changing(|lanes| {
            // Looked at in here: whoever changes them looks at the lanes behind it.
            let limits = self.limits.load().lanes;
            let is_wanted = !self.is_closed.load(Ordering::Acquire) && lanes.len() < limits.connections;
            match granted {
                Some(granted) if is_wanted => lanes.push(Lane::begin(self, granted, limits.patience)),
                granted => unwanted = granted,
            }
        });
        (change.is_opening, change.not_before) = (false, not_before);
        drop(change);
        if let Some((mut lease, grant)) = unwanted {
            lease.release_unused();
            // In this order: the connection is back before another may have it.
            drop(lease);
            drop(grant);
        }
    }

    /// Lets a lane that ends go.
    fn remove(&self, lane: &Arc<Lane>) {
        drop(self.changing(|lanes| lanes.retain(|other| !Arc::ptr_eq(other, lane))));
    }

    /// Lanes, reads in flight on them, and those that wait.
    pub(super) fn figures(&self) -> (usize, usize, usize) {
        let lanes = self.lanes.load();
        (lanes.len(), lanes.iter().map(|lane| lane.in_flight()).sum(), self.line.figures().1.waiting)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.lanes.load().iter().for_each(|lane| lane.end());
    }
}
