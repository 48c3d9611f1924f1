//! One statement on the connection of a session's open transaction: it leaves the transaction as it was, failed, or gone.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;

use super::{Gone, Session, SessionReply, SessionRequest, transaction::Pinned};
use crate::{
    broker::{
        Broker, Failure, Outcome, Reason, StatementOutcome, StatementText,
        caller::Caller,
        clean::Deed,
        collect::{NotCollected, collect, result_room},
        database::Database,
        pools::Seat,
        reach::Reach,
        ready::{NotReady, Ready, is_stale, name_parameter},
        seen::{Hold, SeenOn},
        stream::{self, PartLimits, PartSender, PartWriter, Stopped},
    },
    codec::Param,
    postgres::{Exchange, Prepared, Savepoint, Wrap},
    sql,
};

/// How long a statement may take to stop after its cancel; the connection is closed instead after that, so that the
/// client has its answer soon after the deadline.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// `invalid_savepoint_specification`: there is none of that name.
const UNKNOWN_SAVEPOINT: &str = "3B001";

impl Session {
    /// Runs a statement inside the open transaction.
    pub(super) async fn run_pinned(&mut self, id: u64, request: SessionRequest, caller: &Caller) -> Result<(), Gone> {
        let (statement, max_message_bytes) = match &request {
            SessionRequest::Read { statement, max_message_bytes, .. } => (statement, Some(*max_message_bytes)),
            SessionRequest::Write { statement, .. } => (statement, None),
            // Nothing else runs as a statement.
            _ => return Ok(()),
        };
        let Some(mut pinned) = self.pinned.take() else { return self.fail(id, unpinned()).await };
        let broker = Arc::clone(&self.broker);
        let idle = self.broker.settings().stream_idle_timeout;
        let position = self.context.positions.last().cloned().unwrap_or_default();
        let reach = match self.reach_of(&pinned) {
            Ok(reach) => reach,
            Err(failure) => return self.break_off(id, pinned, Broken::unsent(failure)).await,
        };
        let database = Arc::clone(&pinned.database);
        let (pin, reach) = (&mut pinned, reach.as_ref());
        let statement = Statement { broker: &broker, database: &database, pinned: pin, statement, caller, reach };
        let result = match max_message_bytes {
            Some(limit) => {
                let (out, parts) = stream::channel(idle, None);
                let forwarded = self.forward(id, parts);
                let (result, forwarded) = join(statement.read(out, limit, position), forwarded).await;
                // What the stream says of a failure, the statement's own result says better.
                let _ = forwarded?;
                result.map(|()| None)
            }
            None => statement.write().await.map(|(outcome, token)| {
                self.carry(&token);
                Some(outcome)
            }),
        };
        match result {
            Ok(outcome) => {
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                match outcome {
                    Some(outcome) => {
                        let reply = SessionReply::Write { outcome, replayed: false };
                        self.answer(id, Some(receipt), reply).await
                    }
                    None => Ok(()),
                }
            }
            Err(broken) => self.break_off(id, pinned, broken).await,
        }
    }

    /// Sets, releases or goes back to a savepoint of the open transaction; the last heals one that has failed.
    pub(super) async fn savepoint(
        &mut self,
        id: u64,
        named: u64,
        savepoint: Savepoint,
        name: &str,
        caller: &Caller,
    ) -> Result<(), Gone> {
        let checked = match savepoint {
            Savepoint::RollbackTo => self.state.check_rollback(named),
            Savepoint::Set | Savepoint::Release => self.state.check_savepoint(named),
        };
        if let Err(error) = checked {
            return self.fail(id, error.into()).await;
        }
        let Some(mut pinned) = self.pinned.take() else { return self.fail(id, unpinned()).await };
        let done = tokio::select! {
            done = pinned.seat.savepoint(savepoint, name) => done.map_err(Stopped::Server),
            interrupted = caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        let broken = match done {
            Ok(()) => {
                if savepoint == Savepoint::RollbackTo {
                    self.state.rolled_back_to_savepoint();
                }
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                return self.answer(id, Some(receipt), SessionReply::Done).await;
            }
            // PostgreSQL fails the transaction when there is no such savepoint, too.
            Err(Stopped::Server(error)) => {
                let lost = error.ends_connection();
                let field = if savepoint == Savepoint::RollbackTo { "rollback.to_savepoint" } else { "savepoint.name" };
                let unknown = error.sqlstate() == UNKNOWN_SAVEPOINT;
                let mut failure = Failure::from_exchange(error, Outcome::RolledBack);
                if unknown {
                    failure.field = field.into();
                }
                Broken::failed(failure, lost)
            }
            Err(Stopped::Here(failure)) => Broken::failed(failure, !stopped(&mut pinned.seat).await),
        };
        self.break_off(id, pinned, broken).await
    }

    /// Answers with the failure of something in the open transaction, which has failed, or is lost with its connection.
    pub(super) async fn break_off(&mut self, id: u64, pinned: Pinned, broken: Broken) -> Result<(), Gone> {
        let failure = broken.failure.with_receipt(&pinned.receipt);
        if broken.transaction_failed {
            self.state.statement_failed();
        }
        if broken.connection_lost {
            // PostgreSQL rolls it back by itself; nothing of it can be used any more. Closed before the client is told,
            // who may read slowly.
            drop(pinned);
            self.state.end();
            self.tell_notices().await?;
            self.notices = None;
            self.tell_of_loss(failure.server.clone()).await?;
        } else {
            self.pinned = Some(pinned);
        }
        self.fail(id, failure).await
    }
}

pub(super) fn unpinned() -> Failure {
    Failure::new(Reason::Internal, "an open transaction without a connection")
}

/// A statement inside a transaction failed.
pub(super) struct Broken {
    pub(super) failure: Failure,
    pub(super) connection_lost: bool,
    transaction_failed: bool,
}

impl Broken {
    /// Nothing was sent: the transaction is as it was.
    fn unsent(failure: Failure) -> Broken {
        Broken { failure, connection_lost: false, transaction_failed: false }
    }

    pub(super) fn failed(failure: Failure, connection_lost: bool) -> Broken {
        Broken { failure: failure.outcome(Outcome::RolledBack), connection_lost, transaction_failed: true }
    }

    pub(super) fn not_ready(not_ready: NotReady) -> Broken {
        match not_ready {
            // PostgreSQL fails the transaction when it cannot parse, too.
            NotReady::Server(error) => {
                let lost = error.ends_connection();
                Broken::failed(Failure::from_exchange(error, Outcome::RolledBack), lost)
            }
            NotReady::Codec(error) => Broken::unsent(error.into()),
        }
    }
}

/// Cancels what runs and waits, briefly, until it has ended; true if the connection can still be used.
pub(super) async fn stopped(seat: &mut Seat) -> bool {
    seat.cancel();
    matches!(tokio::time::timeout(STOP_LIMIT, seat.absorb_cancel()).await, Ok(Ok(())))
}

/// One statement on a pinned connection.
struct Statement<'a> {
    broker: &'a Broker,
    database: &'a Database,
    pinned: &'a mut Pinned,
    statement: &'a StatementText,
    caller: &'a Caller,
    /// Whom what it sees binds, when the transaction is CAUSAL.
    reach: Option<&'a Reach>,
}

impl Statement<'_> {
    async fn read(mut self, out: PartSender, max_message_bytes: usize, position: String) -> Result<(), Broken> {
        let Ready { prepared, params } = self.prepare().await?;
        let limits = PartLimits::new(self.broker.settings().batch_bytes, max_message_bytes);
        let receipt = self.pinned.receipt.clone();
        let hold = self.reach.map(|reach| reach.hold(self.broker));
        let mut writer = PartWriter::new(&out, &prepared, receipt, limits).map_err(Broken::unsent)?;
        if let Some(hold) = &hold {
            writer.hold(hold);
        }
        let mut exchange = self.start(&prepared, params);
        let mut recorded = None;
        let pump = async {
            writer.take_all(&mut exchange, |_| {}).await?;
            recorded = self.seen(&mut exchange).await;
            if let Some(hold) = &hold {
                hold.end();
            }
            writer.finish(recorded.clone().unwrap_or(position)).await.map_err(Stopped::Here)
        };
        let ended = tokio::select! {
            ended = pump => ended,
            interrupted = self.caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        let mut concluded = self.conclude(ended, exchange, &prepared).await;
        let shown = hold.as_ref().is_some_and(Hold::is_on);
        if let (Err(broken), Some(reach)) = (&mut concluded, self.reach) {
            broken.failure.position = match recorded {
                // Asked behind it, the transaction would not answer any more.
                None if shown => reach.mark_unknown(self.broker, self.database),
                // Rows were sent, and the end of the result did not reach the client.
                recorded => recorded.unwrap_or_default(),
            };
        }
        concluded
    }

    fn start(&mut self, prepared: &Prepared, params: Vec<Param>) -> Exchange {
        let mut exchange = Exchange::start(&mut self.pinned.seat, Wrap::Transaction, prepared, params);
        if self.reach.is_some() {
            exchange.ask_seen(&self.pinned.seat);
        }
        exchange
    }

    /// Stores what a statement of a CAUSAL transaction has seen; the token.
    async fn seen(&self, exchange: &mut Exchange) -> Option<String> {
        let reach = self.reach?;
        let on = SeenOn { host: self.pinned.receipt.host_id, facts: self.pinned.seat.facts() };
        Some(reach.record_seen(self.broker, self.database, on, exchange.seen().await))
    }

    async fn write(mut self) -> Result<(StatementOutcome, String), Broken> {
        let Ready { prepared, params } = self.prepare().await?;
        let mut exchange = self.start(&prepared, params);
        if self.pinned.transaction_id.is_none() {
            exchange.ask_transaction_id(&self.pinned.seat);
        }
        let limit = result_room(&self.broker.settings());
        let collecting = async {
            let collected = collect(&mut exchange, &prepared, limit).await.map_err(|failed| match failed {
                NotCollected::Server(error) => Stopped::Server(error),
                failed => Stopped::Here(failed.into_failure(Outcome::RolledBack)),
            })?;
            let transaction_id = exchange.transaction_id().await;
            Ok((collected, transaction_id, self.seen(&mut exchange).await))
        };
        let collected = tokio::select! {
            collected = collecting => collected,
            interrupted = self.caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        match collected {
            Ok((collected, transaction_id, token)) => {
                self.pinned.transaction_id = self.pinned.transaction_id.or(transaction_id);
                Ok((collected.outcome, token.unwrap_or_default()))
            }
            Err(stopped) => Err(match self.conclude(Err(stopped), exchange, &prepared).await {
                Err(broken) => broken,
                Ok(()) => Broken::failed(Failure::new(Reason::Internal, "a stopped statement that did not fail"), true),
            }),
        }
    }

    /// Brings a statement that was stopped to its end, so that the rollback behind it is not hit by a late cancel.
    async fn conclude(
        &mut self,
        ended: Result<(), Stopped>,
        exchange: Exchange,
        prepared: &Prepared,
    ) -> Result<(), Broken> {
        match ended {
            Ok(()) => Ok(()),
            Err(Stopped::Server(error)) => {
                let lost = error.ends_connection();
                if is_stale(prepared, &error) {
                    // The transaction has failed; when it is tried again, the statement is prepared anew.
                    self.pinned.seat.forget(&self.statement.sql);
                }
                let failure = Failure::from_exchange(error, Outcome::RolledBack);
                Err(Broken::failed(name_parameter(failure, self.statement, prepared), lost))
            }
            Err(Stopped::Here(failure)) => {
                let seat = &mut self.pinned.seat;
                drop(exchange);
                Err(Broken::failed(failure, !stopped(seat).await))
            }
        }
    }

    async fn prepare(&mut self) -> Result<Ready, Broken> {
        let inspected =
            sql::inspect(&self.statement.sql, sql::Place::Transaction).map_err(|error| Broken::unsent(error.into()))?;
        if inspected.kind == sql::Kind::OutsideTransaction {
            let message = "the statement cannot run inside a transaction; send it alone with ExecuteWrite and outside_transaction";
            let failure = Failure::field(Reason::OutsideTransactionRequired, "statement.sql", message);
            return Err(Broken::unsent(failure));
        }
        let clean = self.broker.require_clean(self.database, &self.statement.sql, Deed::Write, self.caller).await;
        clean.map_err(Broken::unsent)?;
        let seat = &mut self.pinned.seat;
        let ready = tokio::select! {
            ready = Ready::make(seat, self.statement) => ready,
            interrupted = self.caller.interrupted() => {
                return Err(Broken::failed(interrupted.failure(), !stopped(seat).await));
            }
        };
        ready.map_err(Broken::not_ready)
    }
}
