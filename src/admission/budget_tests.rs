//! Budgets: never exceeded, fair between databases and callers, and no place is lost, whenever a waiter leaves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::{Account, Budget, BudgetLimits, CallerId, Grant, Shed, Use, shares::Shares};

const PATIENCE: Duration = Duration::from_secs(60);

/// Stands for a connection: counts those that exist.
#[derive(Debug)]
struct Socket(Arc<AtomicUsize>);

impl Socket {
    fn open(count: &Arc<AtomicUsize>) -> Socket {
        count.fetch_add(1, Ordering::Relaxed);
        Socket(Arc::clone(count))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn limits(connections: usize) -> BudgetLimits {
    BudgetLimits { connections, primary_read_share: 0.5, transaction_share: 0.75, max_queue: 100 }
}

fn caller(n: usize) -> CallerId {
    CallerId::Principal(n.to_string().into())
}

/// As a seat does it: what is given up is closed before another is opened.
fn connect(grant: &mut Grant<Socket>, count: &Arc<AtomicUsize>) {
    let socket = grant.take().or_else(|| grant.another());
    drop(grant.given_up());
    grant.keep(socket.unwrap_or_else(|| Socket::open(count)));
}

fn now(account: &Account<Socket>, usage: Use) -> Option<Grant<Socket>> {
    account.take(usage, &CallerId::Unknown, PATIENCE).now_or_never().and_then(Result::ok)
}

#[tokio::test]
async fn what_is_idle_is_given_up_for_another_database_and_the_longest_unused_first() {
    let count = Arc::default();
    // Six for calls: three for writes, three for reads on the primary.
    let budget = Budget::new(limits(12));
    let (a, b) = (budget.join(), budget.join());
    let mut held: Vec<_> = (0..2).filter_map(|_| now(&a, Use::PrimaryRead)).collect();
    held.extend((0..2).filter_map(|_| now(&a, Use::Write)));
    held.iter_mut().for_each(|grant| connect(grant, &count));
    assert!(now(&a, Use::Write).is_none() && now(&a, Use::PrimaryRead).is_none(), "one of each is the other's");
    drop(held);
    assert_eq!((count.load(Ordering::Relaxed), a.figures().idle), (4, [2, 2]), "they are kept");
    let mut held: Vec<_> = (0..2).filter_map(|_| now(&b, Use::Write)).collect();
    held.extend((0..2).filter_map(|_| now(&b, Use::PrimaryRead)));
    held.iter_mut().for_each(|grant| connect(grant, &count));
    assert_eq!((count.load(Ordering::Relaxed), held.len(), a.figures().idle), (6, 4, [0, 2]), "two made room");
    drop((held, a));
    assert_eq!(count.load(Ordering::Relaxed), 4, "an account that is closed keeps nothing");
    assert_eq!(budget.reap(|_, _| true).len(), 4);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn transactions_leave_writes_a_connection_and_reads_leave_one_whatever_the_role() {
    let budget = Budget::<Socket>::new(limits(13));
    let account = budget.join();
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
    let budget = Budget::<Socket>::new(BudgetLimits { max_queue: 4, ..limits(7) });
    let account = budget.join();
    let inside = now(&account, Use::Write).expect("it is free");
    let (a, b) = (caller(1), caller(2));
    let mut of_a: Vec<_> = (0..3).map(|_| Box::pin(account.take(Use::Write, &a, PATIENCE))).collect();
    of_a.iter_mut().for_each(|waiting| assert!(waiting.as_mut().now_or_never().is_none()));
    let mut of_b = Box::pin(account.take(Use::Write, &b, PATIENCE));
    assert!(of_b.as_mut().now_or_never().is_none());
    let full = account.take(Use::Write, &b, PATIENCE).await.expect_err("four wait");
    assert!(matches!(full, Shed::Full { waiting: 4, limit: 4, .. }), "{full:?}");
    assert!(account.figures().uses[Use::Write as usize].queue.oldest.is_some());
    drop(inside);
    drop(of_a.remove(0).await.expect("the first in line"));
    let inside = of_b.await.expect("then the other caller, though it came last");
    let age = Duration::from_millis(1);
    let aged = account.take(Use::Write, &a, age).await.expect_err("nobody leaves");
    assert_eq!(aged, Shed::Aged { place: Use::Write.place(), waited: age });
    assert_eq!(account.figures().uses[Use::Write as usize].queue.waiting, 2);
    drop(of_a);
    drop(inside);
    assert_eq!(account.figures().uses[Use::Write as usize].queue.waiting, 0);
}

#[derive(Debug, Clone)]
enum Step {
    Come { account: usize, usage: Use, caller: usize },
    GiveUpWaiting(prop::sample::Index),
    Return(prop::sample::Index),
    Break(prop::sample::Index),
    Reap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..3, 0usize..4, 0usize..3)
            .prop_map(|(account, usage, caller)| Step::Come { account, usage: Use::ALL[usage], caller }),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveUpWaiting),
        3 => any::<prop::sample::Index>().prop_map(Step::Return),
        1 => any::<prop::sample::Index>().prop_map(Step::Break),
        1 => Just(Step::Reap),
    ]
}

proptest! {
    /// Whoever comes, goes, breaks its connection or gives up waiting, polled or not: the budget and every share hold,
    /// nobody waits who may go, and a database waits for a use only while it has some of it.
    #[test]
    fn budgets_hold_and_no_place_is_lost(connections in 2usize..24, steps in prop::collection::vec((step(), any::<bool>()), 1..120)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().expect("a runtime");
        runtime.block_on(run(connections, steps))?;
    }
}

async fn run(connections: usize, steps: Vec<(Step, bool)>) -> Result<(), TestCaseError> {
    let count = Arc::default();
    let budget = Budget::new(limits(connections));
    let accounts: Vec<_> = (0..3).map(|_| budget.join()).collect();
    let callers: Vec<_> = (0..3).map(caller).collect();
    let shares = Shares::of(&limits(connections), 3);
    let mut waiting = Vec::new();
    let mut inside: Vec<Grant<Socket>> = Vec::new();
    for (step, polls) in steps {
        match step {
            Step::Come { account, usage, caller } => {
                let mut coming = Box::pin(accounts[account].take(usage, &callers[caller], PATIENCE));
                match coming.as_mut().now_or_never() {
                    Some(grant) => inside.push(grant.expect("the queue is long")),
                    None => waiting.push((account, usage, coming)),
                }
            }
            Step::GiveUpWaiting(which) if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
            Step::Return(which) if !inside.is_empty() => drop(inside.swap_remove(which.index(inside.len()))),
            Step::Break(which) if !inside.is_empty() => {
                let mut grant = inside.swap_remove(which.index(inside.len()));
                drop(grant.take());
            }
            Step::Reap => drop(budget.reap(|_, _| true)),
            _ => {}
        }
        // Some of those who were let in have not noticed yet, and may leave before they do.
        if polls {
            let mut still = Vec::new();
            for (account, usage, mut coming) in waiting.drain(..) {
                match coming.as_mut().now_or_never() {
                    Some(grant) => inside.push(grant.expect("the queue is long")),
                    None => still.push((account, usage, coming)),
                }
            }
            waiting = still;
        }
        inside.iter_mut().for_each(|grant| connect(grant, &count));
        check(&budget, &accounts, shares, count.load(Ordering::Relaxed))?;
    }
    drop((waiting, inside));
    let figures = budget.figures();
    prop_assert!(figures.uses.iter().all(|of| of.in_use == 0 && of.queue.waiting == 0));
    drop(accounts);
    prop_assert_eq!(count.load(Ordering::Relaxed), 0);
    Ok(())
}

fn check(
    budget: &Budget<Socket>,
    accounts: &[Account<Socket>],
    shares: Shares,
    open: usize,
) -> Result<(), TestCaseError> {
    let figures = budget.figures();
    let in_use = |usage: Use| figures.uses[usage as usize].in_use;
    prop_assert!(open <= shares.calls, "{open} are open");
    prop_assert!(in_use(Use::Write) + in_use(Use::Transaction) <= shares.writes);
    prop_assert!(in_use(Use::Transaction) <= shares.transactions);
    prop_assert!(in_use(Use::PrimaryRead) <= shares.primary_reads);
    prop_assert!(in_use(Use::PrimaryRead) + in_use(Use::ReplicaRead) <= shares.reads);
    for (index, account) in accounts.iter().enumerate() {
        let own = account.figures();
        for usage in Use::ALL.into_iter().filter(|usage| own.uses[*usage as usize].queue.waiting > 0) {
            prop_assert!(!budget.may_go(index, usage), "one waits for {usage:?} who may go");
            // On a primary, with connections enough, each database has one of its own.
            let primary = in_use(Use::ReplicaRead) == 0 && shares.writes >= 3 && shares.primary_reads >= 3;
            if primary && matches!(usage, Use::Write | Use::PrimaryRead) {
                let has: usize = usage.family().iter().map(|usage| own.uses[*usage as usize].in_use).sum();
                prop_assert!(has > 0, "account {index} has no {usage:?}");
            }
        }
    }
    Ok(())
}
