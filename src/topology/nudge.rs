//! What the probers of a cluster are told: a position that somebody waits for, and what else is to be asked.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, futures::Notified};

use crate::model::Lsn;

/// Shared by a cluster's probers (readers) and everybody who learns of a position (writers).
#[derive(Debug)]
pub(super) struct Nudge {
    origin: Instant,
    awaited: AtomicU64,
    awaited_at_ms: AtomicU64,
    checkpoints: AtomicBool,
    wake: Notify,
}

impl Nudge {
    /// Nothing is awaited; `origin` is the start of its clock.
    pub(super) fn new(origin: Instant) -> Nudge {
        let (awaited, awaited_at_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        Nudge { origin, awaited, awaited_at_ms, checkpoints: AtomicBool::new(false), wake: Notify::new() }
    }

    /// Somebody needs hosts that have passed `lsn`: probers poll fast until all have.
    pub(super) fn await_position(&self, lsn: Lsn, now: Instant) {
        let since = now.saturating_duration_since(self.origin).as_millis() as u64;
        self.awaited_at_ms.fetch_max(since, Ordering::Relaxed);
        self.awaited.fetch_max(lsn.get(), Ordering::Relaxed);
        self.wake.notify_waiters();
    }

    /// The highest position that was asked for in the last `horizon`; None when nothing is awaited any more.
    pub(super) fn awaited(&self, now: Instant, horizon: Duration) -> Option<Lsn> {
        let lsn = self.awaited.load(Ordering::Relaxed);
        let asked_at = self.origin + Duration::from_millis(self.awaited_at_ms.load(Ordering::Relaxed));
        (lsn != 0 && now < asked_at + horizon).then(|| Lsn::new(lsn))
    }

    /// Wakes the probers without asking for a position (a connection failed, or contradicted what is known).
    pub(super) fn probe_now(&self) {
        self.wake.notify_waiters();
    }

    /// A new history has begun: positions of the old one are no measure any more.
    pub(super) fn forget(&self) {
        self.awaited.store(0, Ordering::Relaxed);
    }

    /// Whether probers ask for checkpoints too: where a timeline has several branches.
    pub(super) fn want_checkpoints(&self, wanted: bool) {
        self.checkpoints.store(wanted, Ordering::Relaxed);
    }

    pub(super) fn wants_checkpoints(&self) -> bool {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// Resolves at the first nudge after this call (once it is enabled or polled).
    pub(super) fn nudged(&self) -> Notified<'_> {
        self.wake.notified()
    }
}
