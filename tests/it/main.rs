//! The integration tests: one binary, one file a behaviour, against real PostgreSQL servers and a real broker.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod admission;
mod asking;
mod bad_input;
mod bench_command;
mod cancel;
mod check_command;
mod command_line;
mod demo_command;
mod distribution;
mod encodings;
mod harness;
mod hygiene;
mod not_yet;
mod outside_transaction;
mod python_client;
mod read_your_writes;
mod recovery;
mod request_size;
mod restart;
mod round_trips;
mod row_size;
mod server;
mod session_limits;
mod session_tokens;
mod sessions;
mod stale_statements;
mod streaming;
mod tokens;
mod wal_positions;
mod wrong_servers;
