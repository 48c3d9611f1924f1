//! One interactive session: requests one at a time, in order. Outside a transaction they are ordinary reads and writes;
//! a transaction pins a connection, which is `transaction`'s; what runs on it is `statement`'s.

mod aside;
mod command;
mod commit;
mod copy;
mod event;
mod pin;
mod queue;
mod seen;
mod statement;
mod transaction;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Broker, Context, Failure, Outcome, ReadRequest, Reason, Receipt, Settled, StatementText, WriteRequest,
    caller::Caller,
    database::Database,
    lanes::Begun,
    reach::Reach,
    stream::{self, ReadStream},
};
use crate::{
    clock,
    model::{Deadline, TransactionState},
    postgres::{Notices, ServerError},
};
use aside::Aside;
use event::{Event, Next};
use pin::Freshness;
use queue::Queued;
use transaction::Pinned;

pub use command::{Notice, SessionAnswer, SessionCommand, SessionEnd, SessionReply, SessionRequest};
pub use copy::{CopyPiece, copy_pieces};
pub use queue::{SessionQueue, SessionRequests, session_queue};

/// Sends an answer; an error means that the client is gone. Boxed as what is queued is: see [`session_queue`].
type Answers = mpsc::Sender<Box<SessionAnswer>>;

impl Broker {
    /// Serves one session until its commands end, its client is gone (`left`), or a limit is reached. An open
    /// transaction is rolled back and its connection freed before this returns.
    pub async fn serve_session(
        self: &Arc<Self>,
        context: Context,
        requests: SessionRequests,
        answers: Answers,
        left: CancellationToken,
    ) -> SessionEnd {
        // Decided once: what a session has begun on one side does not go on on the other.
        let placed = match self.place(&context) {
            Ok(placed) => placed,
            Err(failure) => return SessionEnd::Failed(Box::new(failure)),
        };
        let database = Arc::clone(placed.primary());
        // One token for all that it carries: what is answered stands for everything that came before.
        let merged = match Reach::of(self, &database, &context) {
            Ok(reach) => reach.token(self),
            Err(failure) => return SessionEnd::Failed(Box::new(failure)),
        };
        let positions = if merged.is_empty() { Vec::new() } else { vec![merged] };
        let context = Context { positions, settled: Some(Settled::of(&placed)), ..context };
        let _active = self.metrics.session_active();
        let lifetime = self.settings().session_max_lifetime;
        let dies_at = Deadline::after(clock::now(), lifetime);
        let SessionRequests { commands, cancels, finished } = requests;
        let idle_timeout = self.settings().stream_idle_timeout;
        let mut aside = Aside { answers: answers.clone(), cancels, unsaid: None, idle_timeout, lifetime, dies_at };
        let session = Session {
            broker: Arc::clone(self),
            database,
            operation: context.operation.clone(),
            context,
            answers,
            left,
            state: TransactionState::default(),
            pinned: None,
            notices: None,
            part: "",
            told_of_drain: false,
            used_at: clock::now(),
            dies_at,
        };
        let end = tokio::select! {
            end = session.run(commands, finished) => end,
            never = aside.run() => match never {},
        };
        match end {
            SessionEnd::Complete => Box::pin(aside.finish()).await,
            end => end,
        }
    }
}

pub(super) struct Session {
    broker: Arc<Broker>,
    /// Where its writes go.
    database: Arc<Database>,
    context: Context,
    /// The operation of requests that name none.
    operation: String,
    answers: Answers,
    left: CancellationToken,
    state: TransactionState,
    pinned: Option<Pinned>,
    /// What PostgreSQL says on the pinned connection without being asked.
    notices: Option<Notices>,
    /// The part of the request under way that its fields are in.
    part: &'static str,
    told_of_drain: bool,
    /// When the open transaction was begun, or last used.
    used_at: Instant,
    dies_at: Deadline,
}

impl Session {
    async fn run(mut self, mut commands: mpsc::Receiver<Box<Queued>>, finished: Arc<AtomicU64>) -> SessionEnd {
        let end = loop {
            let event = match self.next(&mut commands).await {
                Next::End(end) => break end,
                Next::Event(event) => event,
            };
            // Boxed: a future is as large as the largest that it awaits, and most sessions do nothing but wait.
            if let Err(Gone) = Box::pin(self.take(event, &finished)).await {
                let idle = Failure::new(Reason::StreamIdle, "the session's answers were not read");
                break if self.left.is_cancelled() { SessionEnd::Gone } else { SessionEnd::Failed(Box::new(idle)) };
            }
        };
        Box::pin(self.roll_back()).await;
        end
    }

    async fn take(&mut self, event: Event, finished: &AtomicU64) -> Result<(), Gone> {
        match event {
            Event::Command(queued) => {
                let (id, span) = (queued.command.id, queued.command.span.clone());
                let before = self.state.id();
                let named = Some(queued.command.transaction);
                let result = self.execute(*queued).instrument(span).await;
                // What runs beside the transaction is no use of it.
                if self.state.id() != before || self.state.id() == named {
                    self.used_at = clock::now();
                }
                finished.store(id, Ordering::Release);
                result
            }
            Event::TransactionIdle => self.lose_idle_transaction().await,
            Event::Heard(said) => self.hear(said).await,
            Event::Draining => self.tell_of_drain().await,
        }
    }

    async fn next(&mut self, commands: &mut mpsc::Receiver<Box<Queued>>) -> Next {
        let settings = &self.broker.settings();
        let open = self.state.id().is_some();
        let idle_until = Deadline::after(self.used_at, settings.transaction_idle_timeout);
        let failed = |reason: Reason, message: String| {
            let outcome = if open { Outcome::RolledBack } else { Outcome::NotExecuted };
            Next::End(SessionEnd::Failed(Box::new(Failure::new(reason, message).outcome(outcome))))
        };
        tokio::select! {
            biased;
            () = self.left.cancelled() => Next::End(SessionEnd::Gone),
            () = tokio::time::sleep_until(self.dies_at.instant().into()) => {
                let limit = settings.session_max_lifetime.as_secs_f64();
                let lost = if open { "; its open transaction was rolled back" } else { "" };
                failed(Reason::SessionLifetime, format!("the session has lived for its {limit} s{lost}; open another"))
            }
            command = commands.recv() => match command {
                Some(command) => Next::Event(Event::Command(command)),
                None => Next::End(SessionEnd::Complete),
            },
            // What is queued goes first; an idle session ends here, one with a transaction is told and may finish it.
            () = self.broker.draining.cancelled(), if !self.told_of_drain || !open => {
                if open { Next::Event(Event::Draining) } else { failed(Reason::Draining, "the broker is shutting down".into()) }
            }
            said = heard(&mut self.notices) => Next::Event(Event::Heard(said.map(Box::new))),
            () = tokio::time::sleep_until(idle_until.instant().into()), if open => Next::Event(Event::TransactionIdle),
        }
    }

    async fn execute(&mut self, queued: Queued) -> Result<(), Gone> {
        let Queued { command, cancelled } = queued;
        self.part = match &command.request {
            SessionRequest::Read { .. } => "read",
            SessionRequest::Write { .. } => "write",
            _ => "",
        };
        if let Err(failure) = self.take_positions(command.positions) {
            // Without a position: what the client holds, the refused ones too, is for it to keep.
            let reply = SessionReply::Failure(Box::new(failure));
            let answer = SessionAnswer { id: command.id, last: true, position: String::new(), receipt: None, reply };
            return self.send(answer).await;
        }
        self.context.operation = if command.operation.is_empty() { self.operation.clone() } else { command.operation };
        let (id, named) = (command.id, command.transaction);
        if named == 0 {
            // Of a database that is gone, whatever needs it says so.
            let _ = self.follow_database();
        }
        if cancelled.is_cancelled() {
            return self.fail(id, Failure::request_cancelled()).await;
        }
        let deadline = Deadline::after(clock::now(), command.timeout);
        let deadline = match command.request {
            // Soon over, and nobody is to be left without its outcome.
            SessionRequest::Commit => deadline,
            _ => deadline.min(self.dies_at),
        };
        let caller =
            Caller::new(self.left.clone(), deadline).cancellable(cancelled).known_as(self.context.caller.clone());
        match command.request {
            SessionRequest::Begin { begin, consistency, consistency_is_stated: is_stated, max_wait } => {
                let freshness = consistency.map(|consistency| Freshness { consistency, is_stated, max_wait });
                self.begin(id, named, begin, freshness, &caller).await
            }
            SessionRequest::Commit => self.commit(id, named, &caller).await,
            SessionRequest::CopyIn { sql, pieces } => self.copy_in(id, named, &sql, pieces, &caller).await,
            SessionRequest::CopyOut { sql } => self.copy_out(id, named, &sql, &caller).await,
            SessionRequest::Rollback => match self.state.check_rollback(named) {
                Ok(()) => {
                    self.roll_back().await;
                    self.answer(id, None, SessionReply::Done).await
                }
                Err(error) => self.fail(id, error.into()).await,
            },
            SessionRequest::Savepoint { savepoint, name } => self.savepoint(id, named, savepoint, &name, &caller).await,
            SessionRequest::Refused(failure) => self.fail(id, *failure).await,
            // Carried out when it came.
            SessionRequest::Cancel { .. } => self.answer(id, None, SessionReply::Done).await,
            SessionRequest::Read { .. } | SessionRequest::Write { .. } if named != 0 => match self.state.check(named) {
                Ok(()) => self.run_pinned(id, command.request, &caller).await,
                Err(error) => self.fail(id, error.into()).await,
            },
            SessionRequest::Read { statement, consistency, consistency_is_stated, max_wait, max_message_bytes } => {
                let request = ReadRequest {
                    context: self.context.clone(),
                    statement,
                    consistency,
                    consistency_is_stated,
                    max_wait,
                    max_message_bytes,
                    deadline,
                };
                self.read_outside(id, request, caller).await
            }
            SessionRequest::Write { statement, idempotency_key } => {
                self.write_outside(id, statement, idempotency_key, deadline, caller).await
            }
        }
    }

    async fn read_outside(&mut self, id: u64, request: ReadRequest, caller: Caller) -> Result<(), Gone> {
        let (out, parts) = stream::channel(self.broker.settings().stream_idle_timeout, None);
        self.broker.spawn_read(request, Begun::default(), caller, out);
        match self.forward(id, parts).await? {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(id, *failure).await,
        }
    }

    async fn write_outside(
        &mut self,
        id: u64,
        statement: StatementText,
        idempotency_key: String,
        deadline: Deadline,
        caller: Caller,
    ) -> Result<(), Gone> {
        let context = self.context.clone();
        let (isolation, outside_transaction, statements) = (None, false, vec![statement]);
        let request = WriteRequest { context, statements, isolation, outside_transaction, idempotency_key, deadline };
        match self.broker.spawn_write(request, caller).await {
            Ok(Ok(mut result)) => {
                self.carry(&result.position);
                let outcome = result.results.pop().unwrap_or_default();
                let reply = SessionReply::Write { outcome, replayed: result.replayed };
                self.answer(id, Some(result.receipt), reply).await
            }
            Ok(Err(failure)) => self.fail(id, failure).await,
            Err(_) => self.fail(id, super::write::ended_early()).await,
        }
    }

    async fn answer(&mut self, id: u64, receipt: Option<Receipt>, reply: SessionReply) -> Result<(), Gone> {
        self.tell_notices().await?;
        let position = self.context.positions.last().cloned().unwrap_or_default();
        self.send(SessionAnswer { id, last: true, position, receipt, reply }).await
    }

    async fn fail(&mut self, id: u64, failure: Failure) -> Result<(), Gone> {
        self.carry(&failure.position.clone());
        let receipt = failure.receipt.as_deref().cloned();
        self.answer(id, receipt, SessionReply::Failure(Box::new(failure.within(self.part)))).await
    }

    async fn notice(&self, notice: Notice) -> Result<(), Gone> {
        self.send(SessionAnswer::notice(notice)).await
    }

    /// Passes on what PostgreSQL has said on the pinned connection so far.
    async fn tell_notices(&mut self) -> Result<(), Gone> {
        while let Some(said) = self.notices.as_mut().and_then(Notices::try_next) {
            if !said.is_error() {
                self.notice(Notice::Postgres(Box::new(said))).await?;
            }
        }
        Ok(())
    }

    /// Between requests: a notice, the server's last words, or the end of the connection.
    async fn hear(&mut self, said: Option<Box<ServerError>>) -> Result<(), Gone> {
        match said {
            Some(said) if !said.is_error() => self.notice(Notice::Postgres(said)).await,
            said => {
                self.roll_back().await;
                self.tell_of_loss(said).await
            }
        }
    }

    async fn tell_of_loss(&mut self, server: Option<Box<ServerError>>) -> Result<(), Gone> {
        let why = server.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
        let message = format!("the transaction's connection to PostgreSQL was lost, and it is rolled back{why}");
        self.notice(Notice::TransactionLost { message, server }).await
    }

    async fn send(&self, answer: SessionAnswer) -> Result<(), Gone> {
        send(&self.answers, self.broker.settings().stream_idle_timeout, answer).await
    }

    async fn tell_of_drain(&mut self) -> Result<(), Gone> {
        self.told_of_drain = true;
        self.notice(Notice::Draining).await
    }

    async fn lose_idle_transaction(&mut self) -> Result<(), Gone> {
        let limit = self.broker.settings().transaction_idle_timeout.as_secs_f64();
        self.roll_back().await;
        let message = format!("the transaction had no request for {limit} s and was rolled back");
        self.notice(Notice::TransactionLost { message, server: None }).await
    }

    /// Passes a read's parts on as answers; the inner error is the read's own.
    async fn forward(&mut self, id: u64, mut parts: ReadStream) -> Result<Result<(), Box<Failure>>, Gone> {
        while let Some(part) = parts.next().await {
            let part = match part {
                Ok(part) => part,
                Err(failure) => return Ok(Err(Box::new(failure))),
            };
            self.tell_notices().await?;
            let last = part.summary.is_some();
            let receipt = part.header.as_ref().map(|header| header.receipt.clone());
            let position = part.summary.as_ref().map(|summary| summary.position.clone()).unwrap_or_default();
            // What a CAUSAL read has seen counts for what comes behind it.
            self.carry(&position);
            let answer = SessionAnswer { id, last, position, receipt, reply: SessionReply::Read(part) };
            self.send(answer).await?;
        }
        Ok(Ok(()))
    }
}

async fn heard(notices: &mut Option<Notices>) -> Option<ServerError> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

/// The client is gone, or does not listen.
struct Gone;

/// A client that does not take its answers for the idle timeout counts as gone.
async fn send(answers: &Answers, idle_timeout: Duration, answer: SessionAnswer) -> Result<(), Gone> {
    match tokio::time::timeout(idle_timeout, answers.send(Box::new(answer))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Gone),
    }
}
