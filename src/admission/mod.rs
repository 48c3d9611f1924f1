//! Who may have a connection, who may run, and in which order: budgets, limits, fair queues of bounded length and age, turns.

mod budget;
#[cfg(test)]
mod budget_tests;
mod fair;
mod ledger;
mod limiter;
mod room;
mod shares;
mod shed;
mod turns;

use std::time::Instant;

pub use budget::{Account, Budget, BudgetFigures, Grant, Store, Ticket, UseFigures};
pub use fair::CallerId;
pub use limiter::{CallLimits, CallPermit, Limiter};
pub use room::{Room, Stay};
pub use shares::{BudgetLimits, CONTROL_CONNECTIONS, Use};
pub use shed::Shed;
pub use turns::{QueueFull, Turn, Turns};

/// A queue at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Those in line.
    pub waiting: usize,
    /// Since when the one that has waited longest waits.
    pub oldest: Option<Instant>,
}

impl QueueFigures {
    fn of<T>(queue: &fair::FairQueue<T>) -> QueueFigures {
        QueueFigures { waiting: queue.len(), oldest: queue.oldest() }
    }

    /// Both queues as one.
    #[must_use]
    pub fn and(self, other: QueueFigures) -> QueueFigures {
        let oldest = self.oldest.into_iter().chain(other.oldest).min();
        QueueFigures { waiting: self.waiting + other.waiting, oldest }
    }
}
