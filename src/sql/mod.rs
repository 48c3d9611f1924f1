//! What a statement's text says, without a server: is it one statement, may it be sent at all, and how must it be run.
//!
//! This is routing and good error messages, not a fence: PostgreSQL parses the text again, and the extended protocol
//! refuses several statements in one text. What this module does not recognise is passed on for the server to judge.

mod classify;
mod clean;
mod copy;
mod function;
mod keyword;
mod scanner;
mod schema;
mod settings;

pub use classify::{Kind, Place, SqlError, Statement, inspect};
pub use clean::{Footprint, NotClean, RelationName, footprint, footprint_of_write, harmless_functions, too_long};
pub use copy::{Copy, copy};
pub use schema::{SchemaChange, schema_change};
pub use settings::{LocalSettings, SettingError};
