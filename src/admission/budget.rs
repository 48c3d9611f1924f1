//! One host's connections, shared by its databases: who may have one in use (a grant), and which exist (a ticket each).
//! When all tickets are out, an idle connection is closed for a new one. The bounds hold at every moment, and nobody waits
//! who may go.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use super::{BudgetLimits, CallerId, QueueFigures, Shed, Use, fair::FairQueue, ledger::Ledger, shares::USES};
use crate::clock;

/// Where an account's connections are while nobody uses them.
pub trait Store: Send + Sync {
    /// Closes an idle connection, of those that can write or of the others. False: there is none.
    fn give_up(&self, writes: bool) -> bool;
}

/// The connections to one host, which accounts keep in an `S` each.
#[derive(Debug)]
pub struct Budget<S: Store> {
    ledger: Mutex<Books<S>>,
    /// A connection was closed, or is idle now.
    freed: Notify,
}

type Books<S> = Ledger<S, Waiter<S>>;

#[derive(Debug)]
struct Waiter<S: Store> {
    sender: oneshot::Sender<Grant<S>>,
    store: Arc<S>,
}

/// One database's part in a budget; what is idle of it is closed when this is dropped.
#[derive(Debug)]
pub struct Account<S: Store> {
    budget: Arc<Budget<S>>,
    index: usize,
    store: Arc<S>,
}

/// The right to use one connection, for as long as it lives. The connection is to be back in the store, or closed, before.
#[derive(Debug)]
pub struct Grant<S: Store> {
    budget: Arc<Budget<S>>,
    account: usize,
    usage: Use,
    store: Arc<S>,
    is_returned: bool,
}

/// The right of one connection to exist: it owns this until it is closed.
#[derive(Debug)]
pub struct Ticket<S: Store> {
    budget: Arc<Budget<S>>,
    account: usize,
    writes: bool,
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
    pub uses: [UseFigures; USES],
    /// Open and unused: of read-only connections and of others.
    pub idle: [usize; 2],
    /// The most connections of calls.
    pub calls: usize,
}

impl<S: Store> Budget<S> {
    /// A budget without accounts.
    pub fn new(limits: BudgetLimits) -> Arc<Budget<S>> {
        Arc::new(Budget { ledger: Mutex::new(Ledger::new(limits)), freed: Notify::new() })
    }

    /// What it is used for: `account`'s part, or all.
    fn figures_of(&self, account: Option<usize>) -> BudgetFigures {
        self.lock().figures(account)
    }

    /// What it is used for.
    pub fn figures(&self) -> BudgetFigures {
        self.figures_of(None)
    }

    /// Whether it has an account that is not closed.
    pub fn is_joined(&self) -> bool {
        self.lock().members() > 0
    }

    /// Goes by other limits from now on. What is idle beyond them is closed now, what is in use when it comes back; who
    /// waits and may go does.
    pub fn set_limits(self: &Arc<Self>, limits: BudgetLimits) {
        self.lock().set_limits(limits);
        self.trim();
        self.freed.notify_waiters();
        self.dispatch();
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.lock().are_open()
    }

    fn lock(&self) -> MutexGuard<'_, Books<S>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an account. Shares are divided anew: what is too much then is closed, now or when it comes back.
    pub fn join(self: &Arc<Self>, store: &Arc<S>) -> Account<S> {
        let index = self.lock().join(Arc::downgrade(store));
        self.trim();
        Account { budget: Arc::clone(self), index, store: Arc::clone(store) }
    }

    /// Closes what is idle for as long as there are too many.
    fn trim(&self) {
        loop {
            let spares = Some(self.lock()).filter(|ledger| ledger.are_too_many()).map(|ledger| ledger.spares());
            if !spares.is_some_and(give_up_one) {
                return;
            }
        }
    }

    /// Lets in those who may go now. Nothing is sent, or dropped, under the lock: what nobody takes comes back through it.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = self.lock().next();
            let Some((account, usage, Waiter { sender, store })) = next else { return };
            if let Err(mut unwanted) = sender.send(self.grant(account, usage, &store)) {
                unwanted.put_back();
            }
        }
    }

    fn grant(self: &Arc<Self>, account: usize, usage: Use, store: &Arc<S>) -> Grant<S> {
        Grant { budget: Arc::clone(self), account, usage, store: Arc::clone(store), is_returned: false }
    }
}

/// Closes an idle connection of the first that has one. False: none has.
fn give_up_one<S: Store>(spares: Vec<(Arc<S>, bool)>) -> bool {
    spares.iter().any(|(store, writes)| store.give_up(*writes))
}

impl<S: Store> Account<S> {
    /// Waits for a connection; dropping the future leaves the queue. None: the account is closed, or was meanwhile.
    ///
    /// # Errors
    /// [`Shed`]: the queue is full, or the wait took too long.
    pub async fn take(&self, usage: Use, caller: &CallerId) -> Result<Option<Grant<S>>, Shed> {
        let (receiver, _place, max_age) = {
            let mut ledger = self.budget.lock();
            if ledger.is_closed(self.index) {
                return Ok(None);
            }
            if ledger.take(self.index, usage) {
                drop(ledger);
                return Ok(Some(self.budget.grant(self.index, usage, &self.store)));
            }
            let now = clock::now();
            let queue = ledger.queue(self.index, usage);
            let BudgetLimits { max_queue: limit, max_queue_age, .. } = *ledger.limits();
            let waiting = queue.map_or(0, FairQueue::len);
            if waiting >= limit {
                let oldest = queue.and_then(FairQueue::oldest);
                let oldest = oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                return Err(Shed::Full { place: usage.place(), waiting, limit, oldest });
            }
            let (sender, receiver) = oneshot::channel();
            let waiter = Waiter { sender, store: Arc::clone(&self.store) };
            let number = ledger.wait(self.index, usage, caller, now, waiter);
            (receiver, Place { account: self, usage, caller, number }, max_queue_age)
        };
        match tokio::time::timeout(max_age, receiver).await {
            Ok(Ok(grant)) => Ok(Some(grant)),
            // The place is still held here: it is the account that dropped the sender.
            Ok(Err(_)) => Ok(None),
            Err(_) => Err(Shed::Aged { place: usage.place(), waited: max_age }),
        }
    }

    /// A connection, if one may be had at once and nobody waits for any.
    pub fn try_take(&self, usage: Use) -> Option<Grant<S>> {
        let mut ledger = self.budget.lock();
        let taken = !ledger.is_closed(self.index) && !ledger.is_awaited() && ledger.take(self.index, usage);
        drop(ledger);
        taken.then(|| self.budget.grant(self.index, usage, &self.store))
    }

    /// The most connections for that use, over all accounts.
    pub fn share(&self, usage: Use) -> usize {
        self.budget.lock().share(usage)
    }

    /// Whether anybody but a lane waits for a connection to the host.
    pub fn is_awaited_by_calls(&self) -> bool {
        self.budget.lock().is_awaited_by_calls()
    }

    /// Grants nothing any more: what is idle is closed now, what is in use when it comes back, and who waits is told.
    pub fn close(&self) {
        let waiting = self.budget.lock().close(self.index);
        drop(waiting);
        while [false, true].into_iter().any(|writes| self.store.give_up(writes)) {}
        self.budget.dispatch();
    }

    /// Where its connections are.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    #[cfg(test)]
    pub(super) fn may_go(&self, usage: Use) -> bool {
        self.budget.lock().admits(self.index, usage)
    }

    /// What the account uses.
    pub fn figures(&self) -> BudgetFigures {
        self.budget.figures_of(Some(self.index))
    }
}

impl<S: Store> Drop for Account<S> {
    fn drop(&mut self) {
        self.close();
        self.budget.lock().leave_account(self.index);
    }
}

impl<S: Store> Grant<S> {
    /// The right to open a connection; one that is idle is closed for it if there is no room. Waits only while others are
    /// being closed: there are no more grants than connections may be, so whoever has none leaves one idle.
    pub async fn ticket(&self) -> Ticket<S> {
        let writes = self.usage.writes();
        loop {
            let mut freed = std::pin::pin!(self.budget.freed.notified());
            freed.as_mut().enable();
            let spares = {
                let mut ledger = self.budget.lock();
                if ledger.open(self.account, writes) {
                    return Ticket { budget: Arc::clone(&self.budget), account: self.account, writes };
                }
                ledger.spares()
            };
            if !give_up_one(spares) {
                freed.await;
            }
        }
    }

    /// Where the connection is when it is not in use.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// What it is used for.
    pub fn usage(&self) -> Use {
        self.usage
    }

    /// Gives the right back; true if somebody waits.
    fn put_back(&mut self) -> bool {
        if std::mem::replace(&mut self.is_returned, true) {
            return false;
        }
        let now = clock::now();
        let mut ledger = self.budget.lock();
        let is_surplus = ledger.put_back(self.account, self.usage, now);
        let is_awaited = ledger.is_awaited();
        drop(ledger);
        if is_surplus {
            self.store.give_up(self.usage.writes());
        }
        self.budget.freed.notify_waiters();
        is_awaited
    }
}

impl<S: Store> Drop for Grant<S> {
    fn drop(&mut self) {
        if self.put_back() {
            self.budget.dispatch();
        }
    }
}

impl<S: Store> Drop for Ticket<S> {
    fn drop(&mut self) {
        self.budget.lock().closed(self.account, self.writes);
        self.budget.freed.notify_waiters();
    }
}

/// A place in a queue; leaves it, however the wait ends.
struct Place<'a, S: Store> {
    account: &'a Account<S>,
    usage: Use,
    caller: &'a CallerId,
    number: u64,
}

impl<S: Store> Drop for Place<'_, S> {
    fn drop(&mut self) {
        let left = self.account.budget.lock().leave(self.account.index, self.usage, self.caller, self.number);
        drop(left);
    }
}
