//! The wait for a primary: of calls that need one while there is none, or that failed on the one there was. Those who
//! wait are woken by the monitor when it has found another, and go on spread over a moment; they are few enough to find
//! room in the queue for its connections.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::Instrument;

use super::{
    Broker, Failure, Outcome, Reason,
    caller::{Caller, Interrupted},
    choose::Chooser,
    database::Database,
};
use crate::{
    admission::{Room, Stay},
    clock,
    model::{Backoff, ClusterId, Deadline, Primacy},
    telemetry::WaitingGauges,
    topology::Topology,
};

/// Between two attempts on the same primary: at most this first, then twice as much, up to the second figure.
pub(super) const BACKOFF_BASE: Duration = Duration::from_millis(50);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// What will hardly pass by itself is tried for so long, and so often, at least.
const REFUSED_PATIENCE: Duration = Duration::from_secs(3);
const REFUSED_ATTEMPTS: u32 = 4;
/// When a primary was found, those who waited go on within this for each of them, but all within the other.
const SPREAD_EACH: Duration = Duration::from_micros(100);
const SPREAD_MAX: Duration = Duration::from_millis(100);
/// The probers are asked for a primary this often while somebody waits; after a while more rarely: a hundredth of the time
/// that it has taken so far.
const SEEK_MIN: Duration = Duration::from_millis(20);
const SEEK_MAX: Duration = Duration::from_millis(200);

/// What a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
        }
    }
}

/// One cluster's: reads never take the place of writes.
struct Rooms {
    name: Arc<str>,
    reads: Arc<Room>,
    writes: Arc<Room>,
    /// Whether a task has the probers look for a primary.
    is_sought: AtomicBool,
}

/// The waiting rooms of every cluster that somebody has waited for.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<ClusterId, Arc<Rooms>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClusterId, Arc<Rooms>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms(&self, database: &Database) -> Arc<Rooms> {
        let mut all = self.lock();
        let rooms = all.entry(database.cluster).or_insert_with(|| {
            let is_sought = AtomicBool::new(false);
            let name = Arc::clone(&database.cluster_name);
            Arc::new(Rooms { name, reads: Arc::default(), writes: Arc::default(), is_sought })
        });
        Arc::clone(rooms)
    }

    /// Who waits, for gauges.
    pub(super) fn gauges(&self) -> Vec<WaitingGauges> {
        let now = clock::now();
        let kinds = |rooms: &Rooms| {
            [(Kind::Read, &rooms.reads), (Kind::Write, &rooms.writes)].map(|(kind, room)| WaitingGauges {
                cluster: rooms.name.to_string(),
                kind: kind.as_str(),
                waiting: room.len(),
                oldest: room.age(now),
            })
        };
        self.lock().values().map(Arc::as_ref).flat_map(kinds).collect()
    }

    /// Takes a place, one of `pool.max_queue` for reads and as many for writes, and sees to it that a primary is looked for.
    fn enter(&self, broker: &Broker, database: &Database, kind: Kind) -> Result<Stay, Failure> {
        let rooms = self.rooms(database);
        let room = if kind == Kind::Write { &rooms.writes } else { &rooms.reads };
        let limit = broker.settings().admission.max_queue;
        let place = room.enter(limit, clock::now()).ok_or_else(|| Failure::crowded(&rooms.name, limit))?;
        if !rooms.is_sought.swap(true, Ordering::SeqCst) {
            let seek = Arc::clone(&rooms).seek(broker.topology.clone(), database.cluster);
            // For all who wait: the first one's trace is not its own.
            broker.tasks.spawn(seek.instrument(tracing::Span::none()));
        }
        Ok(place)
    }

    /// How long one of those who wait stays behind when all may go.
    fn spread(&self, cluster: ClusterId) -> Duration {
        spread(self.lock().get(&cluster).map_or(0, |rooms| rooms.len()), rand::random())
    }
}

impl Rooms {
    /// Has the probers ask until nobody waits any more.
    async fn seek(self: Arc<Self>, topology: Topology, cluster: ClusterId) {
        let began = clock::now();
        loop {
            topology.seek_primary(cluster);
            let taken = clock::now().saturating_duration_since(began);
            tokio::time::sleep((taken / 100).clamp(SEEK_MIN, SEEK_MAX)).await;
            if self.len() > 0 {
                continue;
            }
            self.is_sought.store(false, Ordering::SeqCst);
            // Who came in between saw it as sought; who comes now does not.
            if self.len() == 0 || self.is_sought.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    fn len(&self) -> usize {
        self.reads.len() + self.writes.len()
    }
}

/// One call's patience, from its first attempt to its last.
pub(super) struct Patience<'a> {
    broker: &'a Broker,
    database: &'a Database,
    caller: &'a Caller,
    kind: Kind,
    backoff: Backoff,
    /// What there was before the attempt that failed.
    seen: Primacy,
    /// Attempts so far.
    pub(super) attempts: u32,
    refused_until: Option<Deadline>,
    /// Whether a read of it was under way on a host that went away.
    has_lost: bool,
    place: Option<Stay>,
    began: Instant,
}

impl<'a> Patience<'a> {
    /// Before the first attempt.
    pub(super) fn new(broker: &'a Broker, database: &'a Database, caller: &'a Caller, kind: Kind) -> Patience<'a> {
        let began = clock::now();
        Patience {
            broker,
            database,
            caller,
            kind,
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_MAX),
            seen: primacy(broker, database),
            attempts: 1,
            refused_until: Some(Deadline::after(began, REFUSED_PATIENCE)),
            has_lost: false,
            place: None,
            began,
        }
    }

    /// What will hardly pass by itself is tried until the deadline too.
    pub(super) fn endless(mut self, endless: bool) -> Patience<'a> {
        self.refused_until = self.refused_until.filter(|_| !endless);
        self
    }

    /// After a failed attempt: waits until another one may do better. The error is the caller's when none would, or when
    /// its time is up.
    pub(super) async fn wait_for_change(&mut self, failure: Failure) -> Result<(), Failure> {
        let changes = self.broker.topology.primary_changes();
        self.wait(failure, changes, || false).await
    }

    /// The same for a read, which a replica may also do for.
    pub(super) async fn wait_for_a_host(&mut self, failure: Failure, chooser: &Chooser<'_>) -> Result<(), Failure> {
        let changes = self.broker.topology.changes();
        self.wait(failure, changes, || chooser.is_served()).await
    }

    async fn wait(
        &mut self,
        failure: Failure,
        mut changes: watch::Receiver<u64>,
        is_served: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        let pause = self.backoff.next(rand::random());
        let until = clock::now() + pause;
        let enough = self.attempts >= REFUSED_ATTEMPTS && self.refused_until.is_some_and(|end| end.instant() <= until);
        if !self.is_worth_waiting(&failure) {
            return Err(failure);
        }
        // What is not served any more does not come back.
        self.database.check()?;
        if enough && !passes_by_itself(&failure) {
            return Err(failure);
        }
        if self.place.is_none() {
            self.place = Some(self.broker.waiting.enter(self.broker, self.database, self.kind)?);
        }
        // A call that was sent nowhere has no reason to stay away from what there is now.
        let was_sent = failure.receipt.is_some();
        if self.kind == Kind::Write || !was_sent {
            // Of a read, an attempt that failed was counted as it looked for another host.
            self.broker.metrics.retried(self.kind.as_str());
        }
        self.attempts += 1;
        let (broker, database, seen) = (self.broker, self.database, self.seen);
        let changed = async {
            loop {
                changes.mark_unchanged();
                let now = primacy(broker, database);
                if now.is_worth_a_try_after(&seen) || (!was_sent && is_served()) {
                    return tokio::time::sleep(broker.waiting.spread(database.cluster)).await;
                }
                let paused = clock::now() >= until;
                if paused && (!now.may_come() || is_served()) {
                    return;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() {
                        // The monitor has ended, and the broker with it.
                        return tokio::time::sleep(pause).await;
                    },
                    () = tokio::time::sleep_until(until.into()), if !paused => {}
                }
            }
        };
        let removed = async {
            database.removed.cancelled().await;
            // Those who wait go on elsewhere, all at once else.
            tokio::time::sleep(broker.waiting.spread(database.cluster)).await;
        };
        let interrupted = tokio::select! {
            () = changed => None,
            interrupted = self.caller.interrupted() => Some(interrupted),
            // A reload has taken away what it waits for.
            () = removed => return self.database.check(),
        };
        self.seen = primacy(broker, database);
        match interrupted {
            None => Ok(()),
            // What it waited for says more than that its time is up.
            Some(Interrupted::Deadline) => Err(self.too_late(failure)),
            Some(interrupted) => Err(interrupted.failure()),
        }
    }

    /// The primary may be back, or another one, in a moment; and nothing was executed.
    fn is_worth_waiting(&mut self, failure: &Failure) -> bool {
        let of_the_cluster =
            matches!(failure.reason, Reason::NoPrimaryAvailable | Reason::NoHostsAvailable | Reason::PositionUnproved);
        // What stood in the way of replay would again.
        let of_the_host = failure.is_of_the_host() && failure.reason != Reason::RecoveryConflict;
        if self.kind == Kind::Read && failure.outcome == Outcome::RolledBack && of_the_host {
            // It ran as its host went away. Once, since it may be what brings hosts down.
            return !std::mem::replace(&mut self.has_lost, true);
        }
        failure.outcome == Outcome::NotExecuted && (of_the_cluster || of_the_host || failure.is_of_a_name())
    }

    fn too_late(&self, failure: Failure) -> Failure {
        let waited = clock::now().saturating_duration_since(self.began);
        let message = format!("{} (tried for {:.1} s, until the deadline)", failure.message, waited.as_secs_f64());
        Failure { message, ..failure }
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.broker.metrics.waited("primary", clock::now().saturating_duration_since(self.began));
        }
    }
}

fn primacy(broker: &Broker, database: &Database) -> Primacy {
    Primacy::of(broker.topology.snapshot().cluster(database.cluster))
}

/// Waits for `pause`, or less when the primary changes meanwhile, or the call is to stop.
pub(super) async fn pause(
    broker: &Broker,
    database: &Database,
    caller: &Caller,
    pause: Duration,
) -> Result<(), Interrupted> {
    tokio::select! {
        paused = caller.pause(pause) => paused,
        () = dethroned(broker, database, primacy(broker, database)) => Ok(()),
    }
}

/// Resolves once that primary is not the primary any more: who waits for a connection to it waits in vain.
pub(super) async fn dethroned(broker: &Broker, database: &Database, seen: Primacy) {
    let mut changes = broker.topology.primary_changes();
    loop {
        changes.mark_unchanged();
        if primacy(broker, database) != seen {
            return;
        }
        if changes.changed().await.is_err() {
            // The monitor has ended: nothing will be known any more.
            return std::future::pending().await;
        }
    }
}

/// Not so what a server that is up refuses: a password, a database, another connection.
fn passes_by_itself(failure: &Failure) -> bool {
    failure.server.as_ref().is_none_or(|error| error.sqlstate.starts_with("57P"))
}

/// `jitter` is from 0 to 1. Who waits alone goes at once.
fn spread(waiting: usize, jitter: f64) -> Duration {
    let others = u32::try_from(waiting).unwrap_or(u32::MAX).saturating_sub(1);
    SPREAD_EACH.saturating_mul(others).min(SPREAD_MAX).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_go_on_over_a_moment_and_one_at_once() {
        assert_eq!(spread(1, 1.0), Duration::ZERO);
        assert_eq!(spread(101, 0.5), Duration::from_millis(5));
        assert_eq!(spread(100_000, 1.0), SPREAD_MAX);
    }
}
