//! The Rust client of the Tidegate broker: thin over the generated stubs, which are in [`proto`]. This file is the map.
//!
//! ```no_run
//! use tidegate_client::{Client, params};
//!
//! # async fn example() -> Result<(), tidegate_client::Error> {
//! let client = Client::builder().database("shop").session_id("user-7").connect("http://127.0.0.1:7432").await?;
//! client.execute("INSERT INTO tags (name) VALUES ($1)", params!["blue"]).await?;
//! // Sees the tag, whichever host answers: the client carries the write's position token to its reads.
//! let rows = client.read("SELECT id, name FROM tags WHERE name = $1", params!["blue"]).await?.rows().await?;
//! for row in &rows {
//!     println!("{} {}", row.get::<i64>("id")?, row.get::<&str>("name")?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is retried behind the caller's back: a retry is safe only where [`Error::outcome`] says that nothing was kept.

mod admin; // AdminClient: for operators
mod client; // Client: connection, context, calls
mod copy; // CopyIn, CopyOut
mod error; // Error, and Failure from grpc-status-details-bin
mod listen; // ListenStream
mod positions; // the tokens that a client remembers
mod read; // ReadOptions, ReadStream
mod rows; // columns → Batch, Rows, Row
mod session; // Session: one request at a time
mod session_positions;
mod session_raw; // RawSession: pipelining
mod token; // what position tokens say
mod transaction; // Begin, Transaction
mod value; // Value, ValueRef, and their conversions
mod write; // Statement, WriteOptions, Written

#[cfg(test)]
mod tests;

pub use admin::{AdminClient, TopologyStream};
pub use client::{Client, ClientBuilder};
pub use copy::{CopyIn, CopyOut};
pub use error::{Error, Failure};
pub use listen::{ListenEvent, ListenStream};
pub use proto::{
    Column, ColumnKind, Consistency, HostRole, Isolation, NoticeKind, Outcome, PostgresError, Receipt, RouteReason,
    SessionNotice, SessionOpened,
};
pub use read::{ReadOptions, ReadStream};
pub use rows::{Batch, ColumnIndex, Row, Rows};
pub use session::{Session, SessionReadStream};
pub use session_raw::RawSession;
pub use transaction::{Begin, Transaction};
pub use value::{Array, FromValue, Value, ValueRef};
pub use write::{Statement, StatementResult, WriteOptions, Written};

/// The generated messages and client stubs of `proto/tidegate/v1`.
pub mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    tonic::include_proto!("tidegate.v1");
}
