//! Tidegate: a gRPC connection broker for PostgreSQL. This file is the map: one line per module.

pub mod admission; // gates: who may take a connection, in which order
pub mod app; // Config → the wired parts; order of start and drain
pub mod broker; // the request path: read, write, session
pub mod cli; // one file per subcommand
pub mod clock; // the one place that reads the time
pub mod codec; // protobuf values and columns, from and to PostgreSQL's formats
pub mod config; // file, environment and flags → one validated Config
pub mod console; // HTTP: metrics and health
pub mod dev; // a local PostgreSQL cluster for `tidegate dev` and the tests
pub mod gather; // small writes that gather what others are about to send
pub mod grpc; // thin adapters between the wire and the broker
pub mod model; // pure: positions, histories, routing
pub mod position; // the slot table and position tokens
pub mod postgres; // the only user of tokio-postgres and bb8
pub mod proto; // generated from proto/
pub mod sql; // pure: what a statement's text says
pub mod telemetry; // logs, metrics, traces
pub mod topology; // probers, and the monitor that publishes snapshots
