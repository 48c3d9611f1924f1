//! One interactive session: requests one at a time, in order. Outside a transaction they are ordinary reads and writes;
//! a transaction pins a connection, which is `transaction`'s; what runs on it is `statement`'s.

mod command;
mod commit;
mod statement;
mod transaction;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Broker, Context, Failure, ReadRequest, Reason, Receipt, WriteRequest,
    caller::Caller,
    database::Database,
    reach::Reach,
    stream::{self, ReadStream},
};
use crate::{
    clock,
    model::{Deadline, TransactionState},
};
use transaction::Pinned;

pub use command::{Notice, SessionAnswer, SessionCommand, SessionEnd, SessionReply, SessionRequest};

/// Sends an answer; an error means that the client is gone.
type Answers = mpsc::Sender<SessionAnswer>;

impl Broker {
    /// Serves one session until its commands end, its client is gone (`left`), or a limit is reached. An open
    /// transaction is rolled back and its connection freed before this returns.
    pub async fn serve_session(
        self: &Arc<Self>,
        context: Context,
        commands: mpsc::Receiver<SessionCommand>,
        answers: Answers,
        left: CancellationToken,
    ) -> SessionEnd {
        let database = match self.database(&context.database) {
            Ok(database) => database,
            Err(failure) => return SessionEnd::Failed(Box::new(failure)),
        };
        // One token for all that it carries: what is answered stands for everything that came before.
        let merged = match Reach::of(self, &database, &context) {
            Ok(reach) => reach.token(self),
            Err(failure) => return SessionEnd::Failed(Box::new(failure)),
        };
        let positions = if merged.is_empty() { Vec::new() } else { vec![merged] };
        let context = Context { positions, ..context };
        let _active = self.metrics.session_active();
        let session = Session {
            broker: Arc::clone(self),
            database,
            context,
            answers,
            left,
            state: TransactionState::default(),
            pinned: None,
            told_of_drain: false,
        };
        session.run(commands).await
    }
}

pub(super) struct Session {
    broker: Arc<Broker>,
    database: Arc<Database>,
    context: Context,
    answers: Answers,
    left: CancellationToken,
    state: TransactionState,
    pinned: Option<Pinned>,
    told_of_drain: bool,
}

/// What happens next in a session.
enum Next {
    Command(Box<SessionCommand>),
    TransactionIdle,
    Draining,
    End(SessionEnd),
}

impl Session {
    async fn run(mut self, mut commands: mpsc::Receiver<SessionCommand>) -> SessionEnd {
        let lifetime = self.broker.settings.session_max_lifetime;
        let dies_at = Deadline::after(clock::now(), lifetime);
        let end = loop {
            let next = self.next(&mut commands, dies_at).await;
            let result = match next {
                Next::Command(command) => {
                    let span = command.span.clone();
                    self.execute(*command).instrument(span).await
                }
                Next::TransactionIdle => self.lose_idle_transaction().await,
                Next::Draining => self.tell_of_drain().await,
                Next::End(end) => break end,
            };
            if let Err(Gone) = result {
                let idle = Failure::new(Reason::StreamIdle, "the session's answers were not read");
                break if self.left.is_cancelled() { SessionEnd::Gone } else { SessionEnd::Failed(Box::new(idle)) };
            }
        };
        self.roll_back().await;
        end
    }

    async fn next(&mut self, commands: &mut mpsc::Receiver<SessionCommand>, dies_at: Deadline) -> Next {
        let settings = &self.broker.settings;
        let open = self.state.id().is_some();
        let failed =
            |reason: Reason, message: String| Next::End(SessionEnd::Failed(Box::new(Failure::new(reason, message))));
        tokio::select! {
            biased;
            () = self.left.cancelled() => Next::End(SessionEnd::Gone),
            () = tokio::time::sleep_until(dies_at.instant().into()) => {
                let limit = settings.session_max_lifetime.as_secs_f64();
                failed(Reason::SessionLifetime, format!("the session has lived for its {limit} s; open another"))
            }
            command = commands.recv() => match command {
                Some(command) => Next::Command(Box::new(command)),
                None => Next::End(SessionEnd::Complete),
            },
            // What is queued goes first; an idle session ends here, one with a transaction is told and may finish it.
            () = self.broker.draining.cancelled(), if !self.told_of_drain || !open => {
                if open { Next::Draining } else { failed(Reason::Draining, "the broker is shutting down".into()) }
            }
            () = tokio::time::sleep(settings.transaction_idle_timeout), if open => Next::TransactionIdle,
        }
    }

    async fn execute(&mut self, command: SessionCommand) -> Result<(), Gone> {
        if let Err(failure) = self.take_positions(command.positions) {
            // Without a position: what the client holds, the refused ones too, is for it to keep.
            let reply = SessionReply::Failure(Box::new(failure));
            let answer = SessionAnswer { id: command.id, last: true, position: String::new(), receipt: None, reply };
            return self.send(answer).await;
        }
        let deadline = Deadline::after(clock::now(), command.timeout);
        let caller = Caller::new(self.left.clone(), deadline);
        let (id, named) = (command.id, command.transaction);
        match command.request {
            SessionRequest::Begin(begin) => self.begin(id, named, begin, &caller).await,
            SessionRequest::Commit => self.commit(id, named, &caller).await,
            SessionRequest::Refused(failure) => self.fail(id, *failure).await,
            SessionRequest::Rollback => match self.state.check_rollback(named) {
                Ok(()) => {
                    self.roll_back().await;
                    self.answer(id, None, SessionReply::Done).await
                }
                Err(error) => self.fail(id, error.into()).await,
            },
            SessionRequest::Read { .. } | SessionRequest::Write { .. } if named != 0 => match self.state.check(named) {
                Ok(()) => self.run_pinned(id, command.request, &caller).await,
                Err(error) => self.fail(id, error.into()).await,
            },
            SessionRequest::Read { statement, consistency, max_message_bytes } => {
                let context = self.context.clone();
                let request = ReadRequest { context, statement, consistency, max_message_bytes, deadline };
                let (out, parts) = stream::channel(self.broker.settings.stream_idle_timeout, None);
                self.broker.spawn_read(request, caller, out);
                match forward(&self.answers, self.broker.settings.stream_idle_timeout, id, parts).await? {
                    Ok(()) => Ok(()),
                    Err(failure) => self.fail(id, *failure).await,
                }
            }
            SessionRequest::Write { statement, idempotency_key } => {
                let context = self.context.clone();
                let (isolation, outside_transaction) = (None, false);
                let statements = vec![statement];
                let request =
                    WriteRequest { context, statements, isolation, outside_transaction, idempotency_key, deadline };
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
        }
    }

    /// Merges a request's tokens with the session's. One that is refused changes nothing but its own request.
    fn take_positions(&mut self, tokens: Vec<String>) -> Result<(), Failure> {
        if tokens.is_empty() {
            return Ok(());
        }
        let positions = [tokens, self.context.positions.clone()].concat();
        let context = Context { positions, ..self.context.clone() };
        let merged = Reach::of(&self.broker, &self.database, &context)?.token(&self.broker);
        self.context.positions = vec![merged];
        Ok(())
    }

    async fn answer(&mut self, id: u64, receipt: Option<Receipt>, reply: SessionReply) -> Result<(), Gone> {
        let position = self.context.positions.last().cloned().unwrap_or_default();
        self.send(SessionAnswer { id, last: true, position, receipt, reply }).await
    }

    async fn fail(&mut self, id: u64, failure: Failure) -> Result<(), Gone> {
        self.carry(&failure.position.clone());
        let receipt = failure.receipt.as_deref().cloned();
        self.answer(id, receipt, SessionReply::Failure(Box::new(failure))).await
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), Gone> {
        self.send(SessionAnswer {
            id: 0,
            last: false,
            position: String::new(),
            receipt: None,
            reply: SessionReply::Notice(notice),
        })
        .await
    }

    async fn send(&self, answer: SessionAnswer) -> Result<(), Gone> {
        send(&self.answers, self.broker.settings.stream_idle_timeout, answer).await
    }

    /// A token that holds all the session's positions stands for the ones before it.
    fn carry(&mut self, token: &str) {
        if !token.is_empty() {
            self.context.positions = vec![token.to_owned()];
        }
    }

    async fn tell_of_drain(&mut self) -> Result<(), Gone> {
        self.told_of_drain = true;
        self.notice(Notice::Draining).await
    }

    async fn lose_idle_transaction(&mut self) -> Result<(), Gone> {
        let limit = self.broker.settings.transaction_idle_timeout.as_secs_f64();
        self.roll_back().await;
        self.notice(Notice::TransactionLost(format!(
            "the transaction had no request for {limit} s and was rolled back"
        )))
        .await
    }
}

/// The client is gone, or does not listen.
struct Gone;

/// A client that does not take its answers for the idle timeout counts as gone.
async fn send(answers: &Answers, idle_timeout: Duration, answer: SessionAnswer) -> Result<(), Gone> {
    match tokio::time::timeout(idle_timeout, answers.send(answer)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Gone),
    }
}

/// Passes a read's parts on as answers; the inner error is the read's own.
async fn forward(
    answers: &Answers,
    idle_timeout: Duration,
    id: u64,
    mut parts: ReadStream,
) -> Result<Result<(), Box<Failure>>, Gone> {
    while let Some(part) = parts.next().await {
        let part = match part {
            Ok(part) => part,
            Err(failure) => return Ok(Err(Box::new(failure))),
        };
        let last = part.summary.is_some();
        let receipt = part.header.as_ref().map(|header| header.receipt.clone());
        let position = part.summary.as_ref().map(|summary| summary.position.clone()).unwrap_or_default();
        let answer = SessionAnswer { id, last, position, receipt, reply: SessionReply::Read(part) };
        send(answers, idle_timeout, answer).await?;
    }
    Ok(Ok(()))
}
