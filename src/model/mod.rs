//! The pure model: what is known about clusters, what a call must see, and where it goes. It has no I/O, clock,
//! randomness or logging and uses std alone: time and chance are arguments.

mod balance;
mod cluster;
mod consistency;
mod deadline;
mod history;
mod host;
mod lsn;
mod position;
mod retry;
mod route;
mod sample;
mod transaction;
mod view;

#[cfg(test)]
mod balance_tests;
#[cfg(test)]
mod position_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod test_support;

pub use balance::{Balance, BalancePolicy, InFlight, Place};
pub use cluster::{ClusterId, HostId, HostSet};
pub use consistency::Consistency;
pub use deadline::Deadline;
pub use history::{Histories, HistoryId, HistoryPoint, Required};
pub use host::{HostHealth, HostView, Role};
pub use lsn::{GeometryError, Lsn, LsnParseError, Timeline, WalGeometry};
pub use position::{Binding, Floor, Marks, Position, bind};
pub use retry::Backoff;
pub use route::{Decision, Rejection, RouteReason, RouteRequest, route, route_write};
pub use sample::{Sample, SampleRing};
pub use transaction::{TransactionError, TransactionState};
pub use view::ClusterView;
