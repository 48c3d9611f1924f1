//! One read: its positions, the choice of a host, a connection that is proved to see them, the statement, the stream.
//! A failure before the first row is tried again on another host.

mod pump;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Broker, Failure, Outcome, ReadRequest, ReadStream, Reason, Receipt,
    await_topology::{Kind, Patience},
    caller::Caller,
    choose::{Chooser, needs_primary},
    clean::Deed,
    known::Known,
    lanes::Begun,
    placement::{ReadPlan, Side, is_of_followers},
    pools::Seat,
    ready::{Ready, is_stale, name_parameter},
    seen::SeenOn,
    stream::{self, PartLimits, PartSender, PartWriter, Stopped},
    wait::WaitLimit,
};
use crate::{
    model::{Consistency, HostSet, Role},
    postgres::{Begin, Exchange, Prepared, Seen},
    sql,
};

impl Broker {
    /// Starts a read. The work is done by a task of its own, which stops when the stream is dropped.
    pub fn read(self: &Arc<Self>, request: ReadRequest) -> ReadStream {
        self.read_on(request, Begun::default())
    }

    /// The same, of which something is decided already.
    pub(super) fn read_on(self: &Arc<Self>, request: ReadRequest, begun: Begun) -> ReadStream {
        let left = CancellationToken::new();
        let caller = Caller::new(left.clone(), request.deadline).known_as(request.context.caller.clone());
        let (out, stream) = stream::channel(self.settings().stream_idle_timeout, Some(left.drop_guard()));
        self.spawn_read(request, begun, caller, out);
        stream
    }

    pub(super) fn spawn_read(
        self: &Arc<Self>,
        request: ReadRequest,
        mut begun: Begun,
        caller: Caller,
        out: PartSender,
    ) {
        let broker = Arc::clone(self);
        let work = async move {
            let mut unsent = Some(out);
            // Again when a reload has moved its database before a row was sent.
            while let Some(out) = unsent {
                unsent = broker.run_read(&request, std::mem::take(&mut begun), &caller, out).await;
            }
        };
        self.tasks.spawn(work.in_current_span());
    }

    /// Gives the sender back when nothing was sent, and the database is elsewhere by now.
    async fn run_read(
        self: &Arc<Self>,
        request: &ReadRequest,
        begun: Begun,
        caller: &Caller,
        out: PartSender,
    ) -> Option<PartSender> {
        let ReadPlan { side, otherwise, consistency, by_rule } = match self.prepare_read(request, begun.plan) {
            Ok(plan) => plan,
            Err(failure) => {
                out.fail(failure);
                return None;
            }
        };
        let read = |side: Side, next| {
            let known = self.know(&side.database, &request.statement.sql);
            Read { broker: self, side, request, consistency, by_rule, next, known, caller: caller.clone() }
        };
        let mut limit = WaitLimit::of(self, &consistency, request.max_wait, caller);
        let second = otherwise.map(|side| read(side, None));
        let next = second.as_ref().map(Read::chooser);
        let left = read(side, next.as_ref()).run(out, &mut limit, begun.choice).await;
        let Some(second) = &second else { return left };
        let out = left?;
        let database = &second.side.database;
        self.metrics.placed(&database.name, &database.cluster_name, "follower");
        second.run(out, &mut limit, None).await
    }

    fn prepare_read(&self, request: &ReadRequest, plan: Option<ReadPlan>) -> Result<ReadPlan, Failure> {
        let planned = || self.plan_read(&request.context, request.consistency, request.consistency_is_stated);
        let plan = plan.map_or_else(planned, Ok)?;
        let statement = self.scans.inspect(&request.statement.sql, sql::Place::Read)?;
        if statement.kind == sql::Kind::OutsideTransaction {
            let message = "the statement cannot run in a read; send it with ExecuteWrite and outside_transaction";
            return Err(Failure::field(Reason::WriteInRead, "statement.sql", message));
        }
        Ok(plan)
    }
}

struct Read<'a> {
    broker: &'a Arc<Broker>,
    side: Side,
    request: &'a ReadRequest,
    consistency: Consistency,
    by_rule: bool,
    /// Its hosts follow the primary of another side, which is next: the choice there.
    next: Option<&'a Chooser<'a>>,
    /// The statement, where it matters whether it is clean.
    known: Option<Arc<Known>>,
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
    /// Gives the sender back when nothing was sent and the other side, or where the database is now, may do better.
    async fn run(
        &self,
        out: PartSender,
        limit: &mut WaitLimit,
        mut choice: Option<Result<Receipt, Failure>>,
    ) -> Option<PartSender> {
        let Read { broker, side: Side { database, .. }, request, caller, .. } = self;
        let mut patience = Patience::new(broker, database, caller, Kind::Read);
        while let Err(failure) = broker.require_clean(database, &request.statement.sql, Deed::Read, caller).await {
            let waited = if self.next.is_none() { patience.wait_for_change(failure).await } else { Err(failure) };
            if let Err(failure) = waited {
                return self.give_up(out, failure);
            }
        }
        let mut tried = HostSet::EMPTY;
        // Those on a lane, too.
        let mut attempts = choice.iter().flatten().next().map_or(0, |receipt| receipt.attempts - 1);
        let mut last: Option<Failure> = None;
        let mut out = Some(out);
        let mut anew = false;
        // Every host once, once more for a statement that must be prepared anew, and once for the primary.
        let round = database.hosts.len() as u32 + 2;
        let mut most = attempts + round;
        while let Some(sender) = out.take() {
            attempts += 1;
            let chosen = match choice.take() {
                Some(chosen) => chosen,
                None => self.chooser().choose_in_time(tried, attempts, limit, caller).await,
            };
            let receipt = match chosen {
                Ok(receipt) => receipt,
                Err(interrupted) if interrupted.is_interruption() => return self.give_up(sender, interrupted),
                // Where they follow a primary, that one is asked before anybody waits for them.
                Err(_) if self.next.is_some() => return Some(sender),
                // The reason why hosts were left out says more than that none is left.
                Err(rejected) => {
                    let failure = last.take().unwrap_or(rejected);
                    if let Err(failure) = patience.wait_for_a_host(failure, &self.chooser()).await {
                        return self.give_up(sender, failure);
                    }
                    (tried, most, out) = (HostSet::EMPTY, attempts + round, Some(sender));
                    continue;
                }
            };
            let (host, role) = (receipt.host_id, receipt.role);
            let (failure, again) = match self.attempt(receipt, anew, &mut out, sender).await {
                Attempt::Over => return None,
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
                return out.take().and_then(|sender| self.give_up(sender, failure));
            }
            broker.metrics.retried("read");
            last = Some(failure);
        }
        None
    }

    /// The end on this side.
    fn give_up(&self, sender: PartSender, failure: Failure) -> Option<PartSender> {
        if (self.next.is_some() && is_of_followers(&failure)) || self.side.database.has_left(&failure) {
            return Some(sender);
        }
        self.fail(sender, failure);
        None
    }

    fn chooser(&self) -> Chooser<'_> {
        let Read { broker, side, consistency, by_rule, next, .. } = self;
        side.chooser(broker, consistency, *by_rule, *next)
    }

    /// Ends the stream with a failure, which carries the caller's positions on, as a result does.
    fn fail(&self, sender: PartSender, mut failure: Failure) {
        if failure.position.is_empty() {
            failure.position = self.side.reach.token(self.broker);
        }
        sender.fail(failure);
    }

    fn is_causal(&self) -> bool {
        self.consistency == Consistency::Causal
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
        let database = &self.side.database;
        let seat = database.read(receipt.host_id, receipt.role == Role::Primary, &self.caller);
        let seat = tokio::select! {
            seat = self.broker.seat_in_turn(database, &self.caller, seat) => seat,
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
        let hold = self.side.reach.hold(self.broker);
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
        let wrap = self.wrap(&seat, &receipt);
        let mut exchange = Exchange::start(&mut seat, wrap, &prepared, params);
        let on = SeenOn { host: receipt.host_id, facts: seat.facts() };
        let mut recorded = String::new();
        let ended = tokio::select! {
            ended = self.pump(&mut exchange, &mut writer, on, &hold, &mut recorded) => ended,
            interrupted = self.caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
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
                let failure = failure.outcome(Outcome::RolledBack);
                // The caller is told first; then the statement is stopped, for the next one's sake.
                self.broker.metrics.cancelled(failure.cancel_cause());
                let shown = hold.is_on();
                // What is learnt later does not reach a caller who is told now.
                let position =
                    if shown { self.side.reach.unknown_token(self.broker, &self.side.database) } else { recorded };
                self.fail(sender, Failure { position, ..failure }.with_receipt(&receipt));
                let facts = seat.facts().clone();
                let seen = stop(exchange, prepared, seat).await;
                if shown {
                    let on = SeenOn { host: receipt.host_id, facts: &facts };
                    self.side.reach.record_seen(self.broker, &self.side.database, on, seen);
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
