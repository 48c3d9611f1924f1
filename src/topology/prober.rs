//! One prober a host: keeps a control connection, asks for positions at the right pace, and reports events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Event, HostKey, HostNews, SharedSettings, nudge::Nudge, pace::Pace};
use crate::{
    clock,
    postgres::{HostIdentity, PgError, ProbeConnection, Reading, Target},
};

const FIRST_RETRY: Duration = Duration::from_millis(100);

pub(super) struct Prober {
    pub(super) host: HostKey,
    /// The login may change; the address does not.
    pub(super) target: watch::Receiver<Target>,
    pub(super) settings: SharedSettings,
    pub(super) nudge: Arc<Nudge>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) identity: Arc<HostIdentity>,
}

/// Another server answers to the name: the old control connection says nothing of it, and is given up.
fn contradicted() -> PgError {
    PgError::Lost("the name leads to another server now".into())
}

impl Prober {
    /// Runs until `stop`; a lost connection is an event, followed by another attempt.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.probe_forever()).await;
    }

    async fn probe_forever(&mut self) {
        let mut retry = FIRST_RETRY;
        // One at a time: the budget of connections has room for one.
        let flushing = Arc::new(Semaphore::new(1));
        let mut failed = false;
        loop {
            let target = self.target.borrow_and_update().clone();
            match ProbeConnection::open(&target).await {
                Ok(connection) => {
                    let identity = connection.identity().clone();
                    self.report(HostNews::Identified { identity }).await;
                    let lost = self.probe_on(connection, failed, &flushing).await;
                    self.report(HostNews::ProbeFailed { why: lost.to_string(), certain: false }).await;
                    retry = FIRST_RETRY;
                }
                Err(error) => {
                    let certain = error.is_certain();
                    self.report(HostNews::ProbeFailed { why: error.to_string(), certain }).await;
                    tokio::select! {
                        () = tokio::time::sleep(retry) => {}
                        () = self.nudge.nudged() => tokio::time::sleep(FIRST_RETRY).await,
                        // The monitor keeps the other end for as long as the prober runs.
                        Ok(()) = self.target.changed() => {}
                    }
                    retry = (retry * 2).min(self.settings.load().interval);
                }
            }
            failed = true;
        }
    }

    /// Probes until the connection is lost; `anew` after a failure.
    async fn probe_on(&mut self, mut connection: ProbeConnection, anew: bool, flushing: &Arc<Semaphore>) -> PgError {
        let mut pace = Pace::new(**self.settings.load(), anew);
        let mut compared_at = None;
        loop {
            if self.target.has_changed().unwrap_or(false) {
                match self.log_in_anew(&connection).await {
                    Ok(renewed) => connection = renewed,
                    Err(error) => return error,
                }
            }
            let settings = **self.settings.load();
            pace.adopt(settings);
            // Listens from before the probe: a nudge that comes meanwhile must not be slept over.
            let mut changed = self.target.clone();
            let mut nudged = std::pin::pin!(self.nudge.nudged());
            nudged.as_mut().enable();
            let sent_at = clock::now();
            let reading = match connection.read(settings.timeout).await {
                Ok(reading) => reading,
                Err(error) => return error,
            };
            let now = clock::now();
            let awaited = self.nudge.awaited(now, settings.stick_timeout);
            let (progress, paused) = match &reading {
                Reading::Primary { flush, .. } => (Some(*flush), false),
                Reading::Replica { replay, paused, .. } => (*replay, *paused),
            };
            let force = matches!(&reading, Reading::Primary { .. })
                && progress.is_some_and(|flushed| pace.force_flush(flushed, awaited, now));
            self.report(HostNews::Read { reading, sent_at, received_at: now }).await;
            if force {
                tracing::debug!(host = %self.host, "a position that is waited for is not flushed yet: forcing a flush");
                self.force_flush(flushing);
            }
            self.tell_checkpoint(&connection, &mut compared_at).await;
            let pause = pace.next(progress, awaited, paused);
            // A nudge cuts a long rest short, never a step of the fast pace: a paused replica under a stream of writes
            // would else be asked at every one of them.
            if pause >= settings.interval {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.identity.contradicted() => return contradicted(),
                    // Never faster than the fast pace, however many nudges come.
                    Ok(()) = changed.changed() => {}
                    () = nudged => tokio::time::sleep_until((sent_at + settings.fast_interval).into()).await,
                }
            } else {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.identity.contradicted() => return contradicted(),
                }
            }
        }
    }

    /// A control connection with the login as it is given now, to the same server: what was measured stays true of it.
    async fn log_in_anew(&mut self, old: &ProbeConnection) -> Result<ProbeConnection, PgError> {
        let target = self.target.borrow_and_update().clone();
        let renewed = ProbeConnection::open(&target).await.map_err(|error| PgError::Lost(error.to_string()))?;
        let (new, old) = (renewed.identity(), old.identity());
        if (new.system_identifier, new.started_us) != (old.system_identifier, old.started_us) {
            return Err(contradicted());
        }
        Ok(renewed)
    }

    /// Beside the probes, on a connection of its own: a disk that is slow to flush must not look like a dead primary.
    fn force_flush(&self, flushing: &Arc<Semaphore>) {
        let Ok(alone) = Arc::clone(flushing).try_acquire_owned() else { return };
        let (target, host, limit) = (self.target.borrow().clone(), self.host, self.settings.load().timeout);
        tokio::spawn(async move {
            let _alone = alone;
            let flushed = match ProbeConnection::open(&target).await {
                Ok(connection) => connection.force_flush(limit).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = flushed {
                // Sessions then stay on the primary a little longer.
                tracing::warn!(%host, error, "a flush could not be forced");
            }
        });
    }

    /// Tells which checkpoint the server's control file names, while that is asked for; no more than once an interval or so.
    async fn tell_checkpoint(&self, connection: &ProbeConnection, told_at: &mut Option<Instant>) {
        let settings = **self.settings.load();
        let sent_at = clock::now();
        let is_due = told_at.is_none_or(|at| sent_at.saturating_duration_since(at) >= settings.interval / 2);
        if !is_due || !self.nudge.wants_checkpoints() {
            return;
        }
        *told_at = Some(sent_at);
        match connection.checkpoint(settings.timeout).await {
            Ok(checkpoint) => self.report(HostNews::Checkpoint { checkpoint, sent_at }).await,
            // A connection that was lost is the next probe's to find.
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "pg_control_checkpoint() could not be read: replicas stay \
                unproved on a timeline that had several primaries")
            }
        }
    }

    async fn report(&self, news: HostNews) {
        // The monitor outlives its probers; at shutdown nobody is left to care.
        let _ = self.events.send(Event { host: self.host, news }).await;
    }
}
