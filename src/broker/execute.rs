//! How a write runs on its connection, and how its real outcome is found and stored, whatever the caller does meanwhile.

use std::{future::Future, sync::Arc, time::Duration};

use super::{
    Broker, Failure, Outcome, Reason, Receipt, StatementOutcome, WriteResult,
    caller::{Caller, Interrupted},
    collect::{Collected, NotCollected, collect},
    database::{Database, Seat},
    reach::{Reach, Written},
    ready::{NotReady, Ready, is_stale, name_parameter},
    write::{Answer, Write},
};
use crate::{
    model::{Lsn, Timeline},
    postgres::{Begin, Exchange, Facts, PgError, Wrap},
    sql,
};

/// How long the real outcome of an interrupted write is awaited before its caller is told that it is unknown.
const GRACE: Duration = Duration::from_millis(50);
/// How long it is awaited for the record's sake after that.
const OUTCOME_LIMIT: Duration = Duration::from_secs(30);

/// One go at a write on its connection.
struct Attempt<'a> {
    receipt: &'a Receipt,
    seat: Seat,
    written_to: WrittenTo,
    answer: Answer,
    /// Whether another go may follow when a statement turns out to be prepared for what is no more.
    may_repeat: bool,
}

/// Why a transaction's statements stopped; nothing is committed.
enum Undone {
    Failed(Failure),
    /// The statement of this index was prepared for what is no more (rule 17).
    Stale(usize, Failure),
}

/// The history that a write belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenTo {
    system_identifier: u64,
    timeline: Timeline,
}

impl WrittenTo {
    fn at(self, lsn: Lsn) -> Written {
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

impl Write<'_> {
    pub(super) async fn execute(&self, receipt: Receipt, mut seat: Seat, answer: Answer) {
        let Some(written_to) = written_to(&seat) else {
            seat.release_unused();
            let failure = Failure::new(Reason::NoPrimaryAvailable, "the host is not a primary any more");
            return answer.give(Err(failure.with_receipt(&receipt)));
        };
        let mut going = Some((seat, answer));
        // Each statement may have been prepared for what is no more: once more for each.
        for may_repeat in (0..=self.kinds.len()).rev().map(|left| left > 0) {
            let Some((mut seat, answer)) = going.take() else { return };
            let first = match self.prepare_first(&mut seat).await {
                Ok(first) => first,
                Err(failure) => return answer.give(Err(failure.at_statement(Some(0)).with_receipt(&receipt))),
            };
            // Rows could outgrow a message, and are then to be undone: that needs a transaction.
            let alone = self.kinds.len() == 1
                && self.request.isolation.is_none()
                && (self.request.outside_transaction
                    || (self.kinds[0] != sql::Kind::Call && !first.prepared.returns_rows()));
            // Outside a transaction nothing says that a failed statement left nothing behind.
            let may_repeat = may_repeat && !self.request.outside_transaction;
            let attempt = Attempt { receipt: &receipt, seat, written_to, answer, may_repeat };
            going = if alone { self.autocommit(attempt, first).await } else { self.transaction(attempt).await };
        }
    }

    /// The first statement is prepared, and its parameters checked, before anything runs.
    async fn prepare_first(&self, seat: &mut Seat) -> Result<Ready, Failure> {
        let ready = tokio::select! {
            ready = Ready::make(seat, &self.request.statements[0]) => ready,
            interrupted = self.caller.interrupted() => {
                // The connection stays in use, and so is closed when it goes back.
                let _ = seat.canceller().cancel().await;
                return Err(interrupted.failure());
            }
        };
        ready.map_err(|not_ready| not_ready.unexecuted(seat))
    }

    /// One statement that commits by itself: statement, position and reset in one flush.
    async fn autocommit(&self, attempt: Attempt<'_>, ready: Ready) -> Option<(Seat, Answer)> {
        let Attempt { receipt, mut seat, written_to, mut answer, may_repeat } = attempt;
        let Ready { prepared, params } = ready;
        let mut exchange = Exchange::start(&mut seat, Wrap::Autocommit, &prepared, params);
        let limit = self.broker.settings.max_write_result_bytes;
        let running = async {
            let result = collect(&mut exchange, &prepared, limit).await;
            (result, exchange.position().await)
        };
        let overseer = self.overseer(receipt);
        let seen = overseer.see_through(running, Some(&mut seat), |failure| answer.send(Err(failure))).await;
        let Seen::Ended((result, position), interrupted) = seen else {
            overseer.watch(seat.facts());
            return None;
        };
        match result {
            Ok(Collected { outcome, .. }) => {
                let position =
                    position.unwrap_or_else(|| Err(PgError::Protocol("no position behind the write".into())));
                let position = overseer.store(written_to, position).await;
                answer.send(Ok(WriteResult { results: vec![outcome], receipt: receipt.clone(), position }));
            }
            // One that was interrupted has its answer.
            Err(NotCollected::Server(error)) if may_repeat && interrupted.is_none() && is_stale(&prepared, &error) => {
                exchange.settle(&mut seat).await;
                return self.once_more(seat, answer, 0, Failure::from_exchange(error, Outcome::RolledBack), receipt);
            }
            Err(failed) => {
                let failure = self.failed_alone(failed, interrupted).with_receipt(receipt);
                let failure = name_parameter(failure, &self.request.statements[0], &prepared);
                let mut failure = failure.at_statement(Some(0));
                if failure.outcome == Outcome::Unknown {
                    failure = overseer.unknown(failure);
                    overseer.watch(seat.facts());
                } else if let Some(Ok(lsn)) = position {
                    // An error does not prove that nothing was written: what was is at or below this.
                    failure.position = self.reach.record(self.broker, self.database, written_to.at(lsn));
                }
                answer.send(Err(failure));
            }
        }
        exchange.settle(&mut seat).await;
        None
    }

    /// A statement was prepared for what is no more, and all is undone: on a connection that is clean it can run again.
    fn once_more(
        &self,
        mut seat: Seat,
        answer: Answer,
        index: usize,
        failure: Failure,
        receipt: &Receipt,
    ) -> Option<(Seat, Answer)> {
        if seat.is_soiled() {
            answer.give(Err(failure.at_statement(Some(index)).with_receipt(receipt)));
            return None;
        }
        seat.forget(&self.request.statements[index].sql);
        self.broker.metrics.retried("write");
        Some((seat, answer))
    }

    /// A statement outside any transaction of ours failed.
    fn failed_alone(&self, failed: NotCollected, interrupted: Option<Interrupted>) -> Failure {
        let cancelled = matches!(&failed, NotCollected::Server(error) if error.sqlstate() == "57014");
        let failure = match interrupted {
            Some(interrupted) if cancelled => interrupted.failure().outcome(Outcome::RolledBack),
            // Not a failure of the statement but of its result: it has committed by then.
            _ if !matches!(failed, NotCollected::Server(_)) => {
                failed.into_failure(Outcome::Committed).outcome(Outcome::Committed)
            }
            _ => failed.into_failure(Outcome::Unknown),
        };
        // What cannot run inside a transaction may have done part of its work.
        if self.request.outside_transaction { failure.outcome(Outcome::Unknown) } else { failure }
    }

    /// BEGIN, the statements, then COMMIT with the position and the reset in one flush.
    async fn transaction(&self, attempt: Attempt<'_>) -> Option<(Seat, Answer)> {
        let Attempt { receipt, mut seat, written_to, mut answer, may_repeat } = attempt;
        let begin = Begin { isolation: self.request.isolation, ..Begin::default() };
        let results = tokio::select! {
            results = self.statements(&mut seat, begin) => results,
            interrupted = self.caller.interrupted() => Err(Undone::Failed(interrupted.failure())),
        };
        let results = match results {
            Ok(results) => results,
            Err(Undone::Stale(index, failure)) if may_repeat => {
                seat.rollback().await;
                return self.once_more(seat, answer, index, failure, receipt);
            }
            Err(Undone::Stale(_, failure) | Undone::Failed(failure)) => {
                let unfinished =
                    matches!(failure.reason, Reason::CallerLeft | Reason::DeadlineExceeded | Reason::ResultTooLarge);
                // No COMMIT was sent: PostgreSQL undoes it all, at the latest when the connection ends.
                let cause = failure.cancel_cause();
                answer.give(Err(failure.outcome(Outcome::RolledBack).with_receipt(receipt)));
                if unfinished {
                    self.broker.metrics.cancelled(cause);
                    if !seat.cancel_to_the_end().await {
                        return None;
                    }
                }
                seat.rollback().await;
                return None;
            }
        };
        let overseer = self.overseer(receipt);
        let Seen::Ended(committed, _) =
            overseer.see_through(seat.commit(), None, |failure| answer.send(Err(failure))).await
        else {
            overseer.watch(seat.facts());
            return None;
        };
        match committed {
            Ok(committed) => {
                let position = overseer.store(written_to, committed.position).await;
                answer.send(Ok(WriteResult { results, receipt: receipt.clone(), position }));
            }
            Err(error) => {
                let mut failure = Failure::from_exchange(error, Outcome::Unknown).with_receipt(receipt);
                if failure.outcome == Outcome::Unknown {
                    failure = overseer.unknown(failure);
                    overseer.watch(seat.facts());
                }
                answer.send(Err(failure));
            }
        }
        None
    }

    async fn statements(&self, seat: &mut Seat, begin: Begin) -> Result<Vec<StatementOutcome>, Undone> {
        let failed = |error: PgError| Failure::from_exchange(error, Outcome::RolledBack);
        seat.begin(begin).await.map_err(|error| Undone::Failed(failed(error)))?;
        let mut results = Vec::with_capacity(self.request.statements.len());
        let mut room = self.broker.settings.max_write_result_bytes;
        for (index, statement) in self.request.statements.iter().enumerate() {
            let at = |failure: Failure| Undone::Failed(failure.at_statement(Some(index)));
            let ready = Ready::make(seat, statement).await.map_err(|not_ready| match not_ready {
                NotReady::Server(error) => at(failed(error)),
                NotReady::Codec(error) => at(error.into()),
            });
            let Ready { prepared, params } = ready?;
            let mut exchange = Exchange::start(seat, Wrap::Transaction, &prepared, params);
            let collected =
                collect(&mut exchange, &prepared, room).await.map_err(|not_collected| match not_collected {
                    NotCollected::Server(error) if is_stale(&prepared, &error) => Undone::Stale(index, failed(error)),
                    other => at(name_parameter(other.into_failure(Outcome::RolledBack), statement, &prepared)),
                });
            let collected = collected?;
            room = room.saturating_sub(collected.bytes);
            results.push(collected.outcome);
        }
        Ok(results)
    }

    fn overseer<'b>(&'b self, receipt: &'b Receipt) -> Overseer<'b> {
        Overseer { broker: self.broker, database: self.database, reach: &self.reach, caller: &self.caller, receipt }
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
        seat: Option<&mut Seat>,
        tell: impl FnOnce(Failure),
    ) -> Seen<T> {
        let mut running = std::pin::pin!(running);
        let interrupted = tokio::select! {
            ended = &mut running => return Seen::Ended(ended, None),
            interrupted = self.caller.interrupted() => interrupted,
        };
        self.broker.metrics.cancelled(interrupted.as_str());
        if interrupted == Interrupted::CallerLeft {
            // It may be back with a read at any moment, and nobody knows yet what became of its write.
            self.reach.mark_unknown(self.broker, self.database);
        }
        let canceller = seat.map(|seat| seat.canceller());
        let ending = async {
            match canceller {
                Some(canceller) => canceller.until(running).await,
                None => running.await,
            }
        };
        let mut ending = std::pin::pin!(ending);
        if let Ok(ended) = tokio::time::timeout(GRACE, &mut ending).await {
            return Seen::Ended(ended, Some(interrupted));
        }
        tell(self.unknown(interrupted.failure()));
        match tokio::time::timeout(OUTCOME_LIMIT, ending).await {
            Ok(ended) => Seen::Ended(ended, Some(interrupted)),
            Err(_) => Seen::Lost,
        }
    }

    /// The failure with the outcome UNKNOWN, and the session on the primary from now on.
    pub(super) fn unknown(&self, failure: Failure) -> Failure {
        let mut failure = failure.outcome(Outcome::Unknown).with_receipt(self.receipt);
        failure.position = self.reach.mark_unknown(self.broker, self.database);
        failure
    }

    /// Keeps the session on the primary until this backend can commit no more.
    pub(super) fn watch(&self, facts: &Facts) {
        self.broker.watch_unknown(self.database, self.receipt, facts, self.reach);
    }

    /// Stores a commit's position before its caller hears of it. When only the capture failed, it is read again on any
    /// connection to that primary; failing that, the session is sent to the primary (rule 3).
    pub(super) async fn store(&self, written_to: WrittenTo, position: Result<Lsn, PgError>) -> String {
        if let Ok(lsn) = position {
            return self.reach.record(self.broker, self.database, written_to.at(lsn));
        }
        match self.capture_again(written_to).await {
            Some(written) => self.reach.record(self.broker, self.database, written),
            None => self.reach.mark_unknown(self.broker, self.database),
        }
    }

    async fn capture_again(&self, written_to: WrittenTo) -> Option<Written> {
        let primary = self.broker.topology.snapshot().cluster(self.database.cluster).primary?;
        let mut seat = self.database.host(primary).write(self.caller.deadline()).await.ok()?;
        let same = seat.facts().system_identifier == written_to.system_identifier
            && seat.facts().timeline == Some(written_to.timeline);
        if !same {
            seat.release_unused();
            return None;
        }
        seat.insert_position().await.ok().map(|lsn| written_to.at(lsn))
    }
}

/// A connection to a standby has none.
pub(super) fn written_to(seat: &Seat) -> Option<WrittenTo> {
    let facts = seat.facts();
    facts.timeline.map(|timeline| WrittenTo { system_identifier: facts.system_identifier, timeline })
}
