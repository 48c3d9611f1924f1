//! What a call asks for, typed and checked as far as its text alone can be; made by `grpc` from the wire's messages.

use std::time::Duration;

use super::Settled;
use crate::{
    admission::CallerId,
    codec,
    model::{Consistency, Deadline, HostId, Lsn, Role, RouteReason, Timeline},
    postgres::Isolation,
    sql::LocalSettings,
};

/// Whom a call is for.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The logical database; empty: the only one.
    pub database: String,
    /// The session, 128 bytes at most; empty: none.
    pub session_id: String,
    /// Position tokens of all sources.
    pub positions: Vec<String>,
    /// What the caller is doing, in its own words: what rules go by.
    pub operation: String,
    /// Where calls to a database that is being moved go, when that was decided before; None: decided for each call.
    pub settled: Option<Settled>,
    /// Made for the length of every transaction.
    pub settings: LocalSettings,
    /// Who calls, for fair queues and limits.
    pub caller: CallerId,
}

/// One SQL statement with its parameters.
#[derive(Debug, Clone)]
pub struct StatementText {
    /// The SQL text.
    pub sql: String,
    /// The values of `$1`, `$2`, …
    pub params: Vec<codec::Value>,
}

/// One read.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// Whom it is for.
    pub context: Context,
    /// The statement.
    pub statement: StatementText,
    /// How fresh it must be.
    pub consistency: Consistency,
    /// Whether the caller said so; a rule may else.
    pub consistency_is_stated: bool,
    /// How long to wait for a replica to catch up before the primary is asked; None: as configured.
    pub max_wait: Option<Duration>,
    /// The largest message that the caller accepts, in bytes.
    pub max_message_bytes: usize,
    /// When it must be over, result included.
    pub deadline: Deadline,
}

/// One write: all statements as one transaction.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// Whom it is for.
    pub context: Context,
    /// The statements, at least one.
    pub statements: Vec<StatementText>,
    /// None: the server's default.
    pub isolation: Option<Isolation>,
    /// The one statement cannot run inside a transaction.
    pub outside_transaction: bool,
    /// Makes a repetition answer the first one's result; empty: none.
    pub idempotency_key: String,
    /// When it must be over.
    pub deadline: Deadline,
}

/// What became of one statement of a write.
#[derive(Debug, Clone, Default)]
pub struct StatementOutcome {
    /// The command tag's count.
    pub rows_affected: u64,
    /// The result's columns; empty when it returns none.
    pub columns: Vec<codec::Column>,
    /// The result's rows, if it has columns.
    pub rows: Option<codec::RowBatch>,
}

/// A successful write.
#[derive(Debug, Clone)]
pub struct WriteResult {
    /// One a statement.
    pub results: Vec<StatementOutcome>,
    /// Where it ran.
    pub receipt: Receipt,
    /// What the caller's next reads must see, as a token.
    pub position: String,
    /// Whether the results are those that were stored with the idempotency key, not of statements that ran now.
    pub replayed: bool,
}

/// One message of a read's result.
#[derive(Debug, Clone, Default)]
pub struct ReadPart {
    /// On the first only.
    pub header: Option<ReadHeader>,
    /// Some rows.
    pub rows: Option<codec::RowBatch>,
    /// On the last only.
    pub summary: Option<ReadSummary>,
}

/// What a result looks like and where it comes from.
#[derive(Debug, Clone)]
pub struct ReadHeader {
    /// The columns.
    pub columns: codec::Columns,
    /// Where it ran.
    pub receipt: Receipt,
}

/// The end of a result.
#[derive(Debug, Clone, Default)]
pub struct ReadSummary {
    /// Rows in all.
    pub row_count: u64,
    /// The caller's positions, merged, as a token.
    pub position: String,
}

/// The chosen host and why, with what was known of it when it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The cluster's name.
    pub cluster: String,
    /// The host's name.
    pub host: String,
    /// Its index in the cluster.
    pub host_id: HostId,
    /// Its role.
    pub role: Role,
    /// Why it was chosen.
    pub reason: RouteReason,
    /// The cluster's timeline, when known.
    pub timeline: Option<Timeline>,
    /// What the read had to see, when a position bound it.
    pub required: Option<Lsn>,
    /// What a replica was known to have replayed; None: not known, or the primary.
    pub replayed: Option<Lsn>,
    /// How far behind it was at most; None: unknown.
    pub staleness: Option<Duration>,
    /// How long the call waited for a connection.
    pub waited: Duration,
    /// Hosts tried, this one included.
    pub attempts: u32,
    /// The cluster of another unexpired position of the caller, which is not seen here: its database is being moved, and
    /// it has written on both sides.
    pub elsewhere: Option<String>,
}
