//! Budgets: never exceeded, fair between databases and callers, and no place is lost, whenever a waiter leaves.

use std::{
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::{Account, Budget, BudgetLimits, CallerId, Grant, Shed, Store, Ticket, Use, shares::Shares};

const PATIENCE: Duration = Duration::from_secs(60);

/// Stands for a pool; the tickets in it for its idle connections, by whether they can write. It may be told to be slow in
/// closing them, as a pool that is just about it anyway.
#[derive(Debug, Default)]
struct Shelf {
    idle: Mutex<[Vec<Ticket<Shelf>>; 2]>,
    closing: Mutex<Option<Vec<Ticket<Shelf>>>>,
}

impl Shelf {
    fn pop(&self, writes: bool) -> Option<Ticket<Shelf>> {
        self.idle.lock().expect("no test panics here")[usize::from(writes)].pop()
    }

    fn idle(&self) -> [usize; 2] {
        let idle = self.idle.lock().expect("no test panics here");
        [idle[0].len(), idle[1].len()]
    }
}

impl Store for Shelf {
    fn give_up(&self, writes: bool) -> bool {
        let given_up = self.pop(writes);
        let mut closing = self.closing.lock().expect("no test panics here");
        match (given_up, closing.as_mut()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(ticket), Some(closing)) => {
                closing.push(ticket);
                false
            }
        }
    }
}

/// As a seat: the connection goes back before the right to use it.
struct Seat {
    ticket: Option<Ticket<Shelf>>,
    grant: Grant<Shelf>,
}

impl Seat {
    fn of(grant: Grant<Shelf>) -> Seat {
        Seat::at_once(grant).expect("what is idle is given up, so nobody waits")
    }

    fn at_once(grant: Grant<Shelf>) -> Option<Seat> {
        let idle = grant.store().pop(grant.usage().writes());
        let ticket = idle.or_else(|| grant.ticket().now_or_never())?;
        Some(Seat { ticket: Some(ticket), grant })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut idle = self.grant.store().idle.lock().expect("no test panics here");
        idle[usize::from(self.grant.usage().writes())].push(ticket);
    }
}

fn limits(connections: usize) -> BudgetLimits {
    BudgetLimits {
        connections,
        primary_read_share: 0.5,
        transaction_share: 0.75,
        max_queue: 100,
        max_queue_age: PATIENCE,
    }
}

fn caller(n: usize) -> CallerId {
    CallerId::Principal(n.to_string().into())
}

fn now(account: &Account<Shelf>, usage: Use) -> Option<Grant<Shelf>> {
    account.take(usage, &CallerId::Unknown).now_or_never().and_then(Result::ok).flatten()
}

fn seats(account: &Account<Shelf>, usage: Use, count: usize) -> Vec<Seat> {
    (0..count).filter_map(|_| now(account, usage)).map(Seat::of).collect()
}

fn join(budget: &Arc<Budget<Shelf>>) -> Account<Shelf> {
    budget.join(&Arc::default())
}

#[tokio::test]
async fn what_is_idle_is_given_up_for_another_database_and_the_longest_unused_first() {
    // Six for calls: three for writes, three for reads on the primary.
    let budget = Budget::new(limits(12));
    let (a, b) = (join(&budget), join(&budget));
    let (reads, writes) = (seats(&a, Use::PrimaryRead, 2), seats(&a, Use::Write, 2));
    assert!(now(&a, Use::Write).is_none() && now(&a, Use::PrimaryRead).is_none(), "one of each is the other's");
    drop(reads);
    drop(writes);
    assert_eq!((a.store().idle(), a.figures().idle, budget.open()), ([2, 2], [2, 2], 4), "they are kept");
    let held = (seats(&b, Use::Write, 2), seats(&b, Use::PrimaryRead, 2));
    assert_eq!((a.store().idle(), budget.open()), ([0, 2], 6), "two made room");
    drop((held, a));
    assert_eq!(budget.open(), 4, "an account that is closed keeps nothing");
    let c = join(&budget);
    let held = seats(&c, Use::Write, 1);
    drop(c);
    assert_eq!(budget.open(), 5);
    drop(held);
    assert_eq!(budget.open(), 4, "also when something comes back to it");
    let others: Vec<_> = (0..3).map(|_| join(&budget)).collect();
    assert_eq!((budget.open(), budget.figures().calls), (4, 4), "each has a listener");
    drop(others);
}

#[tokio::test]
async fn whoever_needs_a_connection_waits_while_others_are_being_closed_and_no_longer() {
    // Two for calls.
    let budget = Budget::new(limits(8));
    let (a, b) = (join(&budget), join(&budget));
    drop((seats(&a, Use::Write, 1), seats(&a, Use::PrimaryRead, 1)));
    *a.store().closing.lock().expect("nobody panicked") = Some(Vec::new());
    let grant = now(&b, Use::Write).expect("nothing is in use");
    let mut ticket = Box::pin(grant.ticket());
    assert!(ticket.as_mut().now_or_never().is_none(), "both are open until they are closed");
    let mut closing = a.store().closing.lock().expect("nobody panicked").take().expect("they are being closed");
    assert_eq!(closing.len(), 2);
    // Whoever leaves takes nothing along.
    drop(ticket);
    let mut ticket = Box::pin(grant.ticket());
    assert!(ticket.as_mut().now_or_never().is_none());
    drop(closing.pop());
    let ticket = ticket.as_mut().now_or_never().expect("one is closed");
    assert_eq!(budget.open(), 2);
    drop((ticket, closing));
    assert_eq!(budget.open(), 0);
}

#[tokio::test]
async fn transactions_leave_writes_a_connection_and_reads_leave_one_whatever_the_role() {
    let budget = Budget::<Shelf>::new(limits(13));
    let account = join(&budget);
    let take = |usage| std::iter::from_fn(|| now(&account, usage)).collect::<Vec<_>>();
    let transactions = take(Use::Transaction);
    assert_eq!((transactions.len(), take(Use::Write).len()), (3, 1));
    drop(transactions);
    let reads = take(Use::ReplicaRead);
    assert_eq!((reads.len(), take(Use::Write).len()), (7, 1), "a replica may be promoted while it is full of reads");
    drop(reads);
    assert_eq!((take(Use::PrimaryRead).len(), take(Use::Write).len()), (4, 4));
}

#[tokio::test]
async fn the_queue_is_bounded_in_length_and_age_and_callers_take_turns() {
    let budget = Budget::<Shelf>::new(BudgetLimits { max_queue: 4, ..limits(7) });
    let account = join(&budget);
    let inside = now(&account, Use::Write).expect("it is free");
    let (a, b) = (caller(1), caller(2));
    let mut of_a: Vec<_> = (0..3).map(|_| Box::pin(account.take(Use::Write, &a))).collect();
    of_a.iter_mut().for_each(|waiting| assert!(waiting.as_mut().now_or_never().is_none()));
    let mut of_b = Box::pin(account.take(Use::Write, &b));
    assert!(of_b.as_mut().now_or_never().is_none());
    let full = account.take(Use::Write, &b).await.expect_err("four wait");
    assert!(matches!(full, Shed::Full { waiting: 4, limit: 4, .. }), "{full:?}");
    assert!(account.figures().uses[Use::Write as usize].queue.oldest.is_some());
    drop(inside);
    drop(of_a.remove(0).await.expect("the first in line"));
    let inside = of_b.await.expect("then the other caller, though it came last");
    let age = Duration::from_millis(1);
    budget.set_limits(BudgetLimits { max_queue: 4, max_queue_age: age, ..limits(7) });
    let aged = account.take(Use::Write, &a).await.expect_err("nobody leaves");
    assert_eq!(aged, Shed::Aged { place: Use::Write.place(), waited: age });
    assert_eq!(account.figures().uses[Use::Write as usize].queue.waiting, 2);
    drop(of_a);
    drop(inside);
    assert_eq!(account.figures().uses[Use::Write as usize].queue.waiting, 0);
}

#[tokio::test]
async fn limits_change_under_those_who_wait_and_a_closed_account_sends_them_away() {
    // Two for calls, then six, then two again.
    let budget = Budget::new(limits(7));
    let a = join(&budget);
    let mut held = seats(&a, Use::Write, 2);
    assert_eq!(held.len(), 1);
    let mut next = Box::pin(a.take(Use::Write, &CallerId::Unknown));
    assert!(next.as_mut().now_or_never().is_none());
    budget.set_limits(limits(11));
    let grant = next.now_or_never().expect("there is room now").expect("it waits no longer").expect("it is open");
    held.push(Seat::of(grant));
    drop(seats(&a, Use::PrimaryRead, 3));
    assert_eq!((budget.open(), budget.figures().calls), (5, 6));
    budget.set_limits(limits(7));
    assert_eq!((budget.open(), a.store().idle()), (2, [0, 0]), "what is idle is closed");
    assert!(now(&a, Use::Write).is_none());
    drop(held);
    assert_eq!((budget.open(), a.store().idle()), (2, [0, 2]));

    // What replaces an account has its room at once; what comes back to the old one is closed.
    let held = seats(&a, Use::Write, 1);
    let mut next = Box::pin(a.take(Use::Write, &CallerId::Unknown));
    assert!(next.as_mut().now_or_never().is_none());
    let b = join(&budget);
    a.close();
    assert!(next.now_or_never().expect("it waits no longer").expect("it is not shed").is_none(), "it is told");
    assert!(a.take(Use::Write, &CallerId::Unknown).await.expect("it is not shed").is_none());
    assert_eq!((budget.open(), budget.figures().calls), (1, 2), "one in use, one database");
    drop(held);
    assert_eq!(budget.open(), 0);
    // Its place in the books is nobody else's before it is dropped.
    let c = join(&budget);
    drop((seats(&b, Use::Write, 1), a));
    assert!(budget.is_joined() && c.may_go(Use::Write));
    drop((b, c));
    assert!(!budget.is_joined() && budget.open() == 0);
}

#[derive(Debug, Clone)]
enum Step {
    Come {
        account: usize,
        usage: Use,
        caller: usize,
    },
    GiveUpWaiting(prop::sample::Index),
    Return(prop::sample::Index),
    Break(prop::sample::Index),
    Reap {
        account: usize,
        writes: bool,
    },
    Limit {
        connections: usize,
    },
    /// Closes an account, for another one to take its part.
    Replace {
        account: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..3, 0usize..Use::ALL.len(), 0usize..3)
            .prop_map(|(account, usage, caller)| Step::Come { account, usage: Use::ALL[usage], caller }),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveUpWaiting),
        3 => any::<prop::sample::Index>().prop_map(Step::Return),
        1 => any::<prop::sample::Index>().prop_map(Step::Break),
        1 => (0usize..3, any::<bool>()).prop_map(|(account, writes)| Step::Reap { account, writes }),
    ]
}

fn change() -> impl Strategy<Value = Step> {
    prop_oneof![
        (2usize..24).prop_map(|connections| Step::Limit { connections }),
        (0usize..3).prop_map(|account| Step::Replace { account }),
    ]
}

fn on_a_runtime(run: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().expect("a runtime").block_on(run)
}

proptest! {
    /// Whoever comes, goes, breaks its connection or gives up waiting, polled or not: the budget and every share hold,
    /// nobody waits who may go, and a database waits for a use only while it has some of it.
    #[test]
    fn budgets_hold_and_no_place_is_lost(connections in 2usize..24, steps in prop::collection::vec((step(), any::<bool>()), 1..120)) {
        on_a_runtime(run(connections, steps))?;
    }

    /// The same while limits change and accounts are replaced: what was granted before stays, and nothing beside it.
    #[test]
    fn budgets_hold_and_no_place_is_lost_while_they_change(
        connections in 2usize..24,
        steps in prop::collection::vec((prop_oneof![4 => step(), 1 => change()], any::<bool>()), 1..120),
    ) {
        on_a_runtime(run(connections, steps))?;
    }
}

async fn run(connections: usize, steps: Vec<(Step, bool)>) -> Result<(), TestCaseError> {
    let budget = Budget::new(limits(connections));
    let join = || Rc::new(join(&budget));
    let mut accounts: Vec<_> = (0..3).map(|_| join()).collect();
    let mut shares = Some(Shares::of(&limits(connections), 3));
    let mut closed = Vec::new();
    let mut waiting = Vec::new();
    let mut inside: Vec<Seat> = Vec::new();
    for (step, polls) in steps {
        let mut came = Vec::new();
        match step {
            Step::Come { account, usage, caller: who } => {
                let account = Rc::clone(&accounts[account]);
                let mut coming = Box::pin(async move { account.take(usage, &caller(who)).await });
                match coming.as_mut().now_or_never() {
                    Some(grant) => came.push(grant),
                    None => waiting.push(coming),
                }
            }
            Step::GiveUpWaiting(which) if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
            Step::Return(which) if !inside.is_empty() => drop(inside.swap_remove(which.index(inside.len()))),
            Step::Break(which) if !inside.is_empty() => {
                let mut seat = inside.swap_remove(which.index(inside.len()));
                drop(seat.ticket.take());
            }
            Step::Reap { account, writes } => drop(accounts[account].store().pop(writes)),
            Step::Limit { connections } => {
                shares = None;
                budget.set_limits(limits(connections));
            }
            Step::Replace { account } => {
                shares = None;
                let old = std::mem::replace(&mut accounts[account], join());
                // What comes back may be kept there for who was let in before.
                closed.push(Arc::clone(old.store()));
                old.close();
            }
            _ => {}
        }
        // Some of those who were let in have not noticed yet, and may leave before they do.
        if polls {
            let mut still = Vec::new();
            for mut coming in waiting.drain(..) {
                match coming.as_mut().now_or_never() {
                    Some(grant) => came.push(grant),
                    None => still.push(coming),
                }
            }
            waiting = still;
        }
        // Those of an account that was replaced are told so.
        for grant in came.into_iter().filter_map(|came| came.expect("the queue is long")) {
            let seat = Seat::at_once(grant);
            prop_assert!(seat.is_some() || shares.is_none(), "what is idle is given up, so nobody waits");
            inside.extend(seat);
        }
        check(&budget, &accounts, shares)?;
        let open = budget.open();
        // Who was let in and has not noticed yet may take one that is idle: it is kept for them.
        let granted: usize = budget.figures().uses.iter().map(|of| of.in_use).sum();
        prop_assert!(open <= budget.figures().calls.max(granted), "{open} are open");
        let stores = accounts.iter().map(|account| account.store()).chain(&closed);
        let idle: usize = stores.flat_map(|store| store.idle()).sum();
        prop_assert_eq!(open, inside.len() + idle, "each connection is counted once");
    }
    drop((waiting, inside));
    let figures = budget.figures();
    prop_assert!(figures.uses.iter().all(|of| of.in_use == 0 && of.queue.waiting == 0));
    prop_assert!(budget.open() <= figures.calls, "{} are left open", budget.open());
    drop(accounts);
    prop_assert_eq!(budget.open(), 0);
    Ok(())
}

/// Without `shares` they were others before, and what was granted by those may still be in use.
fn check(budget: &Budget<Shelf>, accounts: &[Rc<Account<Shelf>>], shares: Option<Shares>) -> Result<(), TestCaseError> {
    let figures = budget.figures();
    let in_use = |usage: Use| figures.uses[usage as usize].in_use;
    if let Some(shares) = shares {
        prop_assert!(in_use(Use::Write) + in_use(Use::Transaction) <= shares.writes);
        prop_assert!(in_use(Use::Transaction) <= shares.transactions);
        prop_assert!(in_use(Use::PrimaryRead) <= shares.primary_reads);
        prop_assert!(in_use(Use::Lane) <= shares.lanes);
        prop_assert!(in_use(Use::PrimaryRead) + in_use(Use::ReplicaRead) + in_use(Use::Lane) <= shares.reads);
    }
    for (index, account) in accounts.iter().enumerate() {
        let own = account.figures();
        for usage in Use::ALL.into_iter().filter(|usage| own.uses[*usage as usize].queue.waiting > 0) {
            prop_assert!(!account.may_go(usage), "one waits for {usage:?} who may go");
            // On a primary, with connections enough, each database has one of its own.
            let enough = shares.is_some_and(|shares| shares.writes >= 3 && shares.primary_reads >= 3);
            let primary = in_use(Use::ReplicaRead) + in_use(Use::Lane) == 0 && enough;
            if primary && matches!(usage, Use::Write | Use::PrimaryRead) {
                let has: usize = usage.family().iter().map(|usage| own.uses[*usage as usize].in_use).sum();
                prop_assert!(has > 0, "account {index} has no {usage:?}");
            }
        }
    }
    Ok(())
}
