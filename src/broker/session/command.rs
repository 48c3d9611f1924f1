//! What a session is asked and what it answers, typed; made by `grpc` from the wire's messages, and made into them.

use std::time::Duration;

use crate::{
    broker::{Failure, ReadPart, Receipt, StatementOutcome, StatementText},
    model::Consistency,
    postgres::Begin,
};

/// One request of a session.
#[derive(Debug, Clone)]
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
    /// What to do.
    pub request: SessionRequest,
}

/// What a session can be asked.
#[derive(Debug, Clone)]
pub enum SessionRequest {
    /// A statement whose rows are streamed.
    Read {
        /// The statement.
        statement: StatementText,
        /// How fresh; inside a transaction it is the transaction's matter.
        consistency: Consistency,
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
    Begin(Begin),
    /// Commits it.
    Commit,
    /// Rolls it back.
    Rollback,
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
    /// Not an answer to any request.
    Notice(Notice),
}

/// What a session's client is told without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The broker is shutting down: finish.
    Draining,
    /// The open transaction was rolled back by the broker.
    TransactionLost(String),
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
