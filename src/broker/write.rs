//! One write: on the primary, as one transaction, its position stored before the caller hears of it. It is tried again
//! only while it is certain that nothing ran; what cannot be known is said, and pins the session to the primary.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Broker, Failure, Outcome, Reason, Receipt, WriteRequest, WriteResult,
    await_topology::{Kind, Patience},
    caller::Caller,
    clean::{Deed, not_through_a_proxy},
    database::Database,
    keyed,
    placement::{Beside, PlacedWrite},
    pools::Seat,
    reach::Reach,
};
use crate::{postgres::IdempotencyKey, sql};

/// What a write's text alone says of it.
struct Prepared {
    database: Arc<Database>,
    reach: Reach,
    kinds: Vec<sql::Kind>,
    key: Option<IdempotencyKey>,
    /// While the database is being moved: where the key may have been claimed.
    beside: Option<Beside>,
}

impl Broker {
    /// Executes a write. A task of its own sees it through: a caller that leaves cancels it, and a commit that was
    /// sent is awaited and recorded all the same.
    pub async fn write(self: &Arc<Self>, request: WriteRequest) -> Result<WriteResult, Failure> {
        let left = CancellationToken::new();
        let caller = Caller::new(left.clone(), request.deadline).known_as(request.context.caller.clone());
        let _left = left.drop_guard();
        self.spawn_write(request, caller).await.unwrap_or_else(|_| Err(ended_early()))
    }

    pub(super) fn spawn_write(
        self: &Arc<Self>,
        request: WriteRequest,
        caller: Caller,
    ) -> oneshot::Receiver<Result<WriteResult, Failure>> {
        let (answer, answered) = oneshot::channel();
        let work = Arc::clone(self).see_write(request, caller, Answer(Some(answer)));
        self.tasks.spawn(work.in_current_span());
        answered
    }

    /// What is rare in it is boxed: the whole of it is moved as it is spawned, several times.
    async fn see_write(self: Arc<Self>, request: WriteRequest, caller: Caller, mut answer: Answer) {
        loop {
            let Prepared { database, reach, kinds, key, beside } = match self.prepare_write(&request) {
                Ok(prepared) => prepared,
                Err(failure) => return answer.give(Err(failure)),
            };
            let (broker, database, request) = (&self, &database, &request);
            let write = Write { broker, database, reach, request, kinds, caller: caller.clone() };
            let unused = match key {
                Some(key) => Box::pin(write.run_keyed(&key, beside, answer)).await,
                None => write.run(answer).await,
            };
            // A reload has moved its database, and nothing of it is kept where that was.
            let Some(unused) = unused else { return };
            answer = unused;
            broker.metrics.retried("write");
        }
    }

    fn prepare_write(&self, request: &WriteRequest) -> Result<Prepared, Failure> {
        let PlacedWrite { database, reach, beside } = self.place_write(&request.context)?;
        if request.statements.is_empty() {
            return Err(Failure::field(Reason::FieldMissing, "statements", "statements is empty; give at least one"));
        }
        let mut kinds = Vec::with_capacity(request.statements.len());
        for (index, statement) in request.statements.iter().enumerate() {
            let inspected = sql::inspect(&statement.sql, sql::Place::Write)
                .map_err(|error| Failure::from(error).at_statement(Some(index)))?;
            kinds.push(inspected.kind);
        }
        check_outside_transaction(request, &kinds)?;
        let key = keyed::key_of(request)?;
        if key.is_some() && database.is_pooled() {
            return Err(not_through_a_proxy("idempotency_key", "an idempotency key"));
        }
        Ok(Prepared { database, reach, kinds, key, beside })
    }
}

fn check_outside_transaction(request: &WriteRequest, kinds: &[sql::Kind]) -> Result<(), Failure> {
    let field = |message: &str| Err(Failure::field(Reason::FieldInvalid, "outside_transaction", message));
    if !request.outside_transaction {
        let index = kinds.iter().position(|kind| *kind == sql::Kind::OutsideTransaction);
        return index.map_or(Ok(()), |index| {
            let message = "the statement cannot run inside a transaction; send it alone, with outside_transaction set";
            Err(Failure::field(Reason::OutsideTransactionRequired, "statement.sql", message).at_statement(Some(index)))
        });
    }
    if !request.context.settings.is_empty() {
        return field("outside_transaction does not go with context.settings, which are a transaction's");
    }
    match kinds {
        [sql::Kind::OutsideTransaction] if request.isolation.is_some() => {
            field("outside_transaction does not go with isolation")
        }
        [sql::Kind::OutsideTransaction] => Ok(()),
        [_] => field(
            "outside_transaction is for statements that cannot run inside a transaction, such as VACUUM; leave it unset",
        ),
        _ => field("outside_transaction goes with exactly one statement"),
    }
}

/// The way back to the caller; used once.
pub(super) struct Answer(Option<oneshot::Sender<Result<WriteResult, Failure>>>);

impl Answer {
    pub(super) fn give(mut self, result: Result<WriteResult, Failure>) {
        self.send(result);
    }

    pub(super) fn send(&mut self, result: Result<WriteResult, Failure>) {
        if let Some(sender) = self.0.take() {
            // A caller that left hears nothing.
            let _ = sender.send(result);
        }
    }
}

/// How a write ended where it was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Course {
    /// The caller has its answer; or what was wanted is there.
    Over,
    /// A reload has moved its database, and nothing of it is kept here: it may go on there.
    Moved,
}

/// A write under way; how it is executed is `execute`'s.
pub(super) struct Write<'a> {
    pub(super) broker: &'a Arc<Broker>,
    pub(super) database: &'a Arc<Database>,
    pub(super) reach: Reach,
    pub(super) request: &'a WriteRequest,
    pub(super) kinds: Vec<sql::Kind>,
    pub(super) caller: Caller,
}

impl Write<'_> {
    /// Gives the answer back, unused, when a reload has moved its database before anything of the write ran.
    async fn run(&self, mut answer: Answer) -> Option<Answer> {
        let mut patience = self.patience();
        while let Err(failure) = self.require_clean().await {
            if let Err(failure) = patience.wait_for_change(failure).await {
                return self.give_up(failure, answer);
            }
        }
        loop {
            let failure = match self.seat(patience.attempts).await {
                Ok((receipt, seat)) => match self.execute(receipt, seat, answer).await {
                    Some(unused) => {
                        answer = unused.answer;
                        if unused.at_once {
                            continue;
                        }
                        unused.failure
                    }
                    None => return None,
                },
                Err(failure) => failure,
            };
            if let Err(failure) = patience.wait_for_change(failure).await {
                return self.give_up(failure, answer);
            }
        }
    }

    fn give_up(&self, failure: Failure, answer: Answer) -> Option<Answer> {
        if self.database.has_left(&failure) {
            return Some(answer);
        }
        answer.give(Err(failure));
        None
    }

    async fn require_clean(&self) -> Result<(), Failure> {
        for (index, statement) in self.request.statements.iter().enumerate() {
            let clean = self.broker.require_clean(self.database, &statement.sql, Deed::Write, &self.caller).await;
            clean.map_err(|failure| failure.at_statement(Some(index)))?;
        }
        Ok(())
    }

    pub(super) fn patience(&self) -> Patience<'_> {
        Patience::new(self.broker, self.database, &self.caller, Kind::Write)
    }

    /// A connection to the primary, as soon as there is one.
    pub(super) async fn find_seat(&self, patience: &mut Patience<'_>) -> Result<(Receipt, Seat), Failure> {
        loop {
            match self.seat(patience.attempts).await {
                Ok(found) => return Ok(found),
                Err(failure) => patience.wait_for_change(failure).await?,
            }
        }
    }

    /// Chooses the primary and takes a connection to it.
    async fn seat(&self, attempts: u32) -> Result<(Receipt, Seat), Failure> {
        let (receipt, seat) = self.broker.primary_seat(self.database, &self.caller, attempts, false).await?;
        self.broker.metrics.waited("connection", seat.waited);
        self.broker.count_route(self.database, &receipt);
        Ok((receipt, seat))
    }
}

/// A fault of the broker itself, in the middle of a write.
pub(super) fn ended_early() -> Failure {
    Failure::new(Reason::Internal, "the write's task ended early").outcome(Outcome::Unknown)
}
