//! The integration tests: one binary, one file a behaviour, against real PostgreSQL servers and a real broker.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]

mod distribution;
mod harness;
mod read_your_writes;
mod recovery;
mod restart;
mod tokens;
mod wal_positions;
mod wrong_servers;
