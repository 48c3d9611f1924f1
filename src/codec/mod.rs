//! Protobuf values and columns, from and to PostgreSQL's formats. Pure: no I/O, and no connection.
//!
//! Results arrive in PostgreSQL's binary format and leave as columns ([`describe`], [`BatchBuilder`]); parameters arrive
//! as `Value`s and leave as [`Param`]s ([`encode`]). Types without an exact protobuf counterpart travel as the text that
//! `::text` gives with DateStyle ISO, IntervalStyle postgres and TimeZone UTC, so no value loses precision.

mod array;
mod columns;
mod error;
mod params;
mod read;
mod scalar;
mod stored;
mod text;

pub use columns::{BatchBuilder, ColumnSpec, describe};
pub use error::CodecError;
pub use params::{Param, encode, misfit};
pub use stored::{StoredResult, read_stored_results, request_hash, store_results};

// The wire's own messages for values and columns: the request path passes them on without looking inside.
pub use crate::proto::{Column, RowBatch, Value};
