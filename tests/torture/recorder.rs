//! The memory of a run: one clock for all times, every step and every answer, what the routes were, and how late the recorder
//! itself ran, so that its own lateness is not taken for the broker's.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate::clock;
use tidegate_client::{Error, HostRole, Receipt};

use super::{
    checker::GRACE,
    history::{Answer, History, Step},
};

/// How long beyond its deadline and grace a call is waited for at all.
const GIVE_UP: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// How reads went.
#[derive(Debug, Default, Clone)]
pub struct Routes {
    pub replica: u64,
    pub primary: u64,
    /// Reads on the primary by the reason that the receipt gave.
    pub why: BTreeMap<String, u64>,
}

impl Routes {
    /// Of a hundred reads, those on replicas; with one decimal.
    pub fn replica_pct(&self) -> f64 {
        let all = (self.replica + self.primary).max(1);
        (self.replica as f64 * 1000.0 / all as f64).round() / 10.0
    }

    fn count(&mut self, receipt: &Receipt) {
        if receipt.role() == HostRole::Replica {
            self.replica += 1;
        } else {
            self.primary += 1;
            let reason = receipt.reason().as_str_name().trim_start_matches("ROUTE_REASON_").to_owned();
            *self.why.entry(reason).or_default() += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    history: History,
    /// Calls by kind and outcome.
    counts: BTreeMap<String, u64>,
    all: Routes,
    calm: Routes,
}

/// Who asks what, of whom, until when.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub session: u32,
    pub broker: usize,
    pub kind: &'static str,
    /// The time that the call has.
    pub limit: Duration,
    /// When the caller leaves without waiting for the answer, if it does.
    pub leaves_after: Option<Duration>,
}

#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    kept: Mutex<Kept>,
    calls: AtomicU64,
    /// How late the timer was, in all; and when it is due next.
    starved: AtomicU64,
    due: AtomicU64,
    starved_most: AtomicU64,
    calm: AtomicBool,
    over: AtomicBool,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder {
            start: clock::now(),
            kept: Mutex::default(),
            calls: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            due: AtomicU64::new(u64::MAX),
            starved_most: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// Microseconds since the start.
    pub fn now(&self) -> u64 {
        clock::now().duration_since(self.start).as_micros() as u64
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether nothing is wrong with the cluster now, as far as the nemesis knows.
    pub fn set_calm(&self, calm: bool) {
        self.calm.store(calm, Ordering::Relaxed);
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Tells the sessions to come to an end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn step(&self, step: Step) {
        self.kept().history.steps.push(step);
    }

    /// A read outside of transactions that write: counted as calm only if all was well from its start to its end.
    pub fn route(&self, receipt: &Receipt, was_calm: bool) {
        let is_calm = was_calm && self.is_calm();
        let kept = &mut *self.kept();
        kept.all.count(receipt);
        if is_calm {
            kept.calm.count(receipt);
        }
    }

    /// Awaits a call, and records how it was answered; none if it never was, or the caller left.
    pub async fn call<T>(
        &self,
        asked: Asked,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Option<Result<T, Error>> {
        let (invoked, starved) = (self.now(), self.starved());
        let most = asked.leaves_after.unwrap_or(asked.limit + Duration::from_micros(GRACE) + GIVE_UP);
        let ended = tokio::time::timeout(most, call).await.ok();
        let (now, starved) = (self.now(), self.starved().saturating_sub(starved));
        self.calls.fetch_add(1, Ordering::Relaxed);
        let outcome = match &ended {
            Some(Ok(_)) => "ok".to_owned(),
            Some(Err(error)) => describe(error),
            None if asked.leaves_after.is_some() => "the caller left".to_owned(),
            None => "NO ANSWER".to_owned(),
        };
        let deadline = invoked + asked.limit.as_micros() as u64;
        let mut kept = self.kept();
        *kept.counts.entry(format!("{} {outcome}", asked.kind)).or_default() += 1;
        let is_late = ended.is_none() || now > deadline + GRACE;
        if is_late && asked.leaves_after.is_none() {
            let answered = ended.is_some().then_some(now);
            let Asked { session, broker, kind, .. } = asked;
            kept.history.late.push(Answer { session, broker, kind, invoked, answered, deadline, starved });
        }
        ended
    }

    /// How late the timer was by now, what it is late at this very moment included: after a standstill an answer may come to
    /// its turn before the timer does.
    fn starved(&self) -> u64 {
        self.starved.load(Ordering::Relaxed) + self.now().saturating_sub(self.due.load(Ordering::Relaxed))
    }

    /// Measures, until it is dropped, how late a task of this process wakes up.
    pub async fn watch_own_lateness(&self) {
        loop {
            // The timer's own step is a millisecond.
            let due = self.now() + TICK.as_micros() as u64 + 1000;
            self.due.store(due, Ordering::Relaxed);
            tokio::time::sleep(TICK).await;
            let late = self.now().saturating_sub(due);
            self.starved.fetch_add(late, Ordering::Relaxed);
            self.starved_most.fetch_max(late, Ordering::Relaxed);
        }
    }

    /// How late it was at most, in milliseconds.
    pub fn lateness_ms(&self) -> u64 {
        self.starved_most.load(Ordering::Relaxed) / 1000
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        self.kept().history.clone()
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.kept().counts.clone()
    }

    /// The routes of all reads, and of those while all was calm.
    pub fn routes(&self) -> (Routes, Routes) {
        let kept = self.kept();
        (kept.all.clone(), kept.calm.clone())
    }
}

/// An error in a word or two, of a fixed list.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Failed(failure) => {
            format!("{} {}", failure.reason, failure.outcome.as_str_name().trim_start_matches("OUTCOME_"))
        }
        Error::TimedOut => "the client's deadline".into(),
        Error::Connect(_) | Error::Refused(_) => "no broker".into(),
        Error::Connection(_) => "connection lost".into(),
        Error::SessionEnded => "session ended".into(),
        Error::Status(status) => format!("status {:?}", status.code()),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
    }
}
