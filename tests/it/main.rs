//! The integration tests: one binary, one file a behaviour, against real PostgreSQL servers and a real broker.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod asking;
mod harness;

mod bad_input;
mod cancel;
mod command_line;
mod hygiene;
mod not_yet;
mod read_your_writes;
mod round_trips;
mod server;
mod session_limits;
mod sessions;
mod stale_statements;
mod streaming;
