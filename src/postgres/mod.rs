//! PostgreSQL itself: the only module that names tokio-postgres and bb8. Connections, what runs on them, pools, probes.

mod cancel;
mod commit;
mod connection;
mod error;
mod exchange;
mod fate;
mod key_table;
mod keyed;
mod open;
mod pool;
mod probe;
mod rows;
mod target;
mod tls;

pub use commit::{CommitKind, Committed, PendingReset};
pub use connection::{Connection, Facts, Prepared, Purpose};
pub use error::{ConnectError, PgError, ServerError};
pub use exchange::{Begin, Exchange, Isolation, TransactionId, Wrap};
pub use fate::Fate;
pub use key_table::{KEY_TABLE, KeyTable, KeyTableState};
pub use keyed::{Claim, IdempotencyKey, StoredWrite};
pub use pool::{ConnectObserver, HostIdentity, Lease, Pool, PoolLimits, PoolState};
pub use probe::{Identity, ProbeConnection, Reading};
pub use rows::RawRow;
pub use target::Target;
pub use tls::Tls;
