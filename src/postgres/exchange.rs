//! One statement on one connection, with what is wrapped around it, sent in a single flush: `BEGIN READ ONLY` before a
//! read, the WAL position behind a write, the reset behind both. Nothing here waits for an answer before all of it is
//! queued, so each costs one round trip.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use futures_util::{Stream, future::BoxFuture};
use tokio_postgres::{Client, Row, RowStream, types::PgLsn};

use super::{
    connection::{Connection, Prepared},
    error::PgError,
    reset::{SETTLE_LIMIT, queue_reset, reset_after_cancel},
    rows::RawRow,
    seen::{Seen, queue_seen},
    statements::SchemaVersion,
    transaction::Begin,
};
use crate::{codec::Param, model::Lsn, sql::LocalSettings};

const TRANSACTION_ID: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text::pg_catalog.int8";

/// What PostgreSQL answers to a statement in a failed transaction. Behind a BEGIN that failed itself a statement runs
/// outside, and nothing on that connection can be trusted; behind one whose settings failed it gets this.
const FAILED_TRANSACTION: &str = "25P02";

/// A request that is queued on the connection already; awaiting it only awaits the answer.
pub(super) enum Queued<T> {
    Waiting(BoxFuture<'static, T>),
    Done(Option<T>),
}

impl<T: Send + 'static> Queued<T> {
    /// The first poll encodes and queues the request (tokio-postgres sends in the order of first polls).
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Queued<T> {
        let mut future: BoxFuture<'static, T> = Box::pin(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Queued::Done(Some(value)),
            Poll::Pending => Queued::Waiting(future),
        }
    }

    /// The answer, once; dropping the returned future loses nothing. None when it was taken before.
    pub(super) async fn answer(&mut self) -> Option<T> {
        if let Queued::Waiting(future) = self {
            let value = future.as_mut().await;
            *self = Queued::Done(Some(value));
        }
        match self {
            Queued::Done(value) => value.take(),
            Queued::Waiting(_) => None,
        }
    }
}

pub(super) enum Rows {
    Starting(Queued<Result<RowStream, tokio_postgres::Error>>),
    Flowing(Pin<Box<RowStream>>),
    Ended,
}

/// What stands around the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrap<'a> {
    /// `BEGIN READ ONLY` and these settings before, `ROLLBACK` and reset behind.
    ReadOnly(&'a LocalSettings),
    /// The same, with the question of what the statement has seen behind it, also when it failed.
    Causal(&'a LocalSettings),
    /// A read that is known to be clean (rule 14): nothing around it. Only the start-up option keeps it from writing, and it
    /// leaves nothing to be undone.
    Clean,
    /// By itself (it commits by itself), its position and a reset behind.
    Autocommit,
    /// A write that is known to be clean: the same without the reset.
    CleanAutocommit,
    /// Inside a transaction that is open already: nothing around it.
    Transaction,
}

/// A statement under way, with all that was queued around it.
pub struct Exchange {
    before: Option<Queued<Result<(), tokio_postgres::Error>>>,
    pub(super) rows: Rows,
    position: Option<Queued<Result<Lsn, PgError>>>,
    transaction_id: Option<Queued<Option<TransactionId>>>,
    pub(super) seen: Option<Queued<Result<Seen, PgError>>>,
    /// Its answer.
    pub(super) caught: Option<Seen>,
    reset: Option<Queued<Result<bool, PgError>>>,
    rows_affected: u64,
    begin_failed: bool,
    /// Nothing is to be undone behind it.
    is_clean: bool,
    /// To be told once the statement has committed by itself.
    changes: Option<Arc<SchemaVersion>>,
}

impl Exchange {
    /// Queues everything, in order. The connection counts as in use until [`Exchange::settle`].
    pub fn start(connection: &mut Connection, wrap: Wrap<'_>, prepared: &Prepared, params: Vec<Param>) -> Exchange {
        connection.take_into_use();
        connection.statements.will_change(prepared.change);
        let before = match wrap {
            Wrap::ReadOnly(settings) | Wrap::Causal(settings) if !connection.is_pooled() => {
                // One batch: what fails in it leaves the transaction failed, and the statement behind it with it.
                let begin = Begin { read_only: true, settings: settings.clone(), ..Begin::default() };
                Some(queue_batch(&connection.client, begin.sql()))
            }
            // It has begun already, if it is pooled.
            _ => None,
        };
        let client = Arc::clone(&connection.client);
        let statement = prepared.statement.clone();
        let rows = Rows::Starting(Queued::new(async move { client.query_raw(&statement, params).await }));
        let commits = matches!(wrap, Wrap::Autocommit | Wrap::CleanAutocommit);
        let position = commits.then(|| queue_position(connection)).flatten();
        let seen = match wrap {
            // Behind a proxy only the transaction says which server it is on.
            Wrap::Causal(_) if connection.is_pooled() => Some(queue_seen(connection, "")),
            // Outside of it, so that a statement that failed does not fail this too.
            Wrap::Causal(_) => Some(queue_seen(connection, "ROLLBACK; ")),
            _ => None,
        };
        let reset = match wrap {
            // Behind the end of a transaction that is pooled the statement could not be closed any more.
            Wrap::ReadOnly(_) | Wrap::Causal(_) if connection.is_pooled() => None,
            Wrap::ReadOnly(_) => Some(queue_reset(connection, "ROLLBACK; ")),
            Wrap::Causal(_) | Wrap::Autocommit => Some(queue_reset(connection, "")),
            Wrap::Clean | Wrap::CleanAutocommit | Wrap::Transaction => None,
        };
        let changes = (wrap == Wrap::Autocommit).then(|| connection.statements.changing(prepared.change)).flatten();
        Exchange {
            before,
            rows,
            position,
            transaction_id: None,
            seen,
            caught: None,
            reset,
            rows_affected: 0,
            begin_failed: false,
            is_clean: matches!(wrap, Wrap::Clean | Wrap::CleanAutocommit),
            changes,
        }
    }

    /// The next row; None at the end, when the statement is known to have succeeded. Cancel-safe.
    pub async fn next_row(&mut self) -> Result<Option<RawRow>, PgError> {
        self.rows_while(|_| false).await
    }

    /// Hands over the rows as they come, while `goes_on` says so; answers the row at which it did not. None at the end, as
    /// for [`Exchange::next_row`]. Of a long result no row is moved, or takes a future, by itself. Cancel-safe.
    pub async fn rows_while(&mut self, mut goes_on: impl FnMut(&RawRow) -> bool) -> Result<Option<RawRow>, PgError> {
        if let Some(before) = &mut self.before {
            let answer = before.answer().await;
            self.before = None;
            if let Some(Err(error)) = answer {
                self.begin_failed = true;
                return Err(error.into());
            }
        }
        loop {
            match &mut self.rows {
                Rows::Starting(queued) => match queued.answer().await {
                    Some(Ok(stream)) => self.rows = Rows::Flowing(Box::pin(stream)),
                    Some(Err(error)) => {
                        self.rows = Rows::Ended;
                        return Err(error.into());
                    }
                    None => self.rows = Rows::Ended,
                },
                Rows::Flowing(stream) => {
                    let stopped = poll_fn(|cx| {
                        loop {
                            match ready!(stream.as_mut().poll_next(cx)) {
                                Some(Ok(row)) => {
                                    let row = RawRow::new(row);
                                    if !goes_on(&row) {
                                        return Poll::Ready(Some(Ok(row)));
                                    }
                                }
                                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                                None => return Poll::Ready(None),
                            }
                        }
                    });
                    return match stopped.await {
                        Some(Ok(row)) => Ok(Some(row)),
                        Some(Err(error)) => {
                            self.rows = Rows::Ended;
                            Err(error.into())
                        }
                        None => {
                            self.rows_affected = stream.rows_affected().unwrap_or(0);
                            self.rows = Rows::Ended;
                            Ok(None)
                        }
                    };
                }
                Rows::Ended => return Ok(None),
            }
        }
    }

    /// Whether the statement was preceded by a BEGIN that failed, or a setting behind it.
    pub fn begin_failed(&self) -> bool {
        self.begin_failed
    }

    /// The count of the command tag; valid once the rows have ended.
    pub fn rows_affected(&self) -> u64 {
        self.rows_affected
    }

    /// The primary's insert position read behind the statement, also when that failed. Rows that nobody took are read
    /// first: their answers stand before this one's, and would hold it up for ever.
    pub async fn position(&mut self) -> Option<Result<Lsn, PgError>> {
        while let Ok(Some(_)) = self.next_row().await {}
        if let Some(schema) = self.changes.take() {
            schema.advance();
        }
        self.position.as_mut()?.answer().await
    }

    /// Asks for the transaction's id behind the statement, in the same flush: to be called right after
    /// [`Exchange::start`]. Should the commit's answer be lost, the server can be asked what became of it.
    pub fn ask_transaction_id(&mut self, connection: &Connection) {
        let client = Arc::clone(&connection.client);
        self.transaction_id = Some(Queued::new(async move {
            // Not prepared: the statement before it may have been a DEALLOCATE, and this must not fail its transaction.
            let row = client.query_typed_one(TRANSACTION_ID, &[]).await.ok()?;
            row.try_get::<_, Option<i64>>(0).ok().flatten().map(TransactionId)
        }));
    }

    /// The transaction's id, if [`Exchange::ask_transaction_id`] asked for it and it has one by now.
    pub async fn transaction_id(&mut self) -> Option<TransactionId> {
        while let Ok(Some(_)) = self.next_row().await {}
        self.transaction_id.as_mut()?.answer().await.flatten()
    }

    /// Ends the exchange in order, for the next caller: whatever is left is read to its end and the reset is awaited.
    /// A connection that cannot be proved clean within a bound stays soiled, and is closed instead of handed out.
    /// The statement, if it is not kept, ends before its transaction does. Answers what [`Exchange::seen`] does, also for a
    /// statement that was cancelled.
    pub async fn settle(mut self, prepared: Prepared, connection: &mut Connection) -> Option<Seen> {
        if connection.is_pooled() {
            let seen = tokio::time::timeout(SETTLE_LIMIT, self.seen()).await.ok().flatten();
            drop((self, prepared));
            connection.rollback().await;
            return seen;
        }
        let settled = tokio::time::timeout(SETTLE_LIMIT, self.settle_unbounded(connection)).await;
        if matches!(settled, Ok(Ok(true))) {
            if self.is_clean { connection.was_used_cleanly() } else { connection.was_reset() }
        }
        self.caught
    }

    async fn settle_unbounded(&mut self, connection: &mut Connection) -> Result<bool, PgError> {
        let mut ran_inside = false;
        loop {
            match self.next_row().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.ends_connection() => return Ok(false),
                Err(error) => {
                    ran_inside = error.sqlstate() == FAILED_TRANSACTION;
                    // The error of a BEGIN is followed by the statement's own.
                    if matches!(self.rows, Rows::Ended) {
                        break;
                    }
                }
            }
        }
        if self.begin_failed && !ran_inside {
            return Ok(false);
        }
        self.position().await;
        self.seen().await;
        let clean = match &mut self.reset {
            Some(reset) => {
                connection.statements.transaction_ended();
                reset.answer().await
            }
            // Whichever way it ended.
            None if self.is_clean => Some(Ok(!connection.is_closed())),
            // A statement inside a transaction leaves the reset to the transaction's end.
            None => return Ok(false),
        };
        if connection.is_cancelled() {
            // A late cancel may hit any statement up to the next round trip: let it hit an empty one, then reset anew.
            let clean = reset_after_cancel(connection).await;
            if self.seen.is_some() && self.caught.is_none() {
                // The cancel has hit the question too. Later is no less.
                self.caught = connection.seen().await;
            }
            return clean;
        }
        clean.unwrap_or(Ok(false))
    }
}

pub(super) fn queue_batch(client: &Arc<Client>, sql: String) -> Queued<Result<(), tokio_postgres::Error>> {
    let client = Arc::clone(client);
    Queued::new(async move { client.batch_execute(&sql).await })
}

pub(super) fn queue_position(connection: &Connection) -> Option<Queued<Result<Lsn, PgError>>> {
    if connection.is_pooled() {
        return Some(connection.queue_position_pooled());
    }
    let statement = connection.insert_position.clone()?;
    let client = Arc::clone(&connection.client);
    Some(Queued::new(async move {
        let row: Row = client.query_one(&statement, &[]).await?;
        let lsn: PgLsn = row.try_get(0)?;
        Ok(Lsn::new(lsn.into()))
    }))
}

/// A transaction's id with its epoch (`xid8`): unique for as long as the server does not lose WAL in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionId(pub(super) i64);

impl Connection {
    /// Reads the primary's insert position by itself: when a commit is known and only its capture failed (rule 3).
    pub async fn insert_position(&mut self) -> Result<Lsn, PgError> {
        self.take_into_use();
        let lost = || PgError::Protocol("a read connection cannot tell the insert position".into());
        let lsn = queue_position(self).ok_or_else(lost)?.answer().await.ok_or_else(lost)??;
        self.settled();
        Ok(lsn)
    }

    /// Swallows a cancel that may still be on its way, so that it cannot hit the next statement of a transaction. Waits
    /// until all that was sent before has ended.
    pub async fn absorb_cancel(&mut self) -> Result<(), PgError> {
        if self.is_cancelled() {
            // Behind everything else: its answer, even if it was cancelled itself, says that the rest has ended.
            let _ = self.client.simple_query("").await;
            if !self.cancel_delivered().await {
                return Err(PgError::Lost("a cancel could not be delivered for certain".into()));
            }
            let _ = self.client.simple_query("").await;
        }
        if self.is_closed() { Err(PgError::Lost("it ended".into())) } else { Ok(()) }
    }
}
