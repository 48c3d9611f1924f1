//! PostgreSQL itself: the only module that names tokio-postgres and bb8. Connections, what runs on them, pools, probes.

mod cancel;
mod connection;
mod copy;
mod error;
mod exchange;
mod listener;
mod notices;
mod open;
mod pool;
mod probe;
mod rows;
mod target;
mod tls;
mod transaction;
mod types;
mod wire;

pub use connection::{Connection, Facts, Prepared, Purpose};
pub use copy::{CopyIn, CopyOut, Fed};
pub use error::{ConnectError, PgError, ServerError};
pub use exchange::{CommitKind, Committed, Exchange, PendingReset, Wrap};
pub use listener::{Heard, Listener};
pub use notices::Notices;
pub use pool::{ConnectObserver, HostIdentity, Lease, Pool, PoolLimits, PoolState};
pub use probe::{Identity, ProbeConnection, Reading};
pub use rows::RawRow;
pub use target::Target;
pub use tls::Tls;
pub use transaction::{Begin, Isolation, Savepoint};
