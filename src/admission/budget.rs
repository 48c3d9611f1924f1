//! One host's connections, shared by its databases: who may have one, an idle one of its own or the right to open one, for
//! which an idle one of another's is given up. The bound holds at every moment, and nobody waits who may go.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    BudgetLimits, CallerId, QueueFigures, Shed, Use,
    fair::FairQueue,
    ledger::{Ledger, Taken},
};
use crate::clock;

/// The connections (`T`) to one host.
#[derive(Debug)]
pub struct Budget<T> {
    limits: BudgetLimits,
    ledger: Mutex<Ledger<T, oneshot::Sender<Grant<T>>>>,
}

/// One database's part in a budget; what is idle of it is closed when this is dropped.
#[derive(Debug)]
pub struct Account<T> {
    budget: Arc<Budget<T>>,
    index: usize,
}

/// The right to one connection, for as long as it lives. What it holds when it is dropped is idle from then on; if it holds
/// nothing, the connection counts as closed.
#[derive(Debug)]
pub struct Grant<T> {
    budget: Arc<Budget<T>>,
    account: usize,
    usage: Use,
    held: Option<T>,
    /// Another's that was idle: to be closed before a new one is opened.
    given_up: Option<T>,
    is_returned: bool,
}

/// What is in use, idle and awaited, by use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UseFigures {
    /// Connections in use.
    pub in_use: usize,
    /// The most there may be.
    pub limit: usize,
    /// Those that wait for one.
    pub queue: QueueFigures,
}

/// What a budget is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetFigures {
    /// By use, in the order of [`Use::ALL`].
    pub uses: [UseFigures; 4],
    /// Open and unused: of read-only connections and of others.
    pub idle: [usize; 2],
    /// The most connections of calls.
    pub calls: usize,
}

impl<T> Budget<T> {
    /// A budget without accounts.
    pub fn new(limits: BudgetLimits) -> Arc<Budget<T>> {
        Arc::new(Budget { limits, ledger: Mutex::new(Ledger::new(limits)) })
    }

    /// Opens an account. Shares are divided anew: what is too much then is closed when it comes back.
    pub fn join(self: &Arc<Self>) -> Account<T> {
        let index = self.lock().join();
        Account { budget: Arc::clone(self), index }
    }

    /// Takes out what is idle and over, by itself or by the time since when it is idle: for the caller to drop.
    pub fn reap(&self, is_over: impl Fn(&T, Instant) -> bool) -> Vec<T> {
        self.lock().reap(is_over)
    }

    /// What it is used for: `account`'s part, or all.
    fn figures_of(&self, account: Option<usize>) -> BudgetFigures {
        self.lock().figures(account)
    }

    /// What it is used for.
    pub fn figures(&self) -> BudgetFigures {
        self.figures_of(None)
    }

    /// The most connections, of whatever kind.
    pub fn limits(&self) -> &BudgetLimits {
        &self.limits
    }

    #[cfg(test)]
    pub(super) fn may_go(&self, account: usize, usage: Use) -> bool {
        self.lock().admits(account, usage)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger<T, oneshot::Sender<Grant<T>>>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets in those who may go now. Nothing is sent, or dropped, under the lock: what nobody takes comes back through it.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = self.lock().next();
            let Some((account, usage, taken, waiter)) = next else { return };
            if let Err(mut unwanted) = waiter.send(self.grant(account, usage, taken)) {
                unwanted.put_back();
            }
        }
    }

    fn grant(self: &Arc<Self>, account: usize, usage: Use, Taken { idle, given_up }: Taken<T>) -> Grant<T> {
        Grant { budget: Arc::clone(self), account, usage, held: idle, given_up, is_returned: false }
    }
}

impl<T> Account<T> {
    /// Waits for a connection, `max_age` at most; dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`Shed`]: the queue is full, or the wait took too long.
    pub async fn take(&self, usage: Use, caller: &CallerId, max_age: Duration) -> Result<Grant<T>, Shed> {
        let (receiver, _place) = {
            let mut ledger = self.budget.lock();
            if let Some(taken) = ledger.take(self.index, usage) {
                return Ok(self.budget.grant(self.index, usage, taken));
            }
            let now = clock::now();
            let queue = ledger.queue(self.index, usage);
            let (waiting, limit) = (queue.map_or(0, FairQueue::len), self.budget.limits.max_queue);
            if waiting >= limit {
                let oldest = queue.and_then(FairQueue::oldest);
                let oldest = oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                return Err(Shed::Full { place: usage.place(), waiting, limit, oldest });
            }
            let (sender, receiver) = oneshot::channel();
            let ticket = ledger.wait(self.index, usage, caller, now, sender);
            (receiver, Place { account: self, usage, caller, ticket })
        };
        match tokio::time::timeout(max_age, receiver).await {
            Ok(Ok(grant)) => Ok(grant),
            // A sender is dropped only by the place that is still held here.
            _ => Err(Shed::Aged { place: usage.place(), waited: max_age }),
        }
    }

    /// What the account uses.
    pub fn figures(&self) -> BudgetFigures {
        self.budget.figures_of(Some(self.index))
    }
}

impl<T> Drop for Account<T> {
    fn drop(&mut self) {
        let idle = self.budget.lock().part(self.index);
        drop(idle);
        self.budget.dispatch();
    }
}

impl<T> Grant<T> {
    /// The connection that it came with, if any; without one, the holder may open one.
    pub fn take(&mut self) -> Option<T> {
        self.held.take()
    }

    /// Keeps a connection for whoever comes next.
    pub fn keep(&mut self, connection: T) {
        self.held = Some(connection);
    }

    /// Another's idle connection: to be closed before a new one is opened.
    pub fn given_up(&mut self) -> Option<T> {
        self.given_up.take()
    }

    /// Another idle one of the account, when the one before was of no use and is closed.
    pub fn another(&mut self) -> Option<T> {
        self.budget.lock().another(self.account, self.usage)
    }

    /// What it is used for.
    pub fn usage(&self) -> Use {
        self.usage
    }

    /// Gives the right back, and what it holds; true if somebody waits.
    fn put_back(&mut self) -> bool {
        if std::mem::replace(&mut self.is_returned, true) {
            return false;
        }
        let (held, now) = (self.held.take(), clock::now());
        let mut ledger = self.budget.lock();
        let too_many = ledger.put_back(self.account, self.usage, held, now);
        let is_awaited = ledger.is_awaited();
        // Closed when nobody is held up by it.
        drop(ledger);
        drop(too_many);
        is_awaited
    }
}

impl<T> Drop for Grant<T> {
    fn drop(&mut self) {
        if self.put_back() {
            self.budget.dispatch();
        }
    }
}

/// A place in a queue; leaves it, however the wait ends.
struct Place<'a, T> {
    account: &'a Account<T>,
    usage: Use,
    caller: &'a CallerId,
    ticket: u64,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let left = self.account.budget.lock().leave(self.account.index, self.usage, self.caller, self.ticket);
        drop(left);
    }
}
