//! What can go wrong with a call, and the broker's own account of it out of `grpc-status-details-bin`.

use std::{error::Error as _, time::Duration};

use prost::Message;
use tonic::{Code, Status};

use crate::proto::{self, Outcome, PostgresError, Receipt};

/// The trailer that carries the position token of a failed call.
pub(crate) const POSITION_TRAILER: &str = "tidegate-position";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection to the broker could be made, or its URL makes no sense.
    #[error("cannot connect to the broker")]
    Connect(#[source] tonic::transport::Error),
    /// A connection had to be made for the call, and could not be: nothing was sent.
    #[error("no connection to the broker: {}", .0.message())]
    Refused(#[source] Box<Status>),
    /// The connection to the broker was lost during the call: what was sent may have been done.
    #[error("the connection to the broker was lost: {}", .0.message())]
    Connection(#[source] Box<Status>),
    /// The broker said why.
    #[error("{0}")]
    Failed(Box<Failure>),
    /// A gRPC error without the broker's account of it, as a proxy in between gives it.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[source] Box<Status>),
    /// The time limit passed here, before the broker's answer arrived.
    #[error("no answer within the time limit")]
    TimedOut,
    /// A result ended before its summary: the rows that arrived are not all.
    #[error("the result was cut: it ended without its summary")]
    Cut,
    /// The session's stream has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// As many requests of the session are unanswered as the broker allows; receive an answer first.
    #[error("too many unanswered requests in this session")]
    TooManyUnanswered,
    /// The COPY has failed already, as an earlier error said.
    #[error("the COPY has failed already")]
    CopyFailed,
    /// The broker sent what its API does not allow.
    #[error("the broker broke its protocol: {0}")]
    Protocol(&'static str),
    /// A result has no such column.
    #[error("no column {0}")]
    NoColumn(String),
    /// A value does not fit the type that was asked for.
    #[error("column {column} ({type_name}): the value does not convert into {wanted}")]
    WrongType {
        /// The column's name.
        column: String,
        /// Its PostgreSQL type.
        type_name: String,
        /// The Rust type that was asked for.
        wanted: &'static str,
    },
}

/// The broker's account of a failure.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// The gRPC code.
    pub code: Code,
    /// For people to read; may change.
    pub message: String,
    /// For programs to branch on; stable, such as `NO_HOSTS_AVAILABLE`.
    pub reason: String,
    /// What became of the work.
    pub outcome: Outcome,
    /// The request's field that is to blame. Empty: none.
    pub field: String,
    /// Which of several statements failed, from 0.
    pub statement_index: Option<u32>,
    /// When a retry can help.
    pub retry_delay: Option<Duration>,
    /// What PostgreSQL said.
    pub postgres: Option<PostgresError>,
    /// The caller's position token. Empty: none.
    pub position: String,
    /// Where it ran.
    pub receipt: Option<Receipt>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.postgres {
            Some(postgres) => write!(f, " ({}, SQLSTATE {})", self.reason, postgres.sqlstate),
            None => write!(f, " ({})", self.reason),
        }
    }
}

impl From<proto::Failure> for Failure {
    fn from(failure: proto::Failure) -> Self {
        Failure {
            code: Code::from_i32(failure.code),
            outcome: failure.outcome(),
            message: failure.message,
            reason: failure.reason,
            field: failure.field,
            statement_index: failure.statement_index,
            retry_delay: failure.retry_delay.and_then(|delay| delay.try_into().ok()),
            postgres: failure.postgres,
            position: failure.position,
            receipt: failure.receipt,
        }
    }
}

impl From<proto::Failure> for Error {
    fn from(failure: proto::Failure) -> Self {
        Error::Failed(Box::new(failure.into()))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(failure) = failure_of(&status) {
            return Error::Failed(Box::new(failure));
        }
        let mut source = status.source();
        if source.is_none() {
            return Error::Status(Box::new(status)); // it came over the wire
        }
        while let Some(error) = source {
            if error.is::<tonic::TimeoutExpired>() {
                return Error::TimedOut;
            }
            if error.is::<tonic::ConnectError>() {
                return Error::Refused(Box::new(status));
            }
            source = error.source();
        }
        Error::Connection(Box::new(status))
    }
}

/// The broker's account of a failure in a status, with the position of its trailer.
fn failure_of(status: &Status) -> Option<Failure> {
    let details = tonic_types::Status::decode(status.details()).ok()?.details;
    let any = details.into_iter().find(|any| any.type_url.ends_with("/tidegate.v1.Failure"))?;
    let mut failure = Failure::from(proto::Failure::decode(any.value.as_slice()).ok()?);
    failure.code = status.code(); // the status is what every other gRPC client sees
    if let Some(token) = status.metadata().get(POSITION_TRAILER).and_then(|token| token.to_str().ok()) {
        failure.position = token.to_owned();
    }
    Some(failure)
}

impl Error {
    /// The gRPC code, or the nearest one.
    pub fn code(&self) -> Code {
        match self {
            Error::Failed(failure) => failure.code,
            Error::Status(status) => status.code(),
            Error::Connect(_) | Error::Refused(_) | Error::Connection(_) | Error::SessionEnded => Code::Unavailable,
            Error::TimedOut => Code::DeadlineExceeded,
            Error::TooManyUnanswered => Code::ResourceExhausted,
            Error::Cut => Code::DataLoss,
            Error::CopyFailed => Code::FailedPrecondition,
            Error::Protocol(_) => Code::Internal,
            Error::NoColumn(_) | Error::WrongType { .. } => Code::InvalidArgument,
        }
    }

    /// What became of the work. [`Outcome::Unknown`] where nobody said.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Failed(failure) if failure.outcome != Outcome::Unspecified => failure.outcome,
            Error::Connect(_) | Error::Refused(_) | Error::TooManyUnanswered => Outcome::NotExecuted,
            _ => Outcome::Unknown,
        }
    }

    /// The broker's account, where there is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Error::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    /// The stable reason, such as `NO_HOSTS_AVAILABLE`. Empty where the broker did not say.
    pub fn reason(&self) -> &str {
        self.failure().map_or("", |failure| &failure.reason)
    }

    /// PostgreSQL's SQLSTATE, where the failure is PostgreSQL's.
    pub fn sqlstate(&self) -> Option<&str> {
        Some(&self.failure()?.postgres.as_ref()?.sqlstate)
    }

    /// Whether no broker was reached, so that nothing was sent. A connection that was lost under way is another thing:
    /// what was sent may have been done.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Connect(_) | Error::Refused(_))
    }

    /// The position token that came with the failure. Empty: none.
    pub(crate) fn position(&self) -> &str {
        match self {
            Error::Failed(failure) => &failure.position,
            Error::Status(status) => {
                status.metadata().get(POSITION_TRAILER).and_then(|token| token.to_str().ok()).unwrap_or("")
            }
            _ => "",
        }
    }
}
