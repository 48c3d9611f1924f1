//! A budget's books, without locks, clocks and waiting: what each account has in use and idle, and who is next.

use std::{collections::VecDeque, time::Instant};

use super::{
    BudgetFigures, BudgetLimits, CallerId, QueueFigures, Use,
    budget::UseFigures,
    fair::FairQueue,
    shares::{READS, Shares},
};

/// Connections (`T`) and those who wait for one (`W`).
#[derive(Debug)]
pub(super) struct Ledger<T, W> {
    limits: BudgetLimits,
    shares: Shares,
    accounts: Vec<Option<Entry<T, W>>>,
    /// Accounts that are open.
    open: usize,
    /// In use, over all accounts, by use.
    in_use: [usize; 4],
    idle: usize,
    waiting: usize,
    /// Where the search for the next begins, so that those with equal claims take turns.
    turn: usize,
}

#[derive(Debug)]
struct Entry<T, W> {
    in_use: [usize; 4],
    /// Read-only ones, then others; the last used at the back.
    idle: [VecDeque<Idle<T>>; 2],
    queues: [FairQueue<W>; 4],
    is_closed: bool,
}

#[derive(Debug)]
struct Idle<T> {
    connection: T,
    since: Instant,
}

/// What goes with the right to a connection.
#[derive(Debug)]
pub(super) struct Taken<T> {
    /// The account's own idle one; None: one may be opened.
    pub(super) idle: Option<T>,
    /// Another that makes room for it.
    pub(super) given_up: Option<T>,
}

impl<T, W> Entry<T, W> {
    fn new() -> Entry<T, W> {
        Entry { in_use: [0; 4], idle: Default::default(), queues: Default::default(), is_closed: false }
    }

    fn uses(&self, family: &[Use]) -> usize {
        sum(&self.in_use, family)
    }

    fn idle(&mut self, usage: Use) -> &mut VecDeque<Idle<T>> {
        &mut self.idle[usize::from(usage.writes())]
    }
}

fn sum(in_use: &[usize; 4], family: &[Use]) -> usize {
    family.iter().map(|usage| in_use[usage.index()]).sum()
}

impl<T, W> Ledger<T, W> {
    pub(super) fn new(limits: BudgetLimits) -> Ledger<T, W> {
        let shares = Shares::of(&limits, 0);
        Ledger { limits, shares, accounts: Vec::new(), open: 0, in_use: [0; 4], idle: 0, waiting: 0, turn: 0 }
    }

    pub(super) fn join(&mut self) -> usize {
        let free = self.accounts.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.accounts.push(None);
            self.accounts.len() - 1
        });
        self.accounts[index] = Some(Entry::new());
        self.open += 1;
        self.shares = Shares::of(&self.limits, self.open);
        index
    }

    /// Closes an account; what it has in use comes back later.
    pub(super) fn part(&mut self, index: usize) -> Vec<T> {
        let Some(entry) = &mut self.accounts[index] else { return Vec::new() };
        entry.is_closed = true;
        let idle: Vec<T> = entry.idle.iter_mut().flat_map(std::mem::take).map(|idle| idle.connection).collect();
        self.idle -= idle.len();
        self.open -= 1;
        self.shares = Shares::of(&self.limits, self.open);
        self.forget_if_done(index);
        idle
    }

    fn forget_if_done(&mut self, index: usize) {
        let is_done = |entry: &Entry<T, W>| entry.is_closed && entry.in_use == [0; 4];
        if self.accounts[index].as_ref().is_some_and(is_done) {
            self.accounts[index] = None;
        }
    }

    fn used(&self) -> usize {
        self.in_use.iter().sum()
    }

    /// Whether the account may have one more: no share is exceeded, and each other account is left one of its own.
    pub(super) fn admits(&self, index: usize, usage: Use) -> bool {
        let shares = &self.shares;
        self.used() < shares.calls
            && match usage {
                Use::Write => self.has_room(index, Use::Write, shares.writes),
                Use::Transaction => {
                    self.in_use[Use::Transaction.index()] < shares.transactions
                        && self.has_room(index, Use::Write, shares.writes)
                }
                Use::PrimaryRead => {
                    sum(&self.in_use, READS) < shares.reads
                        && self.has_room(index, Use::PrimaryRead, shares.primary_reads)
                }
                Use::ReplicaRead => self.has_room(index, Use::ReplicaRead, shares.reads),
            }
    }

    fn has_room(&self, index: usize, usage: Use, share: usize) -> bool {
        let family = usage.family();
        let free = share.saturating_sub(sum(&self.in_use, family));
        let others = self.open.saturating_sub(1);
        if free == 0 || free > others || share <= others {
            // None; or enough whatever the others lack; or too little to keep any for them.
            return free > 0;
        }
        let lacks = |entry: &Entry<T, W>| !entry.is_closed && entry.uses(family) == 0;
        let entries = self.accounts.iter().enumerate().filter(|(other, _)| *other != index);
        free > entries.filter(|(_, entry)| entry.as_ref().is_some_and(lacks)).count()
    }

    /// Takes one, if the account may have it; who is in line already goes first, and may not go either.
    pub(super) fn take(&mut self, index: usize, usage: Use) -> Option<Taken<T>> {
        if !self.admits(index, usage) {
            return None;
        }
        let entry = self.accounts[index].as_mut()?;
        entry.in_use[usage.index()] += 1;
        self.in_use[usage.index()] += 1;
        let idle = entry.idle(usage).pop_back();
        self.idle -= usize::from(idle.is_some());
        let must_give_up = self.used() + self.idle > self.shares.calls;
        let given_up = if must_give_up { self.give_up() } else { None };
        Some(Taken { idle: idle.map(|idle| idle.connection), given_up })
    }

    /// The one that nobody has used for the longest time.
    fn give_up(&mut self) -> Option<T> {
        let idle = self.accounts.iter_mut().flatten().flat_map(|entry| &mut entry.idle);
        let oldest = idle.filter(|idle| !idle.is_empty()).min_by_key(|idle| idle.front().map(|idle| idle.since))?;
        let given_up = oldest.pop_front()?;
        self.idle -= 1;
        Some(given_up.connection)
    }

    /// Another idle one for a right that was granted.
    pub(super) fn another(&mut self, index: usize, usage: Use) -> Option<T> {
        let idle = self.accounts[index].as_mut()?.idle(usage).pop_back()?;
        self.idle -= 1;
        Some(idle.connection)
    }

    /// The end of a use. Answers what is not kept: its account is closed, or there are too many.
    pub(super) fn put_back(&mut self, index: usize, usage: Use, held: Option<T>, now: Instant) -> Option<T> {
        self.in_use[usage.index()] -= 1;
        let has_room = self.used() + self.idle < self.shares.calls;
        let entry = self.accounts[index].as_mut()?;
        entry.in_use[usage.index()] -= 1;
        let (kept, spare) = match held {
            Some(connection) if has_room && !entry.is_closed => (Some(connection), None),
            held => (None, held),
        };
        if let Some(connection) = kept {
            entry.idle(usage).push_back(Idle { connection, since: now });
            self.idle += 1;
        }
        self.forget_if_done(index);
        spare
    }

    pub(super) fn queue(&self, index: usize, usage: Use) -> Option<&FairQueue<W>> {
        self.accounts[index].as_ref().map(|entry| &entry.queues[usage.index()])
    }

    pub(super) fn wait(&mut self, index: usize, usage: Use, caller: &CallerId, now: Instant, waiter: W) -> u64 {
        let Some(entry) = &mut self.accounts[index] else { return 0 };
        self.waiting += 1;
        entry.queues[usage.index()].push(caller, now, waiter)
    }

    pub(super) fn leave(&mut self, index: usize, usage: Use, caller: &CallerId, ticket: u64) -> Option<W> {
        let left = self.accounts[index].as_mut()?.queues[usage.index()].remove(caller, ticket)?;
        self.waiting -= 1;
        Some(left)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.waiting > 0
    }

    /// The next that waits and may go: of the account that has the least of what it waits for; those with equal claims
    /// take turns.
    pub(super) fn next(&mut self) -> Option<(usize, Use, Taken<T>, W)> {
        if !self.is_awaited() {
            return None;
        }
        let places = self.accounts.len() * Use::ALL.len();
        let in_turn = (0..places).map(|offset| (self.turn + offset) % places);
        let claims = in_turn.filter_map(|place| {
            let (index, usage) = (place / Use::ALL.len(), Use::ALL[place % Use::ALL.len()]);
            let entry = self.accounts[index].as_ref()?;
            let may = entry.queues[usage.index()].len() > 0 && self.admits(index, usage);
            may.then(|| (entry.uses(usage.family()), place, index, usage))
        });
        let (_, place, index, usage) = claims.min_by_key(|(uses, ..)| *uses)?;
        self.turn = (place + 1) % places;
        let (_, waiter) = self.accounts[index].as_mut()?.queues[usage.index()].pop(|_| true)?;
        self.waiting -= 1;
        self.take(index, usage).map(|taken| (index, usage, taken, waiter))
    }

    pub(super) fn reap(&mut self, is_over: impl Fn(&T, Instant) -> bool) -> Vec<T> {
        let mut reaped = Vec::new();
        for idle in self.accounts.iter_mut().flatten().flat_map(|entry| &mut entry.idle) {
            for one in std::mem::take(idle) {
                if is_over(&one.connection, one.since) {
                    reaped.push(one.connection);
                } else {
                    idle.push_back(one);
                }
            }
        }
        self.idle -= reaped.len();
        reaped
    }

    pub(super) fn figures(&self, account: Option<usize>) -> BudgetFigures {
        let mut figures = BudgetFigures { calls: self.shares.calls, ..BudgetFigures::default() };
        let accounts = self.accounts.iter().enumerate().filter(|(index, _)| account.is_none_or(|only| only == *index));
        for entry in accounts.filter_map(|(_, entry)| entry.as_ref()) {
            for usage in Use::ALL {
                let UseFigures { in_use, queue, .. } = &mut figures.uses[usage.index()];
                *in_use += entry.in_use[usage.index()];
                *queue = queue.and(QueueFigures::of(&entry.queues[usage.index()]));
            }
            for (sum, idle) in figures.idle.iter_mut().zip(&entry.idle) {
                *sum += idle.len();
            }
        }
        for usage in Use::ALL {
            figures.uses[usage.index()].limit = self.shares.share(usage);
        }
        figures
    }
}
