//! A session's open transaction: one pinned connection to the primary, from its begin to its end.

use std::{sync::Arc, time::Duration};

use futures_util::future::join;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::{Gone, Session, SessionReply, SessionRequest, forward};
use crate::{
    broker::{
        Broker, Failure, Outcome, Reason, Receipt, Settings, StatementOutcome, StatementText,
        caller::Caller,
        collect::{NotCollected, collect, result_room},
        database::{Database, Seat},
        overseer::{Overseer, Seen, WrittenTo},
        reach::Reach,
        ready::{NotReady, Ready, is_stale, name_parameter},
        stream::{self, PartLimits, PartSender, PartWriter},
        write::ended_early,
    },
    clock,
    model::{Decision, HostSet, route_write},
    postgres::{Begin, CommitKind, Exchange, PgError, Prepared, Wrap},
    sql,
    telemetry::ActiveGuard,
};

/// How long a statement may take to stop after its cancel; the connection is closed instead after that, so that the
/// client has its answer soon after the deadline.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// The connection of the open transaction.
pub(super) struct Pinned {
    seat: Seat,
    receipt: Receipt,
    written_to: WrittenTo,
    read_only: bool,
    _open: ActiveGuard,
}

impl Session {
    pub(super) async fn begin(&mut self, id: u64, named: u64, begin: Begin, caller: &Caller) -> Result<(), Gone> {
        if named != 0 {
            let message = "a begin opens a transaction and cannot name one: leave transaction_id unset";
            return self.fail(id, Failure::field(Reason::FieldInvalid, "transaction_id", message)).await;
        }
        // Checked first, on a copy: a begin that fails leaves no transaction open for what is pipelined behind it.
        let mut state = self.state;
        if let Err(error) = state.begin(id) {
            return self.fail(id, error.into()).await;
        }
        match self.pin(begin, caller).await {
            Ok(pinned) => {
                self.state = state;
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                self.answer(id, Some(receipt), SessionReply::Done).await
            }
            Err(failure) => self.fail(id, failure.outcome(Outcome::NotExecuted)).await,
        }
    }

    async fn pin(&self, begin: Begin, caller: &Caller) -> Result<Pinned, Failure> {
        let mut receipt = {
            let snapshot = self.broker.topology.snapshot();
            let view = snapshot.cluster(self.database.cluster);
            match route_write(view, HostSet::EMPTY) {
                Decision::Send { host, reason, required } => {
                    self.broker.receipt(view, host, reason, required, 1, clock::now())
                }
                Decision::Reject(rejection) => {
                    self.broker.metrics.rejected(&self.database.name, rejection.as_str());
                    return Err(Failure::rejected(rejection, &self.database.name));
                }
            }
        };
        let host = self.database.host(receipt.host_id);
        let mut seat = tokio::select! {
            seat = host.write(caller.deadline()) => seat?,
            interrupted = caller.interrupted() => return Err(interrupted.failure()),
        };
        receipt.waited = seat.waited;
        let written_to =
            WrittenTo::of(&seat).filter(|_| self.broker.is_primary(&self.database, receipt.host_id, seat.facts()));
        let Some(written_to) = written_to else {
            // Not released: a connection to a server that was left behind is closed.
            return Err(Failure::outvoted().with_receipt(&receipt));
        };
        let begun = tokio::select! {
            begun = seat.begin(begin) => begun.map_err(|error| Failure::from_exchange(error, Outcome::NotExecuted)),
            interrupted = caller.interrupted() => Err(interrupted.failure()),
        };
        if let Err(failure) = begun {
            seat.rollback().await;
            return Err(failure.with_receipt(&receipt));
        }
        self.broker.count_route(&self.database, &receipt);
        Ok(Pinned {
            seat,
            receipt,
            written_to,
            read_only: begin.read_only,
            _open: self.broker.metrics.transaction_open(),
        })
    }

    pub(super) async fn commit(&mut self, id: u64, named: u64, caller: &Caller) -> Result<(), Gone> {
        if let Err(error) = self.state.check_commit(named) {
            return self.fail(id, error.into()).await;
        }
        self.state.end();
        let Some(mut pinned) = self.pinned.take() else {
            return self.fail(id, Failure::new(Reason::Internal, "an open transaction without a connection")).await;
        };
        let reach = match Reach::of(&self.broker, &self.database, &self.context) {
            Ok(reach) => reach,
            Err(failure) => {
                pinned.seat.rollback().await;
                return self.fail(id, failure.outcome(Outcome::RolledBack)).await;
            }
        };
        let receipt = pinned.receipt.clone();
        let commit = Commit {
            broker: Arc::clone(&self.broker),
            database: Arc::clone(&self.database),
            reach,
            caller: caller.clone(),
            pinned,
        };
        let (answer, answered) = oneshot::channel();
        // A task of its own: a client whose deadline passes, or that leaves, does not end the wait for the outcome.
        self.broker.tasks.spawn(commit.run(answer).in_current_span());
        match answered.await.unwrap_or_else(|_| Err(ended_early())) {
            Ok(token) => {
                self.carry(&token);
                self.answer(id, Some(receipt), SessionReply::Done).await
            }
            Err(failure) => self.fail(id, failure).await,
        }
    }

    /// Rolls back what is open, if anything is; the connection is free again afterwards.
    pub(super) async fn roll_back(&mut self) {
        self.state.end();
        if let Some(mut pinned) = self.pinned.take() {
            pinned.seat.rollback().await;
        }
    }

    /// Runs a statement inside the open transaction.
    pub(super) async fn run_pinned(&mut self, id: u64, request: SessionRequest, caller: &Caller) -> Result<(), Gone> {
        let (statement, max_message_bytes) = match &request {
            SessionRequest::Read { statement, max_message_bytes, .. } => (statement, Some(*max_message_bytes)),
            SessionRequest::Write { statement } => (statement, None),
            SessionRequest::Begin(_)
            | SessionRequest::Commit
            | SessionRequest::Rollback
            | SessionRequest::Refused(_) => return Ok(()),
        };
        let Some(mut pinned) = self.pinned.take() else {
            return self.fail(id, Failure::new(Reason::Internal, "an open transaction without a connection")).await;
        };
        let idle = self.broker.settings.stream_idle_timeout;
        let position = self.context.positions.last().cloned().unwrap_or_default();
        let statement = Statement { settings: &self.broker.settings, pinned: &mut pinned, statement, caller };
        let result = match max_message_bytes {
            Some(limit) => {
                let (out, parts) = stream::channel(idle, None);
                let forwarded = forward(&self.answers, idle, id, parts);
                let (result, forwarded) = join(statement.read(out, limit, position), forwarded).await;
                // What the stream says of a failure, the statement's own result says better.
                let _ = forwarded?;
                result.map(|()| None)
            }
            None => statement.write().await.map(Some),
        };
        match result {
            Ok(outcome) => {
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                match outcome {
                    Some(outcome) => self.answer(id, Some(receipt), SessionReply::Write(outcome)).await,
                    None => Ok(()),
                }
            }
            Err(broken) => {
                let failure = broken.failure.with_receipt(&pinned.receipt);
                if broken.transaction_failed {
                    self.state.statement_failed();
                }
                if broken.connection_lost {
                    // PostgreSQL rolls it back by itself; nothing of it can be used any more.
                    self.state.end();
                } else {
                    self.pinned = Some(pinned);
                }
                self.fail(id, failure).await
            }
        }
    }
}

/// The end of a transaction, seen through to its outcome.
struct Commit {
    broker: Arc<Broker>,
    database: Arc<Database>,
    reach: Reach,
    caller: Caller,
    pinned: Pinned,
}

impl Commit {
    /// Answers with the position's token once the outcome is known, or with UNKNOWN at the deadline; and goes on.
    async fn run(self, answer: oneshot::Sender<Result<String, Failure>>) {
        let Commit { broker, database, reach, caller, mut pinned } = self;
        let receipt = pinned.receipt.clone();
        if pinned.read_only {
            return commit_read_only(pinned, &caller, answer).await;
        }
        let overseer =
            Overseer { broker: &broker, database: &database, reach: &reach, caller: &caller, receipt: &receipt };
        let may_commit = broker.may_commit(&database, receipt.host_id, &pinned.seat);
        if let Err(failure) = may_commit {
            let _ = answer.send(Err(failure.with_receipt(&receipt)));
            return pinned.seat.rollback().await;
        }
        let mut answer = Some(answer);
        let mut tell = |result: Result<String, Failure>| {
            // A client that is gone hears nothing.
            answer.take().map(|answer| answer.send(result))
        };
        let committing = pinned.seat.commit(CommitKind::ReadWrite);
        match overseer.see_through(committing, None, |failure| drop(tell(Err(failure)))).await {
            Seen::Ended((Ok(committed), reset), _) => {
                let token = overseer.store(pinned.written_to, committed.position).await;
                tell(Ok(token));
                pinned.seat.settle_commit(reset).await;
            }
            Seen::Ended((Err(error), reset), _) => {
                let failure = Failure::from_exchange(error, Outcome::Unknown).with_receipt(&receipt);
                if failure.outcome == Outcome::Unknown {
                    tell(Err(overseer.unknown(failure)));
                    return overseer.watch(pinned.seat.facts());
                }
                tell(Err(failure));
                pinned.seat.settle_commit(reset).await;
            }
            Seen::Lost => overseer.watch(pinned.seat.facts()),
        }
    }
}

/// What cannot have written has nothing to lose: it is not awaited beyond its time, and no outcome of it is unknown.
async fn commit_read_only(mut pinned: Pinned, caller: &Caller, answer: oneshot::Sender<Result<String, Failure>>) {
    let (result, reset) = tokio::select! {
        (committed, reset) = pinned.seat.commit(CommitKind::ReadOnly) => {
            let failed = |error| Failure::from_exchange(error, Outcome::RolledBack);
            (committed.map(|_| String::new()).map_err(failed), Some(reset))
        }
        interrupted = caller.interrupted() => (Err(interrupted.failure().outcome(Outcome::RolledBack)), None),
    };
    // A client that is gone hears nothing.
    let _ = answer.send(result.map_err(|failure| failure.with_receipt(&pinned.receipt)));
    // Without its reset the connection stays in use, and is closed.
    if let Some(reset) = reset {
        pinned.seat.settle_commit(reset).await;
    }
}

/// A statement inside a transaction failed.
struct Broken {
    failure: Failure,
    connection_lost: bool,
    transaction_failed: bool,
}

impl Broken {
    /// Nothing was sent: the transaction is as it was.
    fn unsent(failure: Failure) -> Broken {
        Broken { failure, connection_lost: false, transaction_failed: false }
    }

    fn failed(failure: Failure, connection_lost: bool) -> Broken {
        Broken { failure: failure.outcome(Outcome::RolledBack), connection_lost, transaction_failed: true }
    }
}

/// Cancels what runs and waits, briefly, until it has ended; true if the connection can still be used.
async fn stopped(seat: &mut Seat) -> bool {
    seat.cancel();
    matches!(tokio::time::timeout(STOP_LIMIT, seat.absorb_cancel()).await, Ok(Ok(())))
}

/// One statement on a pinned connection.
struct Statement<'a> {
    settings: &'a Settings,
    pinned: &'a mut Pinned,
    statement: &'a StatementText,
    caller: &'a Caller,
}

/// Why a statement on a pinned connection stopped.
enum Stopped {
    Server(PgError),
    Here(Failure),
}

impl Statement<'_> {
    async fn read(mut self, out: PartSender, max_message_bytes: usize, position: String) -> Result<(), Broken> {
        let Ready { prepared, params } = self.prepare().await?;
        let limits = PartLimits::new(self.settings.batch_bytes, max_message_bytes);
        let receipt = self.pinned.receipt.clone();
        let mut writer = PartWriter::new(&out, &prepared, receipt, limits).map_err(Broken::unsent)?;
        let mut exchange = Exchange::start(&mut self.pinned.seat, Wrap::Transaction, &prepared, params);
        let pump = async {
            while let Some(row) = exchange.next_row().await.map_err(Stopped::Server)? {
                writer.push(&row).await.map_err(Stopped::Here)?;
            }
            writer.finish(position).await.map_err(Stopped::Here)
        };
        let ended = tokio::select! {
            ended = pump => ended,
            interrupted = self.caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        self.conclude(ended, exchange, &prepared).await
    }

    async fn write(mut self) -> Result<StatementOutcome, Broken> {
        let Ready { prepared, params } = self.prepare().await?;
        let mut exchange = Exchange::start(&mut self.pinned.seat, Wrap::Transaction, &prepared, params);
        let limit = result_room(self.settings);
        let collected = tokio::select! {
            collected = collect(&mut exchange, &prepared, limit) => collected.map_err(|failed| match failed {
                NotCollected::Server(error) => Stopped::Server(error),
                failed => Stopped::Here(failed.into_failure(Outcome::RolledBack)),
            }),
            interrupted = self.caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        match collected {
            Ok(collected) => Ok(collected.outcome),
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
        let inspected = sql::inspect(&self.statement.sql).map_err(|error| Broken::unsent(error.into()))?;
        if inspected.kind == sql::Kind::OutsideTransaction {
            let message = "the statement cannot run inside a transaction; send it alone with ExecuteWrite and outside_transaction";
            let failure = Failure::field(Reason::OutsideTransactionRequired, "statement.sql", message);
            return Err(Broken::unsent(failure));
        }
        let seat = &mut self.pinned.seat;
        let ready = tokio::select! {
            ready = Ready::make(seat, self.statement) => ready,
            interrupted = self.caller.interrupted() => {
                return Err(Broken::failed(interrupted.failure(), !stopped(seat).await));
            }
        };
        ready.map_err(|not_ready| match not_ready {
            // PostgreSQL fails the transaction when it cannot parse, too.
            NotReady::Server(error) => {
                let lost = error.ends_connection();
                Broken::failed(Failure::from_exchange(error, Outcome::RolledBack), lost)
            }
            NotReady::Codec(error) => Broken::unsent(error.into()),
        })
    }
}
