//! Why a call failed, in full: a stable reason, what became of the work, and all that helps the caller. What gRPC makes
//! of it is `grpc::status`'s.

use std::time::Duration;

use super::{Reason, Receipt};
use crate::{
    admission::{QueueFull, Shed},
    codec::CodecError,
    model::{Rejection, Role, TransactionError},
    position::TokenError,
    postgres::{Begin, ConnectError, PgError, ServerError},
    sql::{SettingError, SqlError},
};

/// What became of the work that a failed call asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing ran.
    NotExecuted,
    /// It ran, and was undone.
    RolledBack,
    /// It is committed.
    Committed,
    /// Nobody knows.
    Unknown,
}

/// A failed call.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The stable reason.
    pub reason: Reason,
    /// What happened and what to do, for people.
    pub message: String,
    /// What became of the work.
    pub outcome: Outcome,
    /// The request's field at fault, or empty.
    pub field: String,
    /// The statement at fault, from 0, when there were several.
    pub statement_index: Option<u32>,
    /// When a retry can help: the wait before it.
    pub retry_delay: Option<Duration>,
    /// PostgreSQL's own error.
    pub server: Option<Box<ServerError>>,
    /// Where it was tried.
    pub receipt: Option<Box<Receipt>>,
    /// What the caller's next reads must see, as a token; or empty.
    pub position: String,
}

/// The wait suggested before a retry when a host or the primary is away.
const RETRY_UNAVAILABLE: Duration = Duration::from_millis(250);
/// The wait suggested before a retry when there is too much to do.
const RETRY_OVERLOADED: Duration = Duration::from_millis(100);

impl Failure {
    /// A failure before anything was executed.
    pub fn new(reason: Reason, message: impl Into<String>) -> Failure {
        Failure {
            reason,
            message: message.into(),
            outcome: Outcome::NotExecuted,
            field: String::new(),
            statement_index: None,
            retry_delay: None,
            server: None,
            receipt: None,
            position: String::new(),
        }
    }

    /// A failure that blames a field of the request.
    pub fn field(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { field: field.into(), ..Failure::new(reason, message) }
    }

    /// A field that this version does not honour: refused by name, never ignored.
    pub fn unsupported(field: &str) -> Failure {
        Failure::field(
            Reason::FieldUnsupported,
            field,
            format!("{field} is not supported by this version of the broker; leave it unset"),
        )
    }

    /// With this outcome. What may have been kept is not to be tried again, so no wait before a retry is suggested.
    pub(crate) fn outcome(mut self, outcome: Outcome) -> Failure {
        self.outcome = outcome;
        if matches!(outcome, Outcome::Unknown | Outcome::Committed) {
            self.retry_delay = None;
        }
        self
    }

    /// The host that was chosen as the primary is not the primary any more; nothing was written there.
    pub(crate) fn outvoted() -> Failure {
        let message = "the host that was the primary when the call was routed is not the primary any more";
        Failure { retry_delay: Some(RETRY_UNAVAILABLE), ..Failure::new(Reason::NoPrimaryAvailable, message) }
    }

    /// A connection is not proved to see what it must; another one may be, and the same host's soon.
    pub(crate) fn unproved() -> Failure {
        let message = "the connection is not proved to have replayed the required position";
        Failure { retry_delay: Some(RETRY_UNAVAILABLE), ..Failure::new(Reason::PositionUnproved, message) }
    }

    pub(crate) fn at_statement(mut self, index: Option<usize>) -> Failure {
        self.statement_index = index.and_then(|index| u32::try_from(index).ok());
        if let (Some(index), Some(rest)) = (self.statement_index, self.field.strip_prefix("statement.")) {
            self.field = format!("statements[{index}].{rest}");
        }
        self
    }

    /// Of a BEGIN with settings behind it: an error that only one of these can have is blamed on them.
    pub(crate) fn of_begin(mut self, begin: &Begin) -> Failure {
        let sqlstate = self.server.as_ref().map_or("", |error| error.sqlstate.as_str());
        if !begin.settings.is_empty() && matches!(sqlstate.get(..2), Some("22" | "42" | "55")) {
            self.field = "context.settings".into();
        }
        self
    }

    /// Of the part `part` of a session's request: its fields are named from there.
    pub(crate) fn within(mut self, part: &str) -> Failure {
        if !part.is_empty() && self.field.starts_with("statement") {
            self.field = format!("{part}.{}", self.field);
        }
        self
    }

    pub(crate) fn with_receipt(mut self, receipt: &Receipt) -> Failure {
        self.receipt = Some(Box::new(receipt.clone()));
        self
    }

    /// Why a statement was cancelled for it, for metric labels.
    pub(crate) fn cancel_cause(&self) -> &'static str {
        match self.reason {
            Reason::DeadlineExceeded => "deadline",
            Reason::CallerLeft => "caller_left",
            Reason::RequestCancelled => "request",
            Reason::StreamIdle => "stream_idle",
            _ => "result",
        }
    }

    pub(crate) fn deadline(what: &str) -> Failure {
        Failure::new(Reason::DeadlineExceeded, format!("the deadline passed {what}"))
    }

    pub(crate) fn request_cancelled() -> Failure {
        Failure::new(Reason::RequestCancelled, "the request was cancelled, as its session's client asked")
    }

    pub(crate) fn caller_left() -> Failure {
        Failure::new(Reason::CallerLeft, "the caller left")
    }

    pub(crate) fn rejected(rejection: Rejection, database: &str) -> Failure {
        let (reason, message) = match rejection {
            Rejection::NoHostsAvailable => {
                (Reason::NoHostsAvailable, format!("no host of database {database:?} is up"))
            }
            Rejection::NoPrimaryAvailable => (
                Reason::NoPrimaryAvailable,
                format!("the call needs the primary of database {database:?}, and none is up"),
            ),
            Rejection::PrimaryConflict => {
                let message = format!(
                    "the call needs the primary of database {database:?}, and several hosts claim to be it on one \
                     timeline: nothing is written until an operator decides, by making all but one of them replicas, or \
                     taking them out of the configuration"
                );
                // No wait helps.
                return Failure::new(Reason::PrimaryConflict, message);
            }
        };
        Failure { retry_delay: Some(RETRY_UNAVAILABLE), ..Failure::new(reason, message) }
    }

    /// As many calls wait for a primary as may.
    pub(crate) fn crowded(cluster: &str, limit: usize) -> Failure {
        let message = format!("{limit} calls wait for a primary of cluster {cluster:?} already (pool.max_queue)");
        Failure { retry_delay: Some(RETRY_UNAVAILABLE), ..Failure::new(Reason::Overloaded, message) }
    }

    /// Whether the call was stopped from its caller's side.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self.reason, Reason::CallerLeft | Reason::DeadlineExceeded | Reason::RequestCancelled)
    }

    /// A name that strangers use on the same server connection was in the way: nothing ran, and the next may be free.
    pub(crate) fn is_of_a_name(&self) -> bool {
        self.server.as_ref().is_some_and(|error| error.is_of_a_name())
    }

    /// Whether trying the same on another host, or later, may help although nothing was executed.
    pub(crate) fn is_of_the_host(&self) -> bool {
        match self.reason {
            Reason::ConnectFailed | Reason::ConnectionLost | Reason::RecoveryConflict => true,
            // Told to end, crashed, starting up or shutting down, idle for too long.
            Reason::Postgres => self
                .server
                .as_ref()
                .is_some_and(|error| matches!(error.sqlstate.as_str(), "57P01" | "57P02" | "57P03" | "57P05")),
            _ => false,
        }
    }

    /// Whether there was no primary, or what was taken for it is to blame.
    pub(crate) fn is_of_the_primary(&self) -> bool {
        self.is_of_the_host() || self.reason == Reason::NoPrimaryAvailable
    }

    /// A failure of a read, with where it ran: on a standby it may have stood in the way of replay.
    pub(crate) fn of_read(mut self, receipt: &Receipt) -> Failure {
        let conflicts = |error: &ServerError| error.is_recovery_conflict();
        if receipt.role == Role::Replica && self.server.as_deref().is_some_and(conflicts) {
            self.reason = Reason::RecoveryConflict;
            self.retry_delay = Some(RETRY_UNAVAILABLE);
        }
        self.with_receipt(receipt)
    }

    /// An exchange that failed, with what that says of the work: `interrupted` is the outcome when the connection ended.
    pub(crate) fn from_exchange(error: PgError, interrupted: Outcome) -> Failure {
        match error {
            PgError::Server(server) if server.ends_connection() => Failure::from_server(server).outcome(interrupted),
            PgError::Server(server) => Failure::from_server(server).outcome(Outcome::RolledBack),
            PgError::Lost(why) => Failure {
                retry_delay: Some(RETRY_UNAVAILABLE),
                ..Failure::new(Reason::ConnectionLost, format!("the connection to PostgreSQL was lost: {why}"))
            }
            .outcome(interrupted),
            PgError::Protocol(why) => Failure::new(Reason::Internal, why).outcome(interrupted),
            PgError::WrongServer(why) => {
                Failure { retry_delay: Some(RETRY_UNAVAILABLE), ..Failure::new(Reason::ConnectFailed, why) }
            }
        }
    }

    fn from_server(server: Box<ServerError>) -> Failure {
        let write_in_read = server.sqlstate == "25006";
        let reason = if write_in_read { Reason::WriteInRead } else { Reason::Postgres };
        let message = if write_in_read {
            format!("{}; send statements that write with ExecuteWrite or in a read-write transaction", server.message)
        } else {
            server.message.clone()
        };
        let retry_delay = server.is_worth_a_retry().then_some(RETRY_UNAVAILABLE);
        Failure { server: Some(server), retry_delay, ..Failure::new(reason, message) }
    }
}

impl ServerError {
    /// On a standby: whether the read was stopped because it stood in the way of replay. By ProcessInterrupts (40001;
    /// 57P04 when its database was dropped) or CheckRecoveryConflictDeadlock (40P01). What else has these codes there is
    /// the statement's own: a deadlock with another caller, a RAISE.
    fn is_recovery_conflict(&self) -> bool {
        matches!(self.sqlstate.as_str(), "40001" | "40P01" | "57P04")
            && !matches!(self.routine.as_str(), "DeadLockReport" | "exec_stmt_raise")
    }

    /// Serialization failures, deadlocks, locks that were not waited for, and servers that go down or come up.
    fn is_worth_a_retry(&self) -> bool {
        matches!(self.sqlstate.as_str(), "40001" | "40P01" | "53300" | "55P03" | "57P01" | "57P02" | "57P03")
    }

    /// The n of `$n` when the error arose in a parameter's text form: PostgreSQL names it in the CONTEXT.
    pub(super) fn parameter(&self) -> Option<usize> {
        let context = self.context.lines().next().filter(|line| line.contains("portal"))?;
        let digits = context.split_once('$')?.1;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok().filter(|&n| n > 0)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let server = match &error {
            ConnectError::Refused { error, .. } => Some(error.clone()),
            _ => None,
        };
        Failure {
            server,
            retry_delay: Some(RETRY_UNAVAILABLE),
            ..Failure::new(Reason::ConnectFailed, error.to_string())
        }
    }
}

impl From<QueueFull> for Failure {
    fn from(error: QueueFull) -> Failure {
        Failure { retry_delay: Some(RETRY_OVERLOADED), ..Failure::new(Reason::Overloaded, error.to_string()) }
    }
}

impl From<Shed> for Failure {
    fn from(shed: Shed) -> Failure {
        // Half as much to half as much again: those who are sent away together do not come back together.
        let retry_delay = shed.retry_after().mul_f64(0.5 + rand::random::<f64>());
        Failure { retry_delay: Some(retry_delay), ..Failure::new(Reason::Overloaded, shed.to_string()) }
    }
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Failure {
        let reason = match &error {
            SqlError::Empty => Reason::SqlMissing,
            SqlError::MultipleStatements => Reason::SqlMultipleStatements,
            SqlError::Refused { .. }
            | SqlError::RefusedFunction { .. }
            | SqlError::NotCopy
            | SqlError::CopyOnServer => Reason::SqlRefused,
            SqlError::NulCharacter => Reason::FieldInvalid,
        };
        Failure::field(reason, "statement.sql", error.to_string())
    }
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Failure {
        Failure::field(Reason::FieldInvalid, error.field(), error.to_string())
    }
}

impl From<CodecError> for Failure {
    fn from(error: CodecError) -> Failure {
        let reason = match &error {
            CodecError::UnsupportedType { .. } => Reason::TypeUnsupported,
            CodecError::ParamCount { .. } => Reason::ParameterCount,
            CodecError::UnsetValue { .. } => Reason::ValueUnset,
            CodecError::ParamDoesNotFit { .. } => Reason::ParameterType,
            CodecError::RowTooLarge { .. } => Reason::RowTooLarge,
            CodecError::MalformedCell { .. } | CodecError::CellCount { .. } => Reason::ResultMalformed,
        };
        Failure::field(reason, error.field(), error.to_string())
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Failure {
        let reason = match &error {
            TokenError::Foreign => Reason::PositionForeign,
            _ => Reason::PositionMalformed,
        };
        Failure::field(reason, "context.positions", error.to_string())
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Failure {
        let reason = match error {
            TransactionError::NotOpen { .. } => Reason::TransactionNotOpen,
            TransactionError::Open { .. } => Reason::TransactionOpen,
            TransactionError::Failed { .. } => Reason::TransactionFailed,
        };
        Failure::field(reason, "transaction_id", error.to_string())
    }
}
