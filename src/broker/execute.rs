//! How a write runs on its connection: alone, or as a transaction.

use super::{
    Failure, Outcome, Reason, Receipt, StatementOutcome, WriteResult,
    caller::Interrupted,
    collect::{Collected, NotCollected, collect, result_room},
    overseer::{Cancellable, Ended, Overseer, Seen},
    pools::Seat,
    ready::{NotReady, Ready, is_stale, name_parameter},
    settle::Lost,
    write::{Answer, Write},
};
use crate::{
    postgres::{Begin, CommitKind, Exchange, PgError, TransactionId, Wrap},
    sql,
};

/// One go at a write on its connection.
struct Attempt<'a> {
    receipt: &'a Receipt,
    seat: Seat,
    answer: Answer,
    /// Whether all that runs is clean, by verdicts that held before anything was sent.
    is_clean: bool,
    /// Whether another go may follow when a statement turns out to be prepared for what is no more.
    may_repeat: bool,
}

/// A write of which nothing ran, with its unused answer: another connection may do better.
pub(super) struct Unused {
    pub(super) failure: Failure,
    pub(super) answer: Answer,
    /// The connection alone was to blame: another one may be asked for at once.
    pub(super) at_once: bool,
}

/// What follows on one go.
enum Next {
    /// The caller has its answer.
    Nothing,
    /// Another one on the same connection.
    Again(Box<Seat>, Answer),
    /// Perhaps another one on another connection: nothing ran, and the host is to blame.
    Elsewhere(Failure, Answer),
}

/// What a transaction's statements did.
pub(super) struct Done {
    pub(super) results: Vec<StatementOutcome>,
    /// The transaction's id, if it was asked for and there is one.
    transaction_id: Option<TransactionId>,
}

/// Why a transaction's statements stopped; nothing is committed.
pub(super) enum Undone {
    /// It did not even begin.
    Unbegun(Failure),
    Failed(Failure),
    /// The statement of this index was prepared for what is no more (rule 17).
    Stale(usize, Failure),
}

impl Write<'_> {
    /// Runs the write and answers. What failed before anything ran comes back with the unused answer, if another
    /// connection may do better.
    pub(super) async fn execute(&self, receipt: Receipt, mut seat: Seat, mut answer: Answer) -> Option<Unused> {
        // Each statement may have been prepared for what is no more: once more for each.
        for may_repeat in (0..=self.kinds.len()).rev().map(|left| left > 0) {
            // What is pooled can do nothing outside a transaction, not even prepare.
            let pooled = seat.is_pooled();
            let is_clean = self.is_clean(&seat, false);
            // Before it is prepared: that, too, goes by what others have left (a date's style, a search path).
            if !pooled && let Err(failure) = self.renew(&mut seat, is_clean).await {
                let at_once = !failure.is_interruption();
                return Some(Unused { failure: failure.with_receipt(&receipt), answer, at_once });
            }
            let attempt = Attempt { receipt: &receipt, seat, answer, is_clean, may_repeat };
            let next = if pooled { Box::pin(self.transaction(attempt)).await } else { self.shortest(attempt).await };
            (seat, answer) = match next {
                Next::Nothing => return None,
                Next::Again(seat, answer) => (*seat, answer),
                Next::Elsewhere(failure, answer) => {
                    return Some(Unused { failure: failure.with_receipt(&receipt), answer, at_once: false });
                }
            };
        }
        None
    }

    /// Without a transaction around it if that is possible.
    async fn shortest(&self, mut attempt: Attempt<'_>) -> Next {
        let first = match self.prepare_first(&mut attempt.seat).await {
            Ok(first) => first,
            Err(failure) if failure.is_of_the_host() => return Next::Elsewhere(failure, attempt.answer),
            Err(failure) => {
                let interrupted = failure.is_interruption();
                attempt.answer.give(Err(failure.at_statement(Some(0)).with_receipt(attempt.receipt)));
                if interrupted {
                    // The connection stays in use, and so is closed when it goes back.
                    attempt.seat.cancel();
                }
                return Next::Nothing;
            }
        };
        // Rows could outgrow a message, and are then to be undone: that needs a transaction.
        let alone = self.kinds.len() == 1
            && self.request.isolation.is_none()
            && self.request.context.settings.is_empty()
            && (self.request.outside_transaction
                || (self.kinds[0] != sql::Kind::Call && !first.prepared.returns_rows()));
        if !alone {
            return Box::pin(self.transaction(attempt)).await;
        }
        // Outside a transaction nothing says that a failed statement left nothing behind.
        attempt.may_repeat &= !self.request.outside_transaction;
        self.autocommit(attempt, first).await
    }

    /// The first statement is prepared, and its parameters checked, before anything runs.
    async fn prepare_first(&self, seat: &mut Seat) -> Result<Ready, Failure> {
        // What is late already is not begun.
        if let Some(interrupted) = self.caller.interruption() {
            return Err(interrupted.failure());
        }
        let ready = tokio::select! {
            // Most are found prepared: nothing is armed for those.
            biased;
            ready = Ready::make(seat, &self.request.statements[0]) => ready,
            interrupted = self.caller.interrupted() => return Err(interrupted.failure()),
        };
        ready.map_err(|not_ready| not_ready.unexecuted(seat))
    }

    /// One statement that commits by itself: statement, position and, unless it is clean, reset in one flush.
    async fn autocommit(&self, attempt: Attempt<'_>, ready: Ready) -> Next {
        let Attempt { receipt, mut seat, mut answer, is_clean, may_repeat } = attempt;
        let Ready { prepared, params } = ready;
        let Some(written_to) = self.broker.written_to(self.database, receipt, &seat) else {
            // Preparing may have waited for a lock, and a promotion come between.
            return Next::Elsewhere(Failure::outvoted(), answer);
        };
        let wrap = if is_clean { Wrap::CleanAutocommit } else { Wrap::Autocommit };
        let mut exchange = Exchange::start(&mut seat, wrap, &prepared, params);
        let limit = result_room(&self.broker.settings());
        let running = async {
            let result = collect(&mut exchange, &prepared, limit).await;
            (result, exchange.position().await)
        };
        let overseer = self.overseer(receipt);
        let mut cancellable = Cancellable::new(&mut seat);
        let seen = overseer.see_through(running, Some(&mut cancellable), |failure| answer.send(Err(failure))).await;
        let is_unconfirmed = cancellable.is_unconfirmed();
        let Seen::Ended((result, position), interrupted) = seen else {
            overseer.watch(seat.facts());
            return Next::Nothing;
        };
        match result {
            Ok(Collected { outcome, .. }) => {
                let position =
                    position.unwrap_or_else(|| Err(PgError::Protocol("no position behind the write".into())));
                let position = overseer.store(written_to, position).await;
                let results = vec![outcome];
                answer.send(match interrupted.filter(|_| is_unconfirmed) {
                    Some(interrupted) => Err(unconfirmed(interrupted, receipt, position)),
                    None => Ok(WriteResult { results, receipt: receipt.clone(), position, replayed: false }),
                });
            }
            // One that was interrupted has its answer.
            Err(NotCollected::Server(error)) if may_repeat && interrupted.is_none() && is_stale(&prepared, &error) => {
                exchange.settle(prepared, &mut seat).await;
                return self.once_more(seat, answer, 0, Failure::from_exchange(error, Outcome::RolledBack), receipt);
            }
            Err(failed) => {
                let ended = matches!(&failed, NotCollected::Server(error) if error.ends_connection());
                let failure = self.failed_alone(failed, interrupted).with_receipt(receipt);
                let failure = name_parameter(failure, &self.request.statements[0], &prepared);
                let mut failure = failure.at_statement(Some(0));
                if failure.outcome == Outcome::Unknown && ended {
                    answer.send(Err(overseer.unknown(failure)));
                    overseer.watch(seat.facts());
                    return Next::Nothing;
                }
                if let Some(Ok(lsn)) = position {
                    // An error does not prove that nothing was written: what was is at or below this.
                    failure.position = self.reach.record(self.broker, self.database, written_to.at(lsn));
                } else if failure.outcome == Outcome::Unknown {
                    failure = overseer.unknown(failure);
                }
                answer.send(Err(failure));
            }
        }
        exchange.settle(prepared, &mut seat).await;
        Next::Nothing
    }

    /// A statement was prepared for what is no more, and all is undone: on a connection that is clean it can run again.
    fn once_more(&self, mut seat: Seat, answer: Answer, index: usize, failure: Failure, receipt: &Receipt) -> Next {
        if seat.is_soiled() {
            answer.give(Err(failure.at_statement(Some(index)).with_receipt(receipt)));
            return Next::Nothing;
        }
        seat.forget(&self.request.statements[index].sql);
        self.broker.metrics.retried("write");
        Next::Again(Box::new(seat), answer)
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
    async fn transaction(&self, attempt: Attempt<'_>) -> Next {
        let Attempt { receipt, mut seat, mut answer, is_clean, may_repeat } = attempt;
        let settings = self.request.context.settings.clone();
        let begin = Begin { isolation: self.request.isolation, settings, is_clean, ..Begin::default() };
        let unbegun = |error| Undone::Unbegun(Failure::from_exchange(error, Outcome::NotExecuted).of_begin(&begin));
        let outvoted = || Undone::Unbegun(Failure::outvoted());
        let done = tokio::select! {
            done = async {
                seat.begin(&begin).await.map_err(unbegun)?;
                let written_to = self.broker.written_to(self.database, receipt, &seat).ok_or_else(outvoted)?;
                Ok((written_to, self.statements(&mut seat, true).await?))
            } => done,
            interrupted = self.caller.interrupted() => Err(Undone::Failed(interrupted.failure())),
        };
        let (written_to, Done { results, transaction_id }) = match done {
            Ok(done) => done,
            Err(Undone::Unbegun(failure)) if failure.is_of_the_primary() => return Next::Elsewhere(failure, answer),
            Err(Undone::Stale(index, failure)) if may_repeat => {
                seat.rollback().await;
                if seat.is_pooled() {
                    // Nothing of it is kept, and another connection has other neighbours.
                    return Next::Elsewhere(failure.outcome(Outcome::NotExecuted), answer);
                }
                return self.once_more(seat, answer, index, failure, receipt);
            }
            Err(Undone::Stale(_, failure) | Undone::Failed(failure) | Undone::Unbegun(failure)) => {
                self.undo(failure, seat, receipt, &mut answer).await;
                return Next::Nothing;
            }
        };
        if let Err(failure) = self.broker.may_commit(self.database, receipt.host_id, &seat) {
            answer.give(Err(failure.with_receipt(receipt)));
            seat.rollback().await;
            return Next::Nothing;
        }
        let overseer = self.overseer(receipt);
        let committing = seat.commit(CommitKind::ReadWrite);
        let ended = overseer.see_commit(committing, written_to, |failure| answer.send(Err(failure))).await;
        let committed_at = |position| WriteResult { results, receipt: receipt.clone(), position, replayed: false };
        match ended {
            Ended::Well(position, reset) => {
                answer.send(Ok(committed_at(position)));
                seat.settle_commit(reset).await;
            }
            Ended::Badly(failure, reset) => {
                answer.send(Err(failure));
                seat.settle_commit(reset).await;
            }
            Ended::Unknown(Some(failure)) => {
                let lost = Lost { facts: seat.facts().clone(), written_to, transaction_id };
                drop(seat);
                answer.send(overseer.settle(failure, lost).await.map(committed_at));
            }
            Ended::Unknown(None) => overseer.watch(seat.facts()),
        }
        Next::Nothing
    }

    /// Answers, and rolls back, what stopped before its COMMIT was sent: PostgreSQL undoes it all, at the latest when the
    /// connection ends.
    pub(super) async fn undo(&self, failure: Failure, mut seat: Seat, receipt: &Receipt, answer: &mut Answer) {
        // Nobody saw the end of a statement that was interrupted, or whose result was cut.
        let unfinished = (failure.is_interruption() || failure.reason == Reason::ResultTooLarge) && !seat.is_closed();
        let cause = failure.cancel_cause();
        answer.send(Err(failure.outcome(Outcome::RolledBack).with_receipt(receipt)));
        if unfinished {
            self.broker.metrics.cancelled(cause);
            seat.cancel();
        }
        seat.rollback().await;
    }

    /// Runs the statements in the transaction that has begun. With the last one its id is asked for, if wanted.
    pub(super) async fn statements(&self, seat: &mut Seat, want_id: bool) -> Result<Done, Undone> {
        let rolled_back = |error: PgError| Failure::from_exchange(error, Outcome::RolledBack);
        let mut done = Done { results: Vec::with_capacity(self.request.statements.len()), transaction_id: None };
        let mut room = result_room(&self.broker.settings());
        let pooled = seat.is_pooled();
        for (index, statement) in self.request.statements.iter().enumerate() {
            let at = |failure: Failure| Undone::Failed(failure.at_statement(Some(index)));
            let ready = Ready::make(seat, statement).await.map_err(|not_ready| match not_ready {
                NotReady::Server(error) => {
                    let failure = rolled_back(error).at_statement(Some(index));
                    let in_the_way = pooled && failure.is_of_a_name();
                    if in_the_way { Undone::Stale(index, failure) } else { Undone::Failed(failure) }
                }
                NotReady::Codec(error) => at(error.into()),
            });
            let Ready { prepared, params } = ready?;
            let mut exchange = Exchange::start(seat, Wrap::Transaction, &prepared, params);
            if want_id && index + 1 == self.request.statements.len() {
                exchange.ask_transaction_id(seat);
            }
            let collected =
                collect(&mut exchange, &prepared, room).await.map_err(|not_collected| match not_collected {
                    NotCollected::Server(error) if is_stale(&prepared, &error) => {
                        let failure = name_parameter(rolled_back(error), statement, &prepared);
                        Undone::Stale(index, failure.at_statement(Some(index)))
                    }
                    other => at(name_parameter(other.into_failure(Outcome::RolledBack), statement, &prepared)),
                });
            let collected = collected?;
            done.transaction_id = exchange.transaction_id().await;
            room = room.saturating_sub(collected.bytes);
            done.results.push(collected.outcome);
        }
        Ok(done)
    }

    pub(super) fn overseer<'b>(&'b self, receipt: &'b Receipt) -> Overseer<'b> {
        Overseer { broker: self.broker, database: self.database, reach: &self.reach, caller: &self.caller, receipt }
    }
}

/// It is committed on the primary, and its cancel ended the wait for the standby that was to have it too: a failover may
/// lose it.
fn unconfirmed(interrupted: Interrupted, receipt: &Receipt, position: String) -> Failure {
    let failure = interrupted.failure();
    let message = format!("{}; the write is committed, but no synchronous standby has confirmed it", failure.message);
    Failure { message, position, ..failure }.outcome(Outcome::Unknown).with_receipt(receipt)
}
