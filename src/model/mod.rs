//! The pure model: what is known about clusters, what a call must see, and where it goes. It has no I/O, clock,
//! randomness or logging and uses std alone: time and chance are arguments.

mod balance;
mod cluster;
mod consistency;
mod deadline;
mod explain;
mod health;
mod history;
mod host;
mod lsn;
mod pace;
mod position;
mod primacy;
mod retry;
mod roles;
mod rollout;
mod route;
mod rule;
mod sample;
mod transaction;
mod view;

#[cfg(test)]
mod balance_tests;
#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod position_tests;
#[cfg(test)]
mod roles_tests;
#[cfg(test)]
mod route_tests;
#[cfg(test)]
pub(crate) mod test_support;

pub use balance::{Balance, BalancePolicy, InFlight, Place};
pub use cluster::{ClusterId, HostId, HostSet};
pub use consistency::Consistency;
pub use deadline::Deadline;
pub use explain::{Explained, Explanation, Move, explain, place_call};
pub use health::{Health, HealthChange, HealthEvent, HealthSettings, Ramp};
pub use history::{Histories, HistoryId, HistoryPoint, Required, SwitchPoint};
pub use host::{HostHealth, HostView, Role};
pub use lsn::{GeometryError, Lsn, LsnParseError, Timeline, WalGeometry};
pub use pace::{Crowd, Demotion, LARGE_BYTES, Pace, Run};
pub use position::{Binding, Floor, Marks, Position, bind};
pub use primacy::Primacy;
pub use retry::Backoff;
pub use roles::{Election, Said, Verdict};
pub use rollout::{Draw, Percentage, Placement, RolloutState, Site, place};
pub use route::{
    Account, Decision, Rejection, RouteReason, RouteRequest, Standing, account_for_read, account_for_write, route,
    route_write,
};
pub use rule::{Asked, Glob, Rule, Ruled, Rules};
pub use sample::{Sample, SampleRing};
pub use transaction::{TransactionError, TransactionState};
pub use view::{ClusterView, LeftPrimary};
