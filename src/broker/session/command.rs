//! What a session is asked and what it answers, typed; made by `grpc` from the wire's messages, and made into them.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::CopyPiece;
use crate::{
    broker::{Failure, ReadPart, Receipt, StatementOutcome, StatementText},
    model::Consistency,
    postgres::{Begin, Savepoint, ServerError},
};

/// One request of a session.
#[derive(Debug)]
pub struct SessionCommand {
    /// Its id, chosen by the client.
    pub id: u64,
    /// The transaction that it names; 0: outside.
    pub transaction: u64,
    /// Its own timeout, from the moment when its turn comes.
    pub timeout: Duration,
    /// Further tokens.
    pub positions: Vec<String>,
    /// The span that its work belongs to.
    pub span: tracing::Span,
    /// What the caller is doing; empty: what the session's context says.
    pub operation: String,
    /// What to do.
    pub request: SessionRequest,
}

/// What a session can be asked.
#[derive(Debug)]
pub enum SessionRequest {
    /// A statement whose rows are streamed.
    Read {
        /// The statement.
        statement: StatementText,
        /// How fresh; inside a transaction it is the transaction's matter.
        consistency: Consistency,
        /// Whether the caller said so; a rule may else.
        consistency_is_stated: bool,
        /// How long it waits for a replica to catch up; None: as configured.
        max_wait: Option<Duration>,
        /// The largest message the client accepts, in bytes.
        max_message_bytes: usize,
    },
    /// A statement whose result is counted (and its RETURNING rows collected).
    Write {
        /// The statement.
        statement: StatementText,
        /// Outside a transaction: makes a repetition answer the first one's result; empty: none.
        idempotency_key: String,
    },
    /// Opens a transaction, named by this request's id.
    Begin {
        /// How; its settings are the session's.
        begin: Begin,
        /// Where one that only reads may run; None: on the primary.
        consistency: Option<Consistency>,
        /// Whether the caller said how fresh; a rule may else.
        consistency_is_stated: bool,
        /// How long it waits for a replica to catch up; None: as configured.
        max_wait: Option<Duration>,
    },
    /// Commits it.
    Commit,
    /// Rolls it back.
    Rollback,
    /// `COPY … FROM STDIN`.
    CopyIn {
        /// The COPY statement.
        sql: String,
        /// The data; from [`super::copy_pieces`].
        pieces: mpsc::Receiver<CopyPiece>,
    },
    /// `COPY … TO STDOUT`.
    CopyOut {
        /// The COPY statement.
        sql: String,
    },
    /// Sets or releases a savepoint of it, or rolls it back to one.
    Savepoint {
        /// Which of these.
        savepoint: Savepoint,
        /// The savepoint's name.
        name: String,
    },
    /// Cancels an earlier request; overtakes the queue.
    Cancel {
        /// That request's id.
        target: u64,
    },
    /// A request that cannot be honoured; its failure is its answer, in its turn.
    Refused(Box<Failure>),
}

/// One message to the session's client.
#[derive(Debug, Clone)]
pub struct SessionAnswer {
    /// The request's id; 0: a notice.
    pub id: u64,
    /// The request's last answer.
    pub last: bool,
    /// The session's positions as a token; or empty.
    pub position: String,
    /// Where it ran.
    pub receipt: Option<Receipt>,
    /// The answer.
    pub reply: SessionReply,
}

impl SessionAnswer {
    pub(super) fn notice(notice: Notice) -> SessionAnswer {
        let (position, receipt) = (String::new(), None);
        SessionAnswer { id: 0, last: false, position, receipt, reply: SessionReply::Notice(notice) }
    }
}

/// The kinds of answers.
#[derive(Debug, Clone)]
pub enum SessionReply {
    /// It failed; the session goes on.
    Failure(Box<Failure>),
    /// A part of a read's result.
    Read(ReadPart),
    /// A write's result.
    Write {
        /// What it did.
        outcome: StatementOutcome,
        /// Whether that is what was stored with the idempotency key.
        replayed: bool,
    },
    /// Begun, committed, rolled back.
    Done,
    /// A COPY has ended, with so many rows.
    Copied(u64),
    /// A piece of what is copied out.
    CopyData(Bytes),
    /// Not an answer to any request.
    Notice(Notice),
}

/// What a session's client is told without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broker is shutting down: finish.
    Draining,
    /// The open transaction is gone.
    TransactionLost {
        /// Why, for people.
        message: String,
        /// What PostgreSQL said, if it was PostgreSQL.
        server: Option<Box<ServerError>>,
    },
    /// The session's life ends after this long.
    Closing(Duration),
    /// PostgreSQL sent a notice to the open transaction.
    Postgres(Box<ServerError>),
}

/// How a session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// The client half-closed, and everything asked for was answered.
    Complete,
    /// The client is gone.
    Gone,
    /// A limit, or a drain: the stream's status.
    Failed(Box<Failure>),
}
