//! Protobuf values and columns, from and to PostgreSQL's formats. Pure: no I/O, and no connection.
//!
//! Results arrive in PostgreSQL's binary format and leave as columns ([`describe`], [`BatchBuilder`]); parameters arrive
//! as `Value`s and leave as [`Param`]s ([`encode`]). Types without an exact protobuf counterpart travel as the text that
//! `::text` gives with DateStyle ISO, IntervalStyle postgres and TimeZone UTC, so no value loses precision.

mod batch;
mod cell;
mod column;
mod columns;
mod error;
mod header;
mod nested;
mod params;
mod read;
mod scalar;
mod stored;
#[cfg(test)]
mod test_support;
mod text;
mod wire;

pub use batch::RowBatch;
pub use columns::{BatchBuilder, ColumnSpec, Layout, batch_within, carries, columns_len, describe};
pub use error::CodecError;
pub use header::{Columns, ReadHeader};
pub use params::{Param, encode, misfit};
pub use scalar::{is_bounded, knows};
pub use stored::{StoredResult, read_stored_results, request_hash, store_results};

// The wire's own messages for values and columns: the request path passes them on without looking inside.
pub use crate::proto::{Column, Value};
