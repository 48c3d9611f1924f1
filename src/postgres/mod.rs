//! PostgreSQL itself: the only module that names tokio-postgres and bb8. Connections, what runs on them, pools, probes.

mod cancel;
mod connection;
mod error;
mod exchange;
mod open;
mod pool;
mod probe;
mod rows;
mod target;
mod tls;
mod types;

pub use connection::{Connection, Facts, Prepared, Purpose};
pub use error::{ConnectError, PgError, ServerError};
pub use exchange::{Begin, CommitKind, Committed, Exchange, Isolation, PendingReset, Wrap};
pub use pool::{ConnectObserver, HostIdentity, Lease, Pool, PoolLimits, PoolState};
pub use probe::{Identity, ProbeConnection, Reading};
pub use rows::RawRow;
pub use target::Target;
pub use tls::Tls;
