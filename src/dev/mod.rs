//! A local PostgreSQL cluster for `tidegate dev`, `tidegate demo` and the tests: a primary and streaming replicas from
//! nothing in about a second, each behind a TCP proxy, with the faults that a test wants to cause. The broker itself
//! never uses this module.

mod basebackup;
mod cluster;
mod error;
mod folder;
mod installation;
mod nameserver;
mod pgbouncer;
mod ports;
mod postmaster;
mod processes;
mod proxy;
mod replication;
mod server;
mod settings;
mod watchdog;

#[cfg(test)]
mod tests;

pub use cluster::{Cluster, ClusterOptions, DATABASE, PASSWORD, SUPERUSER, USER};
pub use error::DevError;
pub use installation::Installation;
pub use nameserver::NameServer;
pub use pgbouncer::PgBouncer;
pub use proxy::{CutAt, Direction, Proxy, TurnCount};
pub use server::Server;
