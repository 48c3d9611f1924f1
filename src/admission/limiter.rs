//! How many calls run at a time: of one database, and of one caller. Those beyond wait in a fair queue.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use super::{CallerId, QueueFigures, Shed, fair::FairQueue};
use crate::clock;

const TURN: &str = "their turn to run (limits.database_concurrency, limits.caller_concurrency)";

/// Bounds on the calls that run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Of the database; None: any number.
    pub database: Option<usize>,
    /// Of one caller on the database; None: any number.
    pub caller: Option<usize>,
    /// Callers that may wait.
    pub max_queue: usize,
    /// How long one may wait.
    pub max_queue_age: Duration,
}

impl CallLimits {
    fn are_none(&self) -> bool {
        self.database.is_none() && self.caller.is_none()
    }
}

/// Counts the calls that run, and holds back what is beyond the limits. Without limits it costs nothing, and counts nothing.
#[derive(Debug)]
pub struct Limiter {
    /// What is waited for, in words.
    place: &'static str,
    is_unlimited: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: CallLimits,
    running: usize,
    by_caller: HashMap<CallerId, usize>,
    queue: FairQueue<oneshot::Sender<CallPermit>>,
}

/// A call's place among those that run, for as long as it lives.
#[derive(Debug)]
pub struct CallPermit(Option<(Arc<Limiter>, CallerId)>);

impl Limiter {
    /// A limiter for one database.
    pub fn new(limits: CallLimits) -> Arc<Limiter> {
        Limiter::of(TURN, limits)
    }

    /// A limiter for something else that callers wait for, in words.
    pub fn of(place: &'static str, limits: CallLimits) -> Arc<Limiter> {
        let state = State { limits, running: 0, by_caller: HashMap::new(), queue: FairQueue::default() };
        Arc::new(Limiter { place, is_unlimited: AtomicBool::new(limits.are_none()), state: Mutex::new(state) })
    }

    /// Goes by other limits from now on. Calls that run go on; those that began without limits are never counted.
    pub fn set_limits(self: &Arc<Self>, limits: CallLimits) {
        self.lock().limits = limits;
        self.is_unlimited.store(limits.are_none(), Ordering::Release);
        self.dispatch();
    }

    /// Waits for a place; dropping the future leaves the queue. The caller bounds the wait by its deadline.
    ///
    /// # Errors
    /// [`Shed`]: the queue is full, or the wait took too long.
    pub async fn enter(self: &Arc<Self>, caller: &CallerId) -> Result<CallPermit, Shed> {
        if self.is_unlimited.load(Ordering::Acquire) {
            return Ok(CallPermit(None));
        }
        let (receiver, _place, waited) = {
            let mut state = self.lock();
            if state.admits(caller) {
                state.admit(caller);
                return Ok(self.permit(caller));
            }
            let now = clock::now();
            let (waiting, limit) = (state.queue.len(), state.limits.max_queue);
            if waiting >= limit {
                let oldest = state.queue.oldest().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                return Err(Shed::Full { place: self.place, waiting, limit, oldest });
            }
            let (sender, receiver) = oneshot::channel();
            let ticket = state.queue.push(caller, now, sender);
            (receiver, Place { limiter: self, caller, ticket }, state.limits.max_queue_age)
        };
        match tokio::time::timeout(waited, receiver).await {
            Ok(Ok(permit)) => Ok(permit),
            // A sender is dropped only by the place that is still held here.
            _ => Err(Shed::Aged { place: self.place, waited }),
        }
    }

    /// Calls that run, and those that wait.
    pub fn figures(&self) -> (usize, QueueFigures) {
        let state = self.lock();
        (state.running, QueueFigures::of(&state.queue))
    }

    fn permit(self: &Arc<Self>, caller: &CallerId) -> CallPermit {
        CallPermit(Some((Arc::clone(self), caller.clone())))
    }

    fn leave(self: &Arc<Self>, caller: &CallerId) {
        self.lock().leave(caller);
        self.dispatch();
    }

    /// Lets in those who may go now.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let next = self.lock().next();
            let Some((caller, sender)) = next else { return };
            // Not under the lock: a permit that nobody takes any more gives its place up here.
            if let Err(mut unused) = sender.send(self.permit(&caller)) {
                unused.0 = None;
                self.lock().leave(&caller);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admits(&self, caller: &CallerId) -> bool {
        let (limits, own) = (&self.limits, || self.by_caller.get(caller).copied().unwrap_or(0));
        limits.database.is_none_or(|limit| self.running < limit) && limits.caller.is_none_or(|limit| own() < limit)
    }

    fn admit(&mut self, caller: &CallerId) {
        self.running += 1;
        *self.by_caller.entry(caller.clone()).or_default() += 1;
    }

    fn leave(&mut self, caller: &CallerId) {
        self.running -= 1;
        if let Some(own) = self.by_caller.get_mut(caller) {
            *own -= 1;
            if *own == 0 {
                self.by_caller.remove(caller);
            }
        }
    }

    fn next(&mut self) -> Option<(CallerId, oneshot::Sender<CallPermit>)> {
        let mut queue = std::mem::take(&mut self.queue);
        let next = queue.pop(|caller| self.admits(caller));
        self.queue = queue;
        let (caller, sender) = next?;
        self.admit(&caller);
        Some((caller, sender))
    }
}

impl CallPermit {
    /// Whether there are limits at all.
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some((limiter, caller)) = self.0.take() {
            limiter.leave(&caller);
        }
    }
}

/// A place in the queue; leaves it, however the wait ends.
struct Place<'a> {
    limiter: &'a Limiter,
    caller: &'a CallerId,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let left = self.limiter.lock().queue.remove(self.caller, self.ticket);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    fn caller(n: u8) -> CallerId {
        CallerId::Principal(n.to_string().into())
    }

    fn limiter(max_queue_age: Duration) -> Arc<Limiter> {
        Limiter::new(CallLimits { database: Some(3), caller: Some(2), max_queue: 3, max_queue_age })
    }

    #[tokio::test]
    async fn a_caller_at_its_limit_waits_alone_and_the_queue_is_bounded_in_length_and_age() {
        let limiter = limiter(Duration::from_secs(60));
        let (a, b) = (caller(1), caller(2));
        let first = limiter.enter(&a).await.expect("it is free");
        let second = limiter.enter(&a).await.expect("it is free");
        let mut third = Box::pin(limiter.enter(&a));
        assert!(third.as_mut().now_or_never().is_none(), "a caller has two places");
        let other = limiter.enter(&b).await.expect("another caller has its own");
        let mut fourth = Box::pin(limiter.enter(&a));
        let mut waiting = Box::pin(limiter.enter(&b));
        assert!(fourth.as_mut().now_or_never().is_none() && waiting.as_mut().now_or_never().is_none());
        let full = limiter.enter(&b).await.expect_err("three wait");
        assert!(matches!(full, Shed::Full { waiting: 3, limit: 3, .. }), "{full:?}");
        drop(second);
        let third = third.await.expect("its own caller's turn");
        drop(first);
        let waiting = waiting.await.expect("the other caller's turn, though it came last");
        assert!(fourth.as_mut().now_or_never().is_none());
        drop((fourth, third, other, waiting));
        let state = limiter.lock();
        assert_eq!((state.running, state.by_caller.len(), state.queue.len()), (0, 0, 0), "nothing is left of them");
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_queue_may_be_old() {
        let (limiter, a) = (limiter(Duration::from_millis(1)), caller(1));
        let _inside = (limiter.enter(&a).await.expect("it is free"), limiter.enter(&a).await.expect("it is free"));
        assert_eq!(limiter.enter(&a).await.expect_err("nobody leaves").cause(), "age");
        assert_eq!(limiter.figures().1.waiting, 0);
    }

    proptest! {
        /// Whoever comes, leaves, or gives up waiting: the limits hold, and nobody waits who may go.
        #[test]
        fn limits_hold_and_no_place_is_lost(
            steps in prop::collection::vec((0u8..3, 0u8..3, any::<prop::sample::Index>()), 1..80),
        ) {
            let limiter = limiter(Duration::from_secs(60));
            let callers: Vec<_> = (0..3).map(caller).collect();
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().build().expect("a runtime");
            runtime.block_on(async {
                let mut waiting = Vec::new();
                let mut running: Vec<(u8, CallPermit)> = Vec::new();
                for (who, action, which) in steps {
                    match action {
                        0 => waiting.push((who, Box::pin(limiter.enter(&callers[usize::from(who)])))),
                        1 if !waiting.is_empty() => drop(waiting.swap_remove(which.index(waiting.len()))),
                        _ if !running.is_empty() => drop(running.swap_remove(which.index(running.len()))),
                        _ => {}
                    }
                    let mut still = Vec::new();
                    for (who, mut future) in waiting.drain(..) {
                        match future.as_mut().now_or_never() {
                            Some(Ok(permit)) => running.push((who, permit)),
                            Some(Err(_)) => {}
                            None => still.push((who, future)),
                        }
                    }
                    waiting = still;
                    let own = |who: u8| running.iter().filter(|(other, _)| *other == who).count();
                    prop_assert!(running.len() <= 3 && (0..3).all(|who| own(who) <= 2));
                    for (who, _) in &waiting {
                        prop_assert!(running.len() == 3 || own(*who) == 2, "one waits who may go");
                    }
                    prop_assert_eq!(limiter.figures().0, running.len());
                }
                Ok(())
            })?;
        }
    }
}
