//! The integration tests: one binary, one file a behaviour, against real PostgreSQL servers and a real broker.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod admission;
mod asking;
mod bad_input;
mod cancel;
mod check_command;
mod command_line;
mod cut_everywhere;
mod demo_command;
mod distribution;
mod harness;
mod hygiene;
mod idempotency;
mod lost_commits;
mod not_yet;
mod outside_transaction;
mod python_client;
mod read_your_writes;
mod recovery;
mod restart;
mod round_trips;
mod server;
mod session_limits;
mod session_tokens;
mod sessions;
mod stale_statements;
mod streaming;
mod tokens;
mod wal_positions;
mod wrong_servers;
