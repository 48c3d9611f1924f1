//! A budget's books, without locks, clocks and waiting: what each account has open and in use, and who is next.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use super::{
    BudgetFigures, BudgetLimits, CallerId, QueueFigures, Use,
    budget::UseFigures,
    fair::FairQueue,
    shares::{READS, Shares, USES},
};

/// What accounts keep their connections in (`S`) and those who wait for one (`W`).
#[derive(Debug)]
pub(super) struct Ledger<S, W> {
    limits: BudgetLimits,
    shares: Shares,
    accounts: Vec<Option<Entry<S, W>>>,
    /// Accounts that are not closed.
    members: usize,
    /// Granted, over all accounts, by use.
    in_use: [usize; USES],
    /// Connections that exist, or are being made.
    open: usize,
    /// Waiting, over all accounts, by use.
    waiting: [usize; USES],
    /// Where the search for the next begins, so that those with equal claims take turns.
    turn: usize,
}

#[derive(Debug)]
struct Entry<S, W> {
    store: Weak<S>,
    in_use: [usize; USES],
    /// Read-only ones, then others.
    open: [usize; 2],
    /// When the last of them came back.
    used_at: [Option<Instant>; 2],
    queues: [FairQueue<W>; USES],
    is_closed: bool,
    /// Nobody knows its index any more.
    is_left: bool,
}

impl<S, W> Entry<S, W> {
    fn new(store: Weak<S>) -> Entry<S, W> {
        Entry {
            store,
            in_use: [0; USES],
            open: [0; 2],
            used_at: [None; 2],
            queues: Default::default(),
            is_closed: false,
            is_left: false,
        }
    }

    fn uses(&self, family: &[Use]) -> usize {
        sum(&self.in_use, family)
    }

    /// Connections beyond those that somebody may use: idle ones.
    fn spare(&self, writes: bool) -> usize {
        let granted = Use::ALL.into_iter().filter(|usage| usage.writes() == writes);
        let granted: usize = granted.map(|usage| self.in_use[usage.index()]).sum();
        self.open[usize::from(writes)].saturating_sub(granted)
    }
}

fn sum(in_use: &[usize; USES], family: &[Use]) -> usize {
    family.iter().map(|usage| in_use[usage.index()]).sum()
}

impl<S, W> Ledger<S, W> {
    pub(super) fn new(limits: BudgetLimits) -> Ledger<S, W> {
        let shares = Shares::of(&limits, 0);
        Ledger {
            limits,
            shares,
            accounts: Vec::new(),
            members: 0,
            in_use: [0; USES],
            open: 0,
            waiting: [0; USES],
            turn: 0,
        }
    }

    pub(super) fn join(&mut self, store: Weak<S>) -> usize {
        let free = self.accounts.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.accounts.push(None);
            self.accounts.len() - 1
        });
        self.accounts[index] = Some(Entry::new(store));
        self.members += 1;
        self.shares = Shares::of(&self.limits, self.members);
        index
    }

    /// Closes an account; what it has in use comes back later. Those who wait for it are handed over.
    pub(super) fn close(&mut self, index: usize) -> Vec<W> {
        let Some(entry) = self.accounts[index].as_mut().filter(|entry| !entry.is_closed) else { return Vec::new() };
        entry.is_closed = true;
        let mut waiting = Vec::new();
        for (queue, count) in entry.queues.iter_mut().zip(&mut self.waiting) {
            *count -= queue.len();
            waiting.extend(std::iter::from_fn(|| queue.pop(|_| true)).map(|(_, waiter)| waiter));
        }
        self.members -= 1;
        self.shares = Shares::of(&self.limits, self.members);
        waiting
    }

    /// The end of an account that is closed: its index may be another's.
    pub(super) fn leave_account(&mut self, index: usize) {
        if let Some(entry) = &mut self.accounts[index] {
            entry.is_left = true;
        }
        self.forget_if_done(index);
    }

    /// Goes by other limits from now on. What is in use beyond them stays until it comes back.
    pub(super) fn set_limits(&mut self, limits: BudgetLimits) {
        self.limits = limits;
        self.shares = Shares::of(&self.limits, self.members);
    }

    /// The most that a use may have.
    pub(super) fn share(&self, usage: Use) -> usize {
        self.shares.share(usage)
    }

    pub(super) fn limits(&self) -> &BudgetLimits {
        &self.limits
    }

    /// Accounts that are not closed.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Whether the account was closed.
    pub(super) fn is_closed(&self, index: usize) -> bool {
        self.accounts[index].as_ref().is_none_or(|entry| entry.is_closed)
    }

    fn forget_if_done(&mut self, index: usize) {
        let is_done = |entry: &Entry<S, W>| entry.is_left && entry.in_use == [0; USES] && entry.open == [0; 2];
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
                Use::Lane => {
                    self.in_use[Use::Lane.index()] < shares.lanes && self.has_room(index, Use::Lane, shares.reads)
                }
            }
    }

    fn has_room(&self, index: usize, usage: Use, share: usize) -> bool {
        let family = usage.family();
        let free = share.saturating_sub(sum(&self.in_use, family));
        // A lane leaves its own account one, too.
        let is_for_itself = |other: usize| other == index && usage != Use::Lane;
        let others = self.members.saturating_sub(usize::from(is_for_itself(index)));
        if free == 0 || free > others || share <= others {
            // None; or enough whatever the others lack; or too little to keep any for them.
            return free > 0;
        }
        // A lane is no connection of one's own.
        let of_calls = || family.iter().filter(|usage| **usage != Use::Lane);
        let lacks = |entry: &Entry<S, W>| !entry.is_closed && of_calls().all(|usage| entry.in_use[usage.index()] == 0);
        let entries = self.accounts.iter().enumerate().filter(|(other, _)| !is_for_itself(*other));
        free > entries.filter(|(_, entry)| entry.as_ref().is_some_and(lacks)).count()
    }

    /// Grants one, if the account may have it; who is in line already goes first, and may not go either.
    pub(super) fn take(&mut self, index: usize, usage: Use) -> bool {
        if !self.admits(index, usage) {
            return false;
        }
        let Some(entry) = &mut self.accounts[index] else { return false };
        entry.in_use[usage.index()] += 1;
        self.in_use[usage.index()] += 1;
        true
    }

    /// The end of a use. True if the account is to close an idle connection: it is closed itself, or there are too many.
    pub(super) fn put_back(&mut self, index: usize, usage: Use, now: Instant) -> bool {
        self.in_use[usage.index()] -= 1;
        let are_too_many = self.open > self.shares.calls;
        let Some(entry) = &mut self.accounts[index] else { return false };
        entry.in_use[usage.index()] -= 1;
        entry.used_at[usize::from(usage.writes())] = Some(now);
        let is_surplus = entry.spare(usage.writes()) > 0 && (are_too_many || entry.is_closed);
        self.forget_if_done(index);
        is_surplus
    }

    /// Counts a connection as open, if there may be one more.
    pub(super) fn open(&mut self, index: usize, writes: bool) -> bool {
        let Some(entry) = self.accounts[index].as_mut().filter(|_| self.open < self.shares.calls) else {
            return false;
        };
        entry.open[usize::from(writes)] += 1;
        self.open += 1;
        true
    }

    /// The end of a connection.
    pub(super) fn closed(&mut self, index: usize, writes: bool) {
        self.open -= 1;
        if let Some(entry) = &mut self.accounts[index] {
            entry.open[usize::from(writes)] -= 1;
        }
        self.forget_if_done(index);
    }

    #[cfg(test)]
    pub(super) fn are_open(&self) -> usize {
        self.open
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.open > self.shares.calls
    }

    /// Who has idle ones, and of which kind (those for writes?); those that none was used of for the longest time first.
    pub(super) fn spares(&self) -> Vec<(Arc<S>, bool)> {
        let entries = self.accounts.iter().flatten();
        let kinds = entries.flat_map(|entry| [(entry, false), (entry, true)]);
        let mut spare: Vec<_> = kinds.filter(|(entry, writes)| entry.spare(*writes) > 0).collect();
        spare.sort_by_key(|(entry, writes)| entry.used_at[usize::from(*writes)]);
        spare.into_iter().filter_map(|(entry, writes)| Some((entry.store.upgrade()?, writes))).collect()
    }

    pub(super) fn queue(&self, index: usize, usage: Use) -> Option<&FairQueue<W>> {
        self.accounts[index].as_ref().map(|entry| &entry.queues[usage.index()])
    }

    pub(super) fn wait(&mut self, index: usize, usage: Use, caller: &CallerId, now: Instant, waiter: W) -> u64 {
        let Some(entry) = &mut self.accounts[index] else { return 0 };
        self.waiting[usage.index()] += 1;
        entry.queues[usage.index()].push(caller, now, waiter)
    }

    pub(super) fn leave(&mut self, index: usize, usage: Use, caller: &CallerId, ticket: u64) -> Option<W> {
        let left = self.accounts[index].as_mut()?.queues[usage.index()].remove(caller, ticket)?;
        self.waiting[usage.index()] -= 1;
        Some(left)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.iter().any(|waiting| *waiting > 0)
    }

    /// Whether anybody but a lane waits.
    pub(super) fn is_awaited_by_calls(&self) -> bool {
        Use::ALL.into_iter().any(|usage| usage != Use::Lane && self.waiting[usage.index()] > 0)
    }

    /// The next that waits and may go: of the account that has the least of what it waits for; those with equal claims
    /// take turns.
    pub(super) fn next(&mut self) -> Option<(usize, Use, W)> {
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
        self.waiting[usage.index()] -= 1;
        self.take(index, usage).then_some((index, usage, waiter))
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
            for (sum, writes) in figures.idle.iter_mut().zip([false, true]) {
                *sum += entry.spare(writes);
            }
        }
        for usage in Use::ALL {
            figures.uses[usage.index()].limit = self.shares.share(usage);
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// For two databases: three for reads, one of them for lanes.
    fn ledger() -> (Ledger<(), u8>, usize, usize) {
        let limits = BudgetLimits {
            connections: BudgetLimits::connections_min(2),
            primary_read_share: 0.5,
            transaction_share: 0.75,
            max_queue: 9,
            max_queue_age: Duration::from_secs(60),
        };
        let mut ledger = Ledger::new(limits);
        let (a, b) = (ledger.join(Weak::new()), ledger.join(Weak::new()));
        assert_eq!((ledger.share(Use::ReplicaRead), ledger.share(Use::Lane)), (3, 1));
        (ledger, a, b)
    }

    #[test]
    fn a_lane_costs_no_account_the_connection_that_is_left_for_it() {
        let (mut ledger, a, b) = ledger();
        assert!(ledger.take(a, Use::Lane) && ledger.take(b, Use::ReplicaRead));
        assert!(!ledger.take(b, Use::ReplicaRead), "a lane is not what its own account needs beside it");
        assert!(ledger.take(a, Use::ReplicaRead));
        let (mut ledger, a, b) = self::ledger();
        assert!(ledger.take(b, Use::ReplicaRead) && ledger.take(b, Use::ReplicaRead));
        assert!(!ledger.take(a, Use::Lane), "nor does it take that");
        assert!(ledger.take(a, Use::ReplicaRead));
    }

    #[test]
    fn a_lane_that_waits_for_its_connection_is_no_call_that_waits() {
        let (mut ledger, a, b) = ledger();
        let now = crate::clock::now();
        let ticket = ledger.wait(a, Use::Lane, &CallerId::Unknown, now, 1);
        assert_eq!((ledger.is_awaited(), ledger.is_awaited_by_calls()), (true, false));
        ledger.wait(b, Use::ReplicaRead, &CallerId::Unknown, now, 2);
        assert!(ledger.is_awaited_by_calls());
        assert_eq!(ledger.close(b), [2]);
        assert!(ledger.is_awaited() && !ledger.is_awaited_by_calls());
        assert_eq!(ledger.leave(a, Use::Lane, &CallerId::Unknown, ticket), Some(1));
        assert!(!ledger.is_awaited());
    }
}
