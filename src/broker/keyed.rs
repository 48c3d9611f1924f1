//! A write with an idempotency key. Its transaction begins by inserting the key's row, and PostgreSQL makes that wait for
//! whoever else has inserted it: so of all calls with one key, at any broker, one commits, and the others answer what it
//! stored. When a commit's answer is lost, the write is simply done again: either the row is there and so is the result,
//! or the new row takes its place, and bars the lost transaction for good.

mod beside;

use super::{
    Failure, Outcome, Reason, Receipt, StatementOutcome, WriteRequest, WriteResult,
    await_topology::{self, BACKOFF_BASE, BACKOFF_MAX},
    execute::{Done, Undone},
    overseer::{Ended, WrittenTo},
    placement::Beside,
    pools::Seat,
    write::{Answer, Course, Write},
};
use crate::{
    codec::{StoredResult, read_stored_results, request_hash, store_results},
    model::Backoff,
    postgres::{Begin, Claim, CommitKind, Facts, IdempotencyKey, Isolation, PgError, StoredWrite},
};
use beside::{Aim, Aiming, Claimed};

/// The longest key, in bytes.
const KEY_MAX: usize = 255;
/// Who owns every key while callers are not told apart.
const PRINCIPAL: &str = "";
/// Goes that may come to nothing, and be repeated; one more for each statement.
const GOES_MAX: usize = 8;

/// The key of a write, checked; None if it has none.
pub(super) fn key_of(request: &WriteRequest) -> Result<Option<IdempotencyKey>, Failure> {
    let key = &request.idempotency_key;
    let invalid = |message: String| Err(Failure::field(Reason::FieldInvalid, "idempotency_key", message));
    match key.len() {
        0 => return Ok(None),
        length if length > KEY_MAX => {
            return invalid(format!("idempotency_key has {length} bytes; {KEY_MAX} at most are allowed"));
        }
        _ if key.contains('\0') => return invalid("idempotency_key contains a NUL character".into()),
        _ if request.outside_transaction => {
            return invalid(
                "idempotency_key does not go with outside_transaction: nothing could be stored with it".into(),
            );
        }
        _ => {}
    }
    let isolation = request.isolation.map_or("", |isolation| match isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    });
    let statements = request.statements.iter().map(|statement| (statement.sql.as_str(), statement.params.as_slice()));
    let request_hash = request_hash(&[isolation, request.context.settings.sql()], statements);
    Ok(Some(IdempotencyKey { principal: PRINCIPAL.to_owned(), key: key.clone(), request_hash }))
}

/// What one go at the write came to.
enum Go {
    /// The caller has its answer.
    Over,
    /// Nothing of it was kept, and another may end better; on this connection, if it is given.
    Again(Failure, Option<Box<(Receipt, Seat)>>),
    /// Nothing of it was kept, and no other would end better.
    Failed(Failure),
    /// Its COMMIT was sent, and the answer is lost.
    Lost(Box<Lost>),
}

/// A go whose COMMIT was not answered.
struct Lost {
    failure: Failure,
    receipt: Receipt,
    facts: Facts,
}

impl Write<'_> {
    /// Sees the write through, once no other call here has its key in hand: in PostgreSQL each would wait for the first on
    /// a connection, until none was left for other writes. Gives the answer back, unused, when a reload has moved its database
    /// while nothing of the write, nor its key, was kept; the turn is given up then, and taken again where the write goes on.
    pub(super) async fn run_keyed(
        &self,
        key: &IdempotencyKey,
        beside: Option<Beside>,
        mut answer: Answer,
    ) -> Option<Answer> {
        let _turn = tokio::select! {
            turn = self.database.key_turns.take(&key.key) => match turn {
                Ok(turn) => turn,
                Err(full) => {
                    answer.send(Err(full.into()));
                    return None;
                }
            },
            interrupted = self.caller.interrupted() => {
                // Whoever has it may be about to commit: nobody can say that nothing was kept.
                let position = self.reach.mark_unknown(self.broker, self.database);
                answer.send(Err(Failure { position, ..interrupted.failure().outcome(Outcome::Unknown) }));
                return None;
            }
        };
        let course = match beside {
            Some(beside) => self.run_beside(key, beside, &mut answer).await,
            None => self.run_goes(key, Aim::Write(None), &mut answer).await,
        };
        (course == Course::Moved).then_some(answer)
    }

    /// In as many goes as it takes. Unless it is only to claim the key, and has, the caller has its answer when it is over.
    async fn run_goes(&self, key: &IdempotencyKey, aim: Aim<'_>, answer: &mut Answer) -> Course {
        let (mut aim, mut claimed) = match aim {
            Aim::Write(Some((claimed, beside))) => (Aiming::Write(Some(beside)), Some(*claimed)),
            Aim::Write(None) => (Aiming::Write(None), None),
            Aim::Claim(into) => (Aiming::Claim(into), None),
        };
        let mut lost: Option<Lost> = None;
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_MAX);
        let mut seat: Option<Box<(Receipt, Seat)>> = None;
        let mut left = GOES_MAX + self.kinds.len();
        loop {
            let went = match claimed.take() {
                Some(Claimed { receipt, seat, written_to }) => {
                    self.take(key, receipt, seat, written_to, &aim, answer).await
                }
                None => {
                    // What is lost may be found as long as the caller waits: a primary may be promoted meanwhile.
                    let found = match seat.take() {
                        Some(kept) => Ok(*kept),
                        None => self.find_seat(&mut self.patience().endless(lost.is_some())).await,
                    };
                    match found {
                        Ok(found) => self.go(key, found, &mut lost, &mut aim, answer).await,
                        Err(failure) => return self.conclude(failure, lost, answer),
                    }
                }
            };
            match went {
                Go::Over => return Course::Over,
                Go::Failed(failure) => return self.conclude(failure, lost, answer),
                Go::Again(failure, kept) => {
                    // While it is the primary that is to blame, only the deadline ends the write.
                    if !failure.is_of_the_primary() {
                        left = left.saturating_sub(1);
                    }
                    if left == 0 && lost.is_none() {
                        return self.conclude(failure, lost, answer);
                    }
                    seat = kept;
                }
                Go::Lost(now) => {
                    // The session may be back with a read meanwhile.
                    self.reach.extend_unknown(self.broker);
                    lost = Some(*now);
                }
            }
            self.broker.metrics.retried("write");
            if seat.is_none()
                && let Err(interrupted) =
                    await_topology::pause(self.broker, self.database, &self.caller, backoff.next(rand::random())).await
            {
                return self.conclude(interrupted.failure(), lost, answer);
            }
        }
    }

    /// Ends the goes. A COMMIT without an answer is not left behind: only without one the write may go on elsewhere.
    fn conclude(&self, failure: Failure, lost: Option<Lost>, answer: &mut Answer) -> Course {
        if lost.is_none() && self.database.has_left(&failure) {
            return Course::Moved;
        }
        self.tell(failure, lost, answer);
        Course::Over
    }

    /// Answers a write that ends here. While a go is lost nobody knows what became of the write.
    fn tell(&self, failure: Failure, lost: Option<Lost>, answer: &mut Answer) {
        let Some(lost) = lost else { return answer.send(Err(failure)) };
        let failure = if failure.is_interruption() { failure } else { lost.failure };
        let overseer = self.overseer(&lost.receipt);
        answer.send(Err(overseer.unknown(failure)));
        overseer.watch(&lost.facts);
    }

    /// One transaction: the key's row, the statements, the results into the row, COMMIT.
    async fn go(
        &self,
        key: &IdempotencyKey,
        (receipt, mut seat): (Receipt, Seat),
        lost: &mut Option<Lost>,
        aim: &mut Aiming<'_>,
        answer: &mut Answer,
    ) -> Go {
        let Some(written_to) = self.broker.written_to(self.database, &receipt, &seat) else {
            return Go::Again(Failure::outvoted().with_receipt(&receipt), None);
        };
        let settings = self.request.context.settings.clone();
        let is_clean = self.is_clean(&seat, true);
        let begin = Begin { isolation: self.request.isolation, settings, is_clean, ..Begin::default() };
        let claim = tokio::select! {
            claim = seat.begin_with_key(&begin, key) => claim,
            interrupted = self.caller.interrupted() => {
                // Another call with this key may be about to commit: nobody can say that nothing was kept.
                match lost.take() {
                    None => answer.send(Err(self.overseer(&receipt).unknown(interrupted.failure()))),
                    lost => self.tell(interrupted.failure(), lost, answer),
                }
                self.broker.metrics.cancelled(interrupted.as_str());
                seat.cancel();
                seat.rollback().await;
                return Go::Over;
            }
        };
        match claim {
            Ok(Claim::Taken) => {
                // Whatever was lost has ended, and not with a commit: the index would show it.
                *lost = None;
                if let Aiming::Claim(into) = aim {
                    **into = Some(Claimed { receipt, seat, written_to });
                    return Go::Over;
                }
                self.take(key, receipt, seat, written_to, aim, answer).await
            }
            Ok(Claim::Stored(stored)) => self.replay(key, stored, receipt, seat, written_to, answer).await,
            Ok(Claim::Gone) => {
                seat.rollback().await;
                let message = "the idempotency key's row is there, but it holds no results; delete it";
                Go::Again(Failure::field(Reason::Internal, "idempotency_key", message).with_receipt(&receipt), None)
            }
            Err(error) => {
                seat.rollback().await;
                self.not_claimed(error, &begin, &receipt, lost.is_some())
            }
        }
    }

    /// Another transaction has committed this key: its results are the answer, if it was for the same write.
    async fn replay(
        &self,
        key: &IdempotencyKey,
        stored: StoredWrite,
        receipt: Receipt,
        mut seat: Seat,
        written_to: WrittenTo,
        answer: &mut Answer,
    ) -> Go {
        if !self.broker.is_primary(self.database, receipt.host_id, seat.facts()) {
            // The wait for the key may have been long, and a promotion come between: what is stored here may be lost.
            return Go::Again(Failure::outvoted().with_receipt(&receipt), None);
        }
        if stored.request_hash != key.request_hash {
            let message = "the idempotency key was used for another write: other statements, parameters, isolation or settings; \
                 give each write a key of its own";
            let failure = Failure::field(Reason::IdempotencyKeyReused, "idempotency_key", message);
            answer.send(Err(failure.with_receipt(&receipt)));
            seat.rollback().await;
            return Go::Over;
        }
        let malformed = "the results that are stored with the idempotency key cannot be read; its write is committed";
        let results = read_stored_results(&stored.results)
            .ok_or_else(|| Failure::new(Reason::ResultMalformed, malformed).outcome(Outcome::Committed));
        let committing = seat.commit(CommitKind::ReadWrite);
        let tell = |failure| answer.send(Err(failure));
        match self.overseer(&receipt).see_commit(committing, written_to, tell).await {
            Ended::Well(position, reset) => {
                let results = results.map(|results| results.into_iter().map(outcome).collect::<Vec<_>>());
                answer.send(match results {
                    Ok(results) => Ok(WriteResult { results, receipt, position, replayed: true }),
                    Err(failure) => Err(Failure { position, ..failure }.with_receipt(&receipt)),
                });
                seat.settle_commit(reset).await;
                Go::Over
            }
            // Nothing is wrong with what was committed before.
            Ended::Badly(failure, reset) => {
                seat.settle_commit(reset).await;
                Go::Again(failure, None)
            }
            Ended::Unknown(failure) => self.unanswered(failure, receipt, &seat),
        }
    }

    /// The key is this transaction's: the statements, then their results into its row and COMMIT in one flush.
    async fn take(
        &self,
        key: &IdempotencyKey,
        receipt: Receipt,
        mut seat: Seat,
        written_to: WrittenTo,
        aim: &Aiming<'_>,
        answer: &mut Answer,
    ) -> Go {
        let done = tokio::select! {
            done = self.statements(&mut seat, false) => done,
            interrupted = self.caller.interrupted() => Err(Undone::Failed(interrupted.failure())),
        };
        let Done { results, .. } = match done {
            Ok(done) => done,
            Err(Undone::Stale(index, failure)) => {
                seat.rollback().await;
                seat.forget(&self.request.statements[index].sql);
                let failure = failure.at_statement(Some(index)).with_receipt(&receipt);
                let kept = (!seat.is_soiled()).then(|| Box::new((receipt, seat)));
                return Go::Again(failure, kept);
            }
            Err(Undone::Failed(failure) | Undone::Unbegun(failure)) => {
                self.undo(failure, seat, &receipt, answer).await;
                return Go::Over;
            }
        };
        if let Err(failure) = self.broker.may_commit(self.database, receipt.host_id, &seat) {
            seat.rollback().await;
            return Go::Again(failure.with_receipt(&receipt), None);
        }
        if matches!(aim, Aiming::Write(Some(beside)) if beside.is_closed()) {
            // On the other side the key is free again, and others may be writing there.
            seat.rollback().await;
            let lost = PgError::Lost("it held the idempotency key where the database is moved from, or to".into());
            let failure = Failure::from_exchange(lost, Outcome::RolledBack).with_receipt(&receipt);
            return Go::Failed(failure);
        }
        let bytes = store_results(results.iter().cloned().map(stored).collect());
        let committing = seat.commit_with_key(key, bytes);
        let tell = |failure| answer.send(Err(failure));
        match self.overseer(&receipt).see_commit(committing, written_to, tell).await {
            Ended::Well(position, reset) => {
                answer.send(Ok(WriteResult { results, receipt, position, replayed: false }));
                seat.settle_commit(reset).await;
            }
            Ended::Badly(failure, reset) => {
                answer.send(Err(failure));
                seat.settle_commit(reset).await;
            }
            Ended::Unknown(failure) => return self.unanswered(failure, receipt, &seat),
        }
        Go::Over
    }

    /// A COMMIT has no answer: another go tells, if the caller still waits for it.
    fn unanswered(&self, failure: Option<Failure>, receipt: Receipt, seat: &Seat) -> Go {
        let facts = seat.facts().clone();
        match failure {
            Some(failure) => Go::Lost(Box::new(Lost { failure, receipt, facts })),
            None => {
                self.overseer(&receipt).watch(&facts);
                Go::Over
            }
        }
    }

    /// The key's row was not inserted; nothing ran.
    fn not_claimed(&self, error: PgError, begin: &Begin, receipt: &Receipt, is_lost: bool) -> Go {
        let sqlstate = error.sqlstate().to_owned();
        // The server's lock_timeout or statement_timeout, or an administrator: it waited for whoever holds the key.
        let waited = matches!(sqlstate.as_str(), "55P03" | "57014");
        let again = error.ends_connection() || matches!(sqlstate.as_str(), "40001" | "40P01") || (waited && is_lost);
        let of_setting = error.server().is_some_and(|error| error.routine.starts_with("set_config"));
        let not_set_up = !of_setting && matches!(sqlstate.as_str(), "42P01" | "3F000" | "42501" | "42703" | "42P10");
        let failure =
            Failure::from_exchange(error, Outcome::NotExecuted).outcome(Outcome::NotExecuted).with_receipt(receipt);
        if again {
            // Under REPEATABLE READ a row that was committed meanwhile is an error: the next go's snapshot has it.
            return Go::Again(failure, None);
        }
        if waited {
            return Go::Failed(self.overseer(receipt).unknown(failure));
        }
        if not_set_up {
            let message = format!(
                "idempotency keys need the table tidegate.idempotency_keys in this database, and the right to use it \
                 ({}); run `tidegate check --init`",
                failure.message
            );
            let (reason, field) = (Reason::IdempotencyNotSetUp, "idempotency_key".into());
            return Go::Failed(Failure { reason, message, field, ..failure });
        }
        Go::Failed(failure.of_begin(begin))
    }
}

fn stored(outcome: StatementOutcome) -> StoredResult {
    let StatementOutcome { rows_affected, columns, rows } = outcome;
    StoredResult { rows_affected, columns, rows }
}

fn outcome(stored: StoredResult) -> StatementOutcome {
    let StoredResult { rows_affected, columns, rows } = stored;
    StatementOutcome { rows_affected, columns, rows }
}
