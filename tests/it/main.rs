//! The integration tests: one binary, one file a behaviour, against real PostgreSQL servers and a real broker.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod asking;
mod bad_input;
mod cancel;
mod check_command;
mod demo_command;
mod distribution;
mod harness;
mod hygiene;
mod python_client;
mod read_your_writes;
mod recovery;
mod restart;
mod session_limits;
mod sessions;
mod stale_statements;
mod tokens;
mod wal_positions;
mod wrong_servers;
