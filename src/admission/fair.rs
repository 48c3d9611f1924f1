//! A queue that is fair between callers: they take turns, and each one's own go in the order in which they came.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

/// Whom a call is counted for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum CallerId {
    /// Nobody in particular: the broker itself.
    #[default]
    Unknown,
    /// Whoever is behind this address.
    Address(IpAddr),
    /// An authenticated caller.
    Principal(Arc<str>),
}

/// Items in line, by caller.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    lines: HashMap<CallerId, VecDeque<Waiting<T>>>,
    /// Every caller with somebody in line, once; the next to have its turn is in front.
    turns: VecDeque<CallerId>,
    len: usize,
    last_ticket: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    ticket: u64,
    since: Instant,
    item: T,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { lines: HashMap::new(), turns: VecDeque::new(), len: 0, last_ticket: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Goes to the end of the caller's own line; the ticket is for [`FairQueue::remove`].
    pub(super) fn push(&mut self, caller: &CallerId, since: Instant, item: T) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let line = self.lines.entry(caller.clone()).or_default();
        if line.is_empty() {
            self.turns.push_back(caller.clone());
        }
        line.push_back(Waiting { ticket, since, item });
        self.len += 1;
        ticket
    }

    /// The first in the line of the next caller that `may` go; that caller's next turn is after all others'.
    pub(super) fn pop(&mut self, may: impl Fn(&CallerId) -> bool) -> Option<(CallerId, T)> {
        let at = self.turns.iter().position(may)?;
        let caller = self.turns.remove(at)?;
        let line = self.lines.get_mut(&caller)?;
        let first = line.pop_front()?;
        self.len -= 1;
        if line.is_empty() {
            self.lines.remove(&caller);
        } else {
            self.turns.push_back(caller.clone());
        }
        Some((caller, first.item))
    }

    /// Leaves the line; None: it was taken out before.
    pub(super) fn remove(&mut self, caller: &CallerId, ticket: u64) -> Option<T> {
        let line = self.lines.get_mut(caller)?;
        let at = line.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()?;
        let left = line.remove(at)?;
        self.len -= 1;
        if line.is_empty() {
            self.lines.remove(caller);
            self.turns.retain(|other| other != caller);
        }
        Some(left.item)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Since when the one that waits longest does.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lines.values().filter_map(|line| line.front()).map(|waiting| waiting.since).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn caller(n: u8) -> CallerId {
        CallerId::Principal(n.to_string().into())
    }

    #[test]
    fn one_caller_of_many_calls_does_not_keep_another_waiting() {
        let (mut queue, now) = (FairQueue::default(), crate::clock::now());
        for n in 0..1000 {
            queue.push(&caller(1), now, (1, n));
        }
        queue.push(&caller(2), now, (2, 0));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(|_| true)).map(|(_, item)| item).take(3).collect();
        assert_eq!(order, [(1, 0), (2, 0), (1, 1)]);
        // Who may not go keeps its turn.
        queue.push(&caller(3), now, (3, 0));
        assert_eq!(queue.pop(|who| *who == caller(3)).map(|(_, item)| item), Some((3, 0)));
        assert_eq!(queue.pop(|_| true).map(|(_, item)| item), Some((1, 2)));
    }

    proptest! {
        /// However they come, go and leave: nobody is lost or served twice, and each caller's own are in order. Those in line
        /// then take turns: between two of one caller everybody else in line has had one.
        #[test]
        fn nobody_is_lost_and_turns_go_round(steps in prop::collection::vec((0u8..4, 0u8..4), 1..200)) {
            let (mut queue, now) = (FairQueue::default(), crate::clock::now());
            let mut inside: Vec<(u8, u64)> = Vec::new();
            for (n, (who, action)) in steps.into_iter().enumerate() {
                let first_of = |who| inside.iter().position(|(other, _)| *other == who);
                match (action, first_of(who)) {
                    (0 | 1, _) => inside.push((who, queue.push(&caller(who), now, n))),
                    (2, Some(at)) => {
                        let (_, ticket) = inside.remove(at);
                        prop_assert!(queue.remove(&caller(who), ticket).is_some());
                        prop_assert!(queue.remove(&caller(who), ticket).is_none());
                    }
                    (3, own) => {
                        prop_assert_eq!(queue.pop(|other| *other == caller(who)).is_some(), own.is_some());
                        own.map(|at| inside.remove(at));
                    }
                    _ => {}
                }
                prop_assert_eq!(queue.len(), inside.len());
                prop_assert_eq!(queue.oldest().is_some(), !inside.is_empty());
            }
            let order: Vec<_> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
            prop_assert_eq!(order.len(), inside.len());
            for (at, (who, item)) in order.iter().enumerate() {
                let Some(next) = order[at + 1..].iter().position(|(other, _)| other == who) else { continue };
                prop_assert!(order[at + 1 + next].1 > *item, "each caller's own are in order");
                let between = &order[at + 1..at + 1 + next];
                for (later, _) in &order[at + 1 + next..] {
                    let turns = between.iter().filter(|(other, _)| other == later).count();
                    prop_assert_eq!(turns, usize::from(later != who), "everybody else has had one turn");
                }
            }
            prop_assert!(queue.lines.is_empty() && queue.turns.is_empty(), "nothing is left of them");
        }
    }
}
