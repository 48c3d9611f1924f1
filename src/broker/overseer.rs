//! Sees a write through, whatever its caller does meanwhile: what was sent has an outcome, and it is found and stored.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    Broker, Failure, Outcome, Receipt,
    caller::{Caller, Interrupted},
    database::Database,
    pools::Seat,
    reach::{Reach, Written},
};
use crate::{
    clock,
    model::{Deadline, HostId, Lsn, Timeline},
    postgres::{Committed, Facts, Notices, PendingReset, PgError, ProbeConnection, Reading},
};

/// How long the real outcome of an interrupted write is awaited before its caller is told that it is unknown.
const GRACE: Duration = Duration::from_millis(50);
/// How long it is awaited for the record's sake after that.
const OUTCOME_LIMIT: Duration = Duration::from_secs(30);
/// How long reading a position again may take.
const CAPTURE_LIMIT: Duration = Duration::from_secs(1);

/// The history that a write belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenTo {
    system_identifier: u64,
    pub(super) timeline: Timeline,
}

impl WrittenTo {
    /// Where writes on this connection go; None on a standby.
    pub(super) fn of(seat: &Seat) -> Option<WrittenTo> {
        let facts = seat.facts();
        facts.timeline.map(|timeline| WrittenTo { system_identifier: facts.system_identifier, timeline })
    }

    pub(super) fn at(self, lsn: Lsn) -> Written {
        Written { system_identifier: self.system_identifier, timeline: self.timeline, lsn }
    }
}

/// What came of something that was sent.
pub(super) enum Seen<T> {
    /// It ended; perhaps after it was interrupted.
    Ended(T, Option<Interrupted>),
    /// It did not end within any bound; the caller has its answer.
    Lost,
}

/// What came of a COMMIT.
pub(super) enum Ended {
    /// It is committed; the position's token.
    Well(String, PendingReset),
    /// It is rolled back.
    Badly(Failure, PendingReset),
    /// Nobody knows; and why, unless the caller has its answer.
    Unknown(Option<Failure>),
}

/// A statement that may be cancelled. The cancel may come when all that is left is the wait for a synchronous standby: then
/// PostgreSQL gives the wait up, says so in a notice, and reports success.
pub(super) struct Cancellable<'a> {
    seat: &'a mut Seat,
    heard: Option<Notices>,
}

impl<'a> Cancellable<'a> {
    pub(super) fn new(seat: &'a mut Seat) -> Cancellable<'a> {
        Cancellable { seat, heard: None }
    }

    fn cancel(&mut self) {
        self.heard.get_or_insert_with(|| self.seat.notices());
        self.seat.cancel();
    }

    /// Whether what is committed may be on this server alone, because the cancel ended the wait for a standby.
    pub(super) fn is_unconfirmed(&mut self) -> bool {
        std::iter::from_fn(|| self.heard.as_mut()?.try_next()).any(|notice| notice.routine == "SyncRepWaitForLSN")
    }
}

/// Sees a write through, for a call or a session: what was sent has an outcome, and it is found and stored.
pub(super) struct Overseer<'a> {
    pub(super) broker: &'a Arc<Broker>,
    pub(super) database: &'a Database,
    pub(super) reach: &'a Reach,
    pub(super) caller: &'a Caller,
    pub(super) receipt: &'a Receipt,
}

impl Overseer<'_> {
    /// Awaits what was sent. Once the call is to stop, a statement is cancelled through its seat (a commit has none: it
    /// is never cancelled) and the real outcome awaited: briefly for the caller, who is then told that it is unknown,
    /// and longer for the record (rule 15).
    pub(super) async fn see_through<T>(
        &self,
        running: impl Future<Output = T>,
        cancellable: Option<&mut Cancellable<'_>>,
        tell: impl FnOnce(Failure),
    ) -> Seen<T> {
        let mut running = std::pin::pin!(running);
        let mut seat = cancellable;
        let stop = async {
            match &seat {
                Some(_) => self.caller.interrupted().await,
                None => self.caller.gave_up().await,
            }
        };
        let mut interrupted = tokio::select! {
            biased;
            ended = &mut running => return Seen::Ended(ended, None),
            interrupted = stop => interrupted,
        };
        self.broker.metrics.cancelled(interrupted.as_str());
        if let (Interrupted::Cancelled, Some(seat)) = (interrupted, &mut seat) {
            seat.cancel();
            // Its client waits on: for the real outcome, within its time.
            interrupted = tokio::select! {
                ended = &mut running => return Seen::Ended(ended, Some(interrupted)),
                gave_up = self.caller.gave_up() => gave_up,
            };
        }
        // The caller may be back with a read at any moment, and nobody knows yet what became of its write.
        self.reach.extend_unknown(self.broker);
        if let Some(seat) = seat {
            seat.cancel();
        }
        if let Ok(ended) = tokio::time::timeout(GRACE, &mut running).await {
            return Seen::Ended(ended, Some(interrupted));
        }
        tell(self.unknown(interrupted.failure()));
        match tokio::time::timeout(OUTCOME_LIMIT, running).await {
            Ok(ended) => Seen::Ended(ended, Some(interrupted)),
            Err(_) => Seen::Lost,
        }
    }

    /// Sees a COMMIT through that was sent, and stores its position.
    pub(super) async fn see_commit(
        &self,
        committing: impl Future<Output = (Result<Committed, PgError>, PendingReset)>,
        written_to: WrittenTo,
        mut tell: impl FnMut(Failure),
    ) -> Ended {
        match self.see_through(committing, None, &mut tell).await {
            Seen::Ended((Ok(committed), reset), _) => {
                Ended::Well(self.store(written_to, committed.position).await, reset)
            }
            Seen::Ended((Err(error), reset), interrupted) => {
                let failure = Failure::from_exchange(error, Outcome::Unknown).with_receipt(self.receipt);
                match (failure.outcome, interrupted) {
                    (Outcome::Unknown, None) => Ended::Unknown(Some(failure)),
                    (Outcome::Unknown, Some(_)) => {
                        tell(self.unknown(failure));
                        Ended::Unknown(None)
                    }
                    _ => Ended::Badly(failure, reset),
                }
            }
            Seen::Lost => Ended::Unknown(None),
        }
    }

    /// The failure with the outcome UNKNOWN, and the session on the primary from now on.
    pub(super) fn unknown(&self, failure: Failure) -> Failure {
        let mut failure = failure.outcome(Outcome::Unknown).with_receipt(self.receipt);
        failure.position = self.reach.mark_unknown(self.broker, self.database);
        failure
    }

    /// Keeps the session on the primary until this backend can commit no more. The connection must not be used again.
    pub(super) fn watch(&self, facts: &Facts) {
        self.broker.watch_unknown(self.database, self.receipt, facts, self.reach);
    }

    /// Stores a commit's position before its caller hears of it. When only the capture failed, it is read again on any
    /// connection to that primary; failing that, the session is sent to the primary (rule 3).
    pub(super) async fn store(&self, written_to: WrittenTo, position: Result<Lsn, PgError>) -> String {
        if let Ok(lsn) = position {
            return self.reach.record(self.broker, self.database, written_to.at(lsn));
        }
        match Box::pin(self.capture_again(written_to)).await {
            Some(written) => self.reach.record(self.broker, self.database, written),
            None => self.reach.mark_unknown(self.broker, self.database),
        }
    }

    /// Past a proxy, which may lead anywhere.
    async fn capture_directly(&self, primary: HostId, written_to: WrittenTo) -> Option<Written> {
        let _one_of_few = self.broker.looks.acquire().await.ok()?;
        let connection = ProbeConnection::open(&self.database.hosts.target(primary)?).await.ok()?;
        if connection.identity().system_identifier != written_to.system_identifier {
            return None;
        }
        match connection.read(CAPTURE_LIMIT).await.ok()? {
            Reading::Primary { insert, timeline, .. } if timeline == written_to.timeline => Some(written_to.at(insert)),
            _ => None,
        }
    }

    /// On another connection: the one that wrote may be the reason why it failed. Bounded, since all of them may be in
    /// the hands of others who want the same.
    async fn capture_again(&self, written_to: WrittenTo) -> Option<Written> {
        let capture = async {
            let primary = self.broker.topology.snapshot().cluster(self.database.cluster).primary?;
            if self.database.is_pooled() {
                return self.capture_directly(primary, written_to).await;
            }
            let deadline = Deadline::after(clock::now(), CAPTURE_LIMIT);
            let mut seat = self.database.write_until(primary, deadline).await.ok()?;
            let other = WrittenTo::of(&seat);
            let same = other.is_some_and(|other| {
                other.system_identifier == written_to.system_identifier && other.timeline == written_to.timeline
            });
            if !same {
                seat.release_unused();
                return None;
            }
            seat.insert_position().await.ok().map(|lsn| written_to.at(lsn))
        };
        tokio::time::timeout(CAPTURE_LIMIT, capture).await.ok().flatten()
    }
}
