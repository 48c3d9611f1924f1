//! What can go wrong on a connection to PostgreSQL, in the broker's own terms: callers branch on the kind, never on text.

use std::{fmt, time::Duration};

use tokio_postgres::error::{DbError, ErrorPosition, Severity};

/// An error that the server reported, or a notice, with every diagnostic field it sent.
///
/// Source: PostgreSQL's "Error and Notice Message Fields".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The five characters of the SQLSTATE code.
    pub sqlstate: String,
    /// ERROR, FATAL or PANIC, or, of a notice, WARNING, NOTICE, DEBUG, INFO or LOG; never localised.
    pub severity: String,
    /// The primary message.
    pub message: String,
    /// The DETAIL field, or empty.
    pub detail: String,
    /// The HINT field, or empty.
    pub hint: String,
    /// The CONTEXT field: the call stack, innermost first, or empty. May hold values, as the detail may.
    pub context: String,
    /// Character position in the statement, from 1; 0 when there is none.
    pub position: u32,
    /// The statement of a function that failed, or empty.
    pub internal_query: String,
    /// Character position in that one, from 1; 0 when there is none.
    pub internal_position: u32,
    /// The schema that the error concerns, or empty.
    pub schema: String,
    /// The table that the error concerns, or empty.
    pub table: String,
    /// The column that the error concerns, or empty.
    pub column: String,
    /// The data type that the error concerns, or empty.
    pub data_type: String,
    /// The constraint that the error concerns, or empty.
    pub constraint: String,
    /// The file of PostgreSQL's source that reported it, or empty.
    pub file: String,
    /// The line in it; 0 when there is none.
    pub line: u32,
    /// The function in it, or empty.
    pub routine: String,
}

impl ServerError {
    /// False for a notice.
    pub fn is_error(&self) -> bool {
        matches!(self.severity.as_str(), "ERROR" | "FATAL" | "PANIC")
    }

    /// True when the server closed the connection with this error, so that a commit may still have happened.
    pub fn ends_connection(&self) -> bool {
        self.severity != "ERROR"
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        let text = |field: Option<&str>| field.unwrap_or_default().to_owned();
        let severity = match error.parsed_severity() {
            Some(Severity::Fatal) => "FATAL",
            Some(Severity::Panic) => "PANIC",
            Some(Severity::Error) => "ERROR",
            Some(Severity::Warning) => "WARNING",
            Some(Severity::Notice) => "NOTICE",
            Some(Severity::Debug) => "DEBUG",
            Some(Severity::Info) => "INFO",
            Some(Severity::Log) => "LOG",
            // Servers before 9.6 send only the localised word: assume the worse.
            None => "FATAL",
        };
        let (position, internal) = match error.position() {
            Some(ErrorPosition::Original(position)) => (*position, None),
            Some(ErrorPosition::Internal { position, query }) => (0, Some((query.clone(), *position))),
            None => (0, None),
        };
        let (internal_query, internal_position) = internal.unwrap_or_default();
        ServerError {
            sqlstate: error.code().code().to_owned(),
            severity: severity.to_owned(),
            message: error.message().to_owned(),
            detail: text(error.detail()),
            hint: text(error.hint()),
            context: text(error.where_()),
            position,
            internal_query,
            internal_position,
            schema: text(error.schema()),
            table: text(error.table()),
            column: text(error.column()),
            data_type: text(error.datatype()),
            constraint: text(error.constraint()),
            file: text(error.file()),
            line: error.line().unwrap_or(0),
            routine: text(error.routine()),
        }
    }
}

/// A failed exchange with PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The server answered with an error.
    #[error("PostgreSQL: {0}")]
    Server(Box<ServerError>),
    /// The connection ended: what was sent may or may not have been executed.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// What came back is not what the protocol promises, or a value could not be sent.
    #[error("unexpected answer from PostgreSQL: {0}")]
    Protocol(String),
    /// A proxy led to another server than the one that is meant; nothing ran there.
    #[error("{0}")]
    WrongServer(String),
}

impl PgError {
    /// The server's error, when it is one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            PgError::Server(error) => Some(error),
            _ => None,
        }
    }

    /// The SQLSTATE code, or an empty text.
    pub fn sqlstate(&self) -> &str {
        self.server().map_or("", |error| &error.sqlstate)
    }

    /// True when the connection cannot be used again.
    pub fn ends_connection(&self) -> bool {
        match self {
            PgError::Server(error) => error.ends_connection(),
            PgError::Lost(_) | PgError::Protocol(_) | PgError::WrongServer(_) => true,
        }
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            return PgError::Server(Box::new(server.into()));
        }
        let source = std::error::Error::source(&error);
        let is_io = source.is_some_and(|source| source.is::<std::io::Error>());
        let text = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        if error.is_closed() || is_io { PgError::Lost(text) } else { PgError::Protocol(text) }
    }
}

/// Why no connection could be made or had; nothing was executed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The address could not be resolved or reached, or the connection broke while it was being set up.
    #[error("cannot connect to {host}: {reason}")]
    Unreachable {
        /// Host and port, as configured.
        host: String,
        /// What the operating system or the protocol said.
        reason: String,
        /// Nobody listens there.
        refused: bool,
    },
    /// The whole set-up took longer than allowed.
    #[error("connecting to {host} took longer than {}s", limit.as_secs_f64())]
    TimedOut {
        /// Host and port, as configured.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The server answered, and refused (password, database, too many connections, starting up, …).
    #[error("{host} refused the connection: {error}")]
    Refused {
        /// Host and port, as configured.
        host: String,
        /// What the server said.
        error: Box<ServerError>,
    },
    /// The server is not the one that was expected behind this name.
    #[error("{host} is not the expected server: {reason}")]
    WrongServer {
        /// Host and port, as configured.
        host: String,
        /// What differs.
        reason: String,
    },
}

impl ConnectError {
    /// Whether it is certain that no server is there to take connections: nobody listens, or the server says that it
    /// shuts down, has crashed or starts up (57P01 to 57P03). Anything else may be a moment's trouble.
    pub fn is_certain(&self) -> bool {
        match self {
            ConnectError::Unreachable { refused, .. } => *refused,
            ConnectError::Refused { error, .. } => matches!(error.sqlstate.as_str(), "57P01" | "57P02" | "57P03"),
            ConnectError::TimedOut { .. } | ConnectError::WrongServer { .. } => false,
        }
    }

    pub(super) fn from_exchange(host: &str, error: PgError) -> Self {
        let host = host.to_owned();
        match error {
            PgError::Server(error) => ConnectError::Refused { host, error },
            PgError::Lost(reason) | PgError::Protocol(reason) => {
                ConnectError::Unreachable { host, reason, refused: false }
            }
            PgError::WrongServer(reason) => ConnectError::WrongServer { host, reason },
        }
    }
}
