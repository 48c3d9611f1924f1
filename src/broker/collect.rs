//! The result of a statement of a write: collected whole, within a bound, since it travels in one message.

use super::{Failure, Outcome, Reason, StatementOutcome};
use crate::{
    codec::{BatchBuilder, CodecError, ColumnSpec, describe},
    postgres::{Exchange, PgError, Prepared},
};

/// A statement's result and its size in bytes.
pub(crate) struct Collected {
    pub(crate) outcome: StatementOutcome,
    pub(crate) bytes: usize,
}

/// Why a result could not be collected.
pub(crate) enum NotCollected {
    /// The server, or the connection to it, failed.
    Server(PgError),
    /// A column or a cell cannot be carried.
    Codec(CodecError),
    /// It is larger than its bound.
    TooLarge { bytes: usize, limit: usize },
}

impl NotCollected {
    /// The failure; `interrupted` is the outcome when the connection ended.
    pub(crate) fn into_failure(self, interrupted: Outcome) -> Failure {
        match self {
            NotCollected::Server(error) => Failure::from_exchange(error, interrupted),
            NotCollected::Codec(error) => error.into(),
            NotCollected::TooLarge { bytes, limit } => {
                let message = format!(
                    "the result takes more than {bytes} bytes, and a write may return {limit} (results.max_write_result_bytes); \
                     return fewer rows or columns"
                );
                Failure::new(Reason::ResultTooLarge, message)
            }
        }
    }
}

/// Reads a statement's result to its end.
pub(crate) async fn collect(
    exchange: &mut Exchange,
    prepared: &Prepared,
    limit: usize,
) -> Result<Collected, NotCollected> {
    let columns =
        describe(prepared.columns().map(|(name, type_, type_modifier)| ColumnSpec { name, type_, type_modifier }));
    let columns = columns.map_err(NotCollected::Codec)?;
    let types: Vec<_> = prepared.columns().map(|(_, type_, _)| type_.clone()).collect();
    let mut builder = BatchBuilder::new(&types).map_err(NotCollected::Codec)?;
    while let Some(row) = exchange.next_row().await.map_err(NotCollected::Server)? {
        builder.push_row(row.cells()).map_err(NotCollected::Codec)?;
        let bytes = builder.encoded_size();
        if bytes > limit {
            return Err(NotCollected::TooLarge { bytes, limit });
        }
    }
    let bytes = builder.encoded_size();
    let rows = prepared.returns_rows().then(|| builder.take());
    Ok(Collected { outcome: StatementOutcome { rows_affected: exchange.rows_affected(), columns, rows }, bytes })
}
