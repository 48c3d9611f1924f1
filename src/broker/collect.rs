//! The result of a statement of a write: collected whole, within a bound, since it travels in one message.

use super::{Failure, Outcome, Reason, Settings, StatementOutcome, ready::column_specs, stream::MESSAGE_SLACK};
use crate::{
    codec::{BatchBuilder, CodecError, columns_len, describe},
    postgres::{Exchange, PgError, Prepared},
};

/// What a statement's result takes beside its columns and rows: keys, lengths, the number of rows affected.
const STATEMENT_BYTES: usize = 32;

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
                    "the result takes {bytes} bytes or more, and there is room for {limit} \
                     (results.max_write_result_bytes, results.max_message_bytes); return fewer rows or columns"
                );
                Failure::new(Reason::ResultTooLarge, message)
            }
        }
    }
}

/// How much the statements of one write may return, in bytes: what is configured, and never more than a message that
/// the caller accepts. A write whose answer nobody can read must not be kept.
pub(crate) fn result_room(settings: &Settings) -> usize {
    settings.max_write_result_bytes.min(settings.max_message_bytes.saturating_sub(MESSAGE_SLACK))
}

/// Reads a statement's result to its end.
pub(crate) async fn collect(
    exchange: &mut Exchange,
    prepared: &Prepared,
    limit: usize,
) -> Result<Collected, NotCollected> {
    let columns = describe(column_specs(prepared)).map_err(NotCollected::Codec)?;
    let mut builder = BatchBuilder::new(column_specs(prepared)).map_err(NotCollected::Codec)?;
    let around = if columns.is_empty() { 0 } else { columns_len(&columns) + STATEMENT_BYTES };
    let too_large = |rows: usize| NotCollected::TooLarge { bytes: around + rows, limit };
    let room = limit.checked_sub(around).ok_or_else(|| too_large(0))?;
    while let Some(row) = exchange.next_row().await.map_err(NotCollected::Server)? {
        builder.push_row(row.cells(), room).map_err(|error| match error {
            CodecError::RowTooLarge { bytes, .. } => too_large(bytes),
            error => NotCollected::Codec(error),
        })?;
    }
    let bytes = around + builder.encoded_size();
    let rows = prepared.returns_rows().then(|| builder.take());
    Ok(Collected { outcome: StatementOutcome { rows_affected: exchange.rows_affected(), columns, rows }, bytes })
}
