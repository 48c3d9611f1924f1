//! Writes: statements with their parameters, options, results.

use std::time::Duration;

use crate::{
    error::Error,
    proto::{self, Isolation, Receipt},
    rows::Batch,
    value::Value,
};

/// One SQL statement with its parameters: `Statement::new("DELETE FROM tags WHERE id = $1").bind(7)`.
#[derive(Clone, Debug)]
pub struct Statement {
    sql: String,
    params: Vec<Value>,
}

impl Statement {
    /// A statement without parameters.
    pub fn new(sql: impl Into<String>) -> Self {
        Statement { sql: sql.into(), params: Vec::new() }
    }

    /// The value of the next parameter.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.params.push(value.into());
        self
    }

    /// The values of the next parameters.
    #[must_use]
    pub fn bind_all(mut self, values: impl IntoIterator<Item = Value>) -> Self {
        self.params.extend(values);
        self
    }

    pub(crate) fn into_proto(self) -> proto::Statement {
        proto::Statement { sql: self.sql, params: self.params.into_iter().map(Value::into_proto).collect() }
    }
}

impl From<&str> for Statement {
    fn from(sql: &str) -> Self {
        Statement::new(sql)
    }
}

/// How a write is to run. What is not set is as the broker's defaults and the client's have it.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub(crate) isolation: Isolation,
    pub(crate) outside_transaction: bool,
    pub(crate) idempotency_key: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) operation: String,
}

impl WriteOptions {
    /// Nothing set.
    pub fn new() -> Self {
        WriteOptions::default()
    }

    /// The transaction's isolation level.
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// For VACUUM, CREATE INDEX CONCURRENTLY and their like: one statement, without a transaction around it.
    #[must_use]
    pub fn outside_transaction(mut self) -> Self {
        self.outside_transaction = true;
        self
    }

    /// Makes the write safe to repeat: a write with a key that was committed before is not done again, and answers the
    /// first one's results ([`Written::replayed`]). At most 255 bytes; one key a write, the same for its repetitions.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = key.into();
        self
    }

    /// How long the write may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A label for routing rules and metrics.
    #[must_use]
    pub fn operation(mut self, label: impl Into<String>) -> Self {
        self.operation = label.into();
        self
    }
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub struct Written {
    /// One result a statement, in order.
    pub results: Vec<StatementResult>,
    /// Where it ran.
    pub receipt: Receipt,
    /// The caller's position token, this write's included.
    pub position: String,
    replayed: bool,
}

impl Written {
    pub(crate) fn from_proto(response: proto::ExecuteWriteResponse) -> Result<Self, Error> {
        Ok(Written {
            results: response.results.into_iter().map(StatementResult::from_proto).collect::<Result<_, _>>()?,
            receipt: response.receipt.unwrap_or_default(),
            position: response.position,
            replayed: response.replayed,
        })
    }

    /// Whether these are the stored results of a transaction that was committed before with the same idempotency key.
    pub fn replayed(&self) -> bool {
        self.replayed
    }

    /// How many rows all statements affected.
    pub fn rows_affected(&self) -> u64 {
        self.results.iter().map(|result| result.rows_affected).sum()
    }
}

/// What one statement did.
#[derive(Clone, Debug)]
pub struct StatementResult {
    /// How many rows it inserted, updated, deleted or returned.
    pub rows_affected: u64,
    /// The rows that it returned, as by RETURNING.
    pub rows: Batch,
}

impl StatementResult {
    pub(crate) fn from_proto(result: proto::StatementResult) -> Result<Self, Error> {
        let columns = result.columns.into();
        let rows = match result.rows {
            Some(rows) => Batch::new(columns, rows)?,
            None => Batch::empty(columns),
        };
        Ok(StatementResult { rows_affected: result.rows_affected, rows })
    }
}
