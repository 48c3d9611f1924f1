//! One read: its positions, the choice of a host, a connection that is proved to see them, the statement, the stream.
//! A failure before the first row is tried again on another host.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Broker, Failure, Outcome, ReadRequest, ReadStream, Reason, Receipt,
    await_topology::{Kind, Patience},
    caller::Caller,
    choose::{Chooser, needs_primary},
    clean::Deed,
    database::Database,
    pools::Seat,
    reach::Reach,
    ready::{Ready, is_stale, name_parameter},
    seen::{Hold, SeenOn},
    stream::{self, PartLimits, PartSender, PartWriter},
    wait::WaitLimit,
};
use crate::{
    model::{Consistency, HostSet, Role},
    postgres::{Begin, Exchange, PgError, Prepared, Seen, Wrap},
    sql,
};

impl Broker {
    /// Starts a read. The work is done by a task of its own, which stops when the stream is dropped.
    pub fn read(self: &Arc<Self>, request: ReadRequest) -> ReadStream {
        let left = CancellationToken::new();
        let caller = Caller::new(left.clone(), request.deadline).known_as(request.context.caller.clone());
        let (out, stream) = stream::channel(self.settings().stream_idle_timeout, Some(left.drop_guard()));
        self.spawn_read(request, caller, out);
        stream
    }

    pub(super) fn spawn_read(self: &Arc<Self>, request: ReadRequest, caller: Caller, out: PartSender) {
        let broker = Arc::clone(self);
        let work = async move {
            match broker.prepare_read(&request) {
                Ok((database, reach)) => {
                    let read = Read { broker: &broker, database: &database, reach, request: &request, caller };
                    read.run(out).await;
                }
                Err(failure) => out.fail(failure),
            }
        };
        self.tasks.spawn(work.in_current_span());
    }

    fn prepare_read(&self, request: &ReadRequest) -> Result<(Arc<Database>, Reach), Failure> {
        let database = self.database(&request.context.database)?;
        let reach = Reach::of(self, &database, &request.context)?;
        let statement = sql::inspect(&request.statement.sql, sql::Place::Read)?;
        if statement.kind == sql::Kind::OutsideTransaction {
            let message = "the statement cannot run in a read; send it with ExecuteWrite and outside_transaction";
            return Err(Failure::field(Reason::WriteInRead, "statement.sql", message));
        }
        Ok((database, reach))
    }
}

struct Read<'a> {
    broker: &'a Broker,
    database: &'a Database,
    reach: Reach,
    request: &'a ReadRequest,
    caller: Caller,
}

/// How one attempt on one host ended.
enum Attempt {
    /// The stream is complete, or was given its verdict.
    Over,
    /// Nothing was sent: another attempt may do better.
    Failed(Failure),
    /// Nothing was sent, and the statement was prepared for what is no more (rule 17).
    Stale(Failure),
}

impl Read<'_> {
    async fn run(&self, out: PartSender) {
        let sql = &self.request.statement.sql;
        let mut patience = Patience::new(self.broker, self.database, &self.caller, Kind::Read);
        while let Err(failure) = self.broker.require_clean(self.database, sql, Deed::Read, &self.caller).await {
            if let Err(failure) = patience.wait_for_change(failure).await {
                return self.fail(out, failure);
            }
        }
        let mut tried = HostSet::EMPTY;
        let mut attempts = 0;
        let mut last: Option<Failure> = None;
        let mut out = Some(out);
        let mut anew = false;
        let Read { broker, request, caller, .. } = self;
        let mut limit = WaitLimit::of(broker, &request.consistency, request.max_wait, caller);
        // Every host once, once more for a statement that must be prepared anew, and once for the primary.
        let round = self.database.hosts.len() as u32 + 2;
        let mut most = round;
        while let Some(sender) = out.take() {
            attempts += 1;
            let receipt = match self.chooser().choose_in_time(tried, attempts, &mut limit, caller).await {
                Ok(receipt) => receipt,
                Err(interrupted) if interrupted.is_interruption() => return self.fail(sender, interrupted),
                // The reason why hosts were left out says more than that none is left.
                Err(rejected) => {
                    let failure = last.take().unwrap_or(rejected);
                    if let Err(failure) = patience.wait_for_a_host(failure, &self.chooser()).await {
                        return self.fail(sender, failure);
                    }
                    (tried, most, out) = (HostSet::EMPTY, attempts + round, Some(sender));
                    continue;
                }
            };
            let (host, role) = (receipt.host_id, receipt.role);
            let (failure, again) = match self.attempt(receipt, anew, &mut out, sender).await {
                Attempt::Over => return,
                Attempt::Stale(failure) => {
                    anew = true;
                    (failure, true)
                }
                Attempt::Failed(failure) if role == Role::Replica && needs_primary(&failure) => {
                    tried = self.chooser().all_replicas(tried);
                    (failure, true)
                }
                Attempt::Failed(failure) => {
                    tried = tried.with(host);
                    let again = failure.is_of_the_host() || failure.reason == Reason::PositionUnproved;
                    (failure, again)
                }
            };
            if !again || attempts >= most {
                if let Some(sender) = out.take() {
                    self.fail(sender, failure);
                }
                return;
            }
            self.broker.metrics.retried("read");
            last = Some(failure);
        }
    }

    fn chooser(&self) -> Chooser<'_> {
        let Read { broker, database, reach, request, .. } = self;
        Chooser { broker, database, reach, consistency: &request.consistency }
    }

    /// Ends the stream with a failure, which carries the caller's positions on, as a result does.
    fn fail(&self, sender: PartSender, mut failure: Failure) {
        if failure.position.is_empty() {
            failure.position = self.reach.token(self.broker);
        }
        sender.fail(failure);
    }

    fn is_causal(&self) -> bool {
        self.request.consistency == Consistency::Causal
    }

    /// One attempt on the receipt's host. Gives the sender back through `out` when nothing was sent. `anew` prepares the
    /// statement although the connection knows it.
    async fn attempt(
        &self,
        mut receipt: Receipt,
        anew: bool,
        out: &mut Option<PartSender>,
        sender: PartSender,
    ) -> Attempt {
        let seat = self.database.read(receipt.host_id, receipt.role == Role::Primary, &self.caller);
        let seat = tokio::select! {
            seat = self.broker.seat_in_turn(self.database, &self.caller, seat) => seat,
            interrupted = self.caller.interrupted() => Err(interrupted.failure()),
        };
        let mut seat = match seat {
            Ok(seat) => seat,
            Err(failure) => return hand_back(out, sender, failure.with_receipt(&receipt)),
        };
        receipt.waited += seat.waited;
        self.broker.metrics.waited("connection", seat.waited);
        if anew {
            seat.forget(&self.request.statement.sql);
        }
        let pooled = seat.is_pooled();
        match self.prepare(&mut seat, &receipt).await {
            Ok(ready) => self.execute(seat, receipt, ready, out, sender).await,
            Err(failure) if failure.is_interruption() => {
                self.fail(sender, failure.with_receipt(&receipt));
                seat.abandon().await;
                Attempt::Over
            }
            Err(failure) => {
                seat.leave().await;
                let failure = failure.of_read(&receipt);
                let is_of_a_name = pooled && failure.is_of_a_name();
                *out = Some(sender);
                if is_of_a_name { Attempt::Stale(failure) } else { Attempt::Failed(failure) }
            }
        }
    }

    /// Runs the prepared statement and streams its rows.
    async fn execute(
        &self,
        mut seat: Seat,
        receipt: Receipt,
        Ready { prepared, params }: Ready,
        out: &mut Option<PartSender>,
        sender: PartSender,
    ) -> Attempt {
        let hold = self.reach.hold(self.broker);
        let limits = PartLimits::new(self.broker.settings().batch_bytes, self.request.max_message_bytes);
        let mut writer = match PartWriter::new(&sender, &prepared, receipt.clone(), limits) {
            Ok(writer) => writer,
            Err(failure) => {
                seat.release_unused();
                drop(prepared);
                seat.leave().await;
                return hand_back(out, sender, failure.with_receipt(&receipt));
            }
        };
        if self.is_causal() {
            writer.hold(&hold);
        }
        let settings = &self.request.context.settings;
        let wrap = if self.is_causal() { Wrap::Causal(settings) } else { Wrap::ReadOnly(settings) };
        let mut exchange = Exchange::start(&mut seat, wrap, &prepared, params);
        let on = SeenOn { host: receipt.host_id, facts: seat.facts() };
        let ended = tokio::select! {
            ended = self.pump(&mut exchange, &mut writer, on, &hold) => ended,
            interrupted = self.caller.interrupted() => Err(Stopped::Here(interrupted.failure().outcome(Outcome::RolledBack))),
        };
        let sent = writer.has_sent();
        match ended {
            Ok(()) => {
                drop(sender);
                exchange.settle(prepared, &mut seat).await;
                Attempt::Over
            }
            Err(Stopped::Server(error)) => {
                let stale = is_stale(&prepared, &error);
                let failure = Failure::from_exchange(error, Outcome::RolledBack).of_read(&receipt);
                let failure = if exchange.begin_failed() {
                    let settings = self.request.context.settings.clone();
                    failure.of_begin(&Begin { settings, ..Begin::default() })
                } else {
                    name_parameter(failure, &self.request.statement, &prepared)
                };
                let position = self.seen_before_failure(&mut exchange, on, &hold).await;
                let failure = Failure { position, ..failure };
                if !sent {
                    exchange.settle(prepared, &mut seat).await;
                    *out = Some(sender);
                    return if stale { Attempt::Stale(failure) } else { Attempt::Failed(failure) };
                }
                self.fail(sender, failure);
                exchange.settle(prepared, &mut seat).await;
                Attempt::Over
            }
            Err(Stopped::Here(failure)) => {
                // The caller is told first; then the statement is stopped, for the next one's sake.
                self.broker.metrics.cancelled(failure.cancel_cause());
                let shown = hold.is_on();
                // What is learnt later does not reach a caller who is told now.
                let position = if shown { self.reach.unknown_token(self.broker, self.database) } else { String::new() };
                self.fail(sender, Failure { position, ..failure }.with_receipt(&receipt));
                let facts = seat.facts().clone();
                let seen = stop(exchange, prepared, seat).await;
                if shown {
                    let on = SeenOn { host: receipt.host_id, facts: &facts };
                    self.reach.record_seen(self.broker, self.database, on, seen);
                }
                Attempt::Over
            }
        }
    }

    /// Proves that the connection sees what the read must see, prepares the statement and encodes the parameters.
    async fn prepare(&self, seat: &mut Seat, receipt: &Receipt) -> Result<Ready, Failure> {
        if seat.is_pooled() {
            // What the proof rests on is what this transaction says.
            self.begin(seat).await?;
        }
        self.chooser().prove(seat, receipt)?;
        let ready = tokio::select! {
            // What is late already is not begun.
            biased;
            interrupted = self.caller.interrupted() => return Err(interrupted.failure()),
            ready = Ready::make(seat, &self.request.statement) => ready,
        };
        ready.map_err(|not_ready| not_ready.unexecuted(seat))
    }

    async fn begin(&self, seat: &mut Seat) -> Result<(), Failure> {
        let settings = self.request.context.settings.clone();
        let begin = Begin { read_only: true, settings, ..Begin::default() };
        let begun = tokio::select! {
            begun = seat.begin(&begin) => begun,
            interrupted = self.caller.interrupted() => return Err(interrupted.failure()),
        };
        begun.map_err(|error| Failure::from_exchange(error, Outcome::NotExecuted).of_begin(&begin))
    }

    async fn pump(
        &self,
        exchange: &mut Exchange,
        writer: &mut PartWriter<'_>,
        on: SeenOn<'_>,
        hold: &Hold<'_>,
    ) -> Result<(), Stopped> {
        let here = |failure: Failure| Stopped::Here(failure.outcome(Outcome::RolledBack));
        while let Some(row) = exchange.next_row().await.map_err(Stopped::Server)? {
            writer.push(&row).await.map_err(here)?;
        }
        let position = if self.is_causal() {
            let seen = exchange.seen().await;
            let token = self.reach.record_seen(self.broker, self.database, on, seen);
            hold.end();
            token
        } else {
            self.reach.token(self.broker)
        };
        writer.finish(position).await.map_err(here)
    }

    /// The token for a read that failed: of what it saw, when it is a CAUSAL one. Without an answer to that, rows that were
    /// sent make its session's next reads go to the primary.
    async fn seen_before_failure(&self, exchange: &mut Exchange, on: SeenOn<'_>, hold: &Hold<'_>) -> String {
        if !self.is_causal() {
            return String::new();
        }
        let seen = tokio::select! {
            seen = exchange.seen() => seen,
            _ = self.caller.interrupted() => None,
        };
        if seen.is_none() && !hold.is_on() {
            return String::new();
        }
        let token = self.reach.record_seen(self.broker, self.database, on, seen);
        hold.end();
        token
    }
}

enum Stopped {
    Server(PgError),
    /// Not by the server: the caller left, the deadline passed, a row does not fit.
    Here(Failure),
}

fn hand_back(out: &mut Option<PartSender>, sender: PartSender, failure: Failure) -> Attempt {
    *out = Some(sender);
    Attempt::Failed(failure)
}

/// Cancels what runs and makes the connection fit for the next caller, or closes it. Answers what was seen, if that was
/// asked for and is known.
async fn stop(exchange: Exchange, prepared: Prepared, mut seat: Seat) -> Option<Seen> {
    seat.cancel();
    exchange.settle(prepared, &mut seat).await
}
