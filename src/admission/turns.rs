//! Callers that name one thing go one at a time, in the order in which they came; those of other things do not wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// More callers wait than the queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} callers wait for others with the same idempotency key already (at most {limit} may)")]
pub struct QueueFull {
    /// Callers waiting.
    pub waiting: usize,
    /// The bound.
    pub limit: usize,
}

/// One turn at a time for each name; names that nobody has in hand cost nothing.
#[derive(Debug)]
pub struct Turns {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    max_queue: usize,
    /// By name: the turn, and the callers that have it or wait for it.
    names: HashMap<String, (Arc<Semaphore>, usize)>,
    callers: usize,
}

/// A caller's turn, for as long as it lives.
#[derive(Debug)]
pub struct Turn<'a> {
    // Dropped first: the next in line finds its place.
    _permit: OwnedSemaphorePermit,
    _place: Place<'a>,
}

impl Turns {
    /// For names of which `max_queue` callers in all may wait.
    pub fn new(max_queue: usize) -> Turns {
        Turns { places: Mutex::new(Places { max_queue, ..Places::default() }) }
    }

    /// From now on so many may wait; those that do already stay.
    pub fn set_max_queue(&self, max_queue: usize) {
        self.lock().max_queue = max_queue;
    }

    /// Waits for the name's turn; dropping the future leaves the queue. The caller bounds the wait.
    pub async fn take(&self, name: &str) -> Result<Turn<'_>, QueueFull> {
        let (place, turn) = self.place(name)?;
        let full = self.lock().full();
        // The semaphore is never closed; should it be, nobody is let in any more.
        let permit = turn.acquire_owned().await.map_err(|_| full)?;
        Ok(Turn { _permit: permit, _place: place })
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    fn place(&self, name: &str) -> Result<(Place<'_>, Arc<Semaphore>), QueueFull> {
        let mut places = self.lock();
        let full = places.full();
        if full.waiting >= full.limit && places.names.contains_key(name) {
            return Err(full);
        }
        let (turn, callers) = places.names.entry(name.to_owned()).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
        *callers += 1;
        let turn = Arc::clone(turn);
        places.callers += 1;
        Ok((Place { turns: self, name: name.to_owned() }, turn))
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// All but one a name.
    fn waiting(&self) -> usize {
        self.callers.saturating_sub(self.names.len())
    }

    fn full(&self) -> QueueFull {
        QueueFull { waiting: self.waiting(), limit: self.max_queue }
    }
}

/// Counts a caller for as long as it has its turn or waits for it, however it leaves.
#[derive(Debug)]
struct Place<'a> {
    turns: &'a Turns,
    name: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.turns.lock();
        places.callers = places.callers.saturating_sub(1);
        if let Some((_, callers)) = places.names.get_mut(&self.name) {
            *callers -= 1;
            if *callers == 0 {
                places.names.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn one_at_a_time_by_name_in_order_and_bounded() {
        let turns = Turns::new(2);
        let inside = turns.take("a").await.expect("nobody has it");
        let other = turns.take("b").await.expect("another name");
        let mut first = Box::pin(turns.take("a"));
        let mut second = Box::pin(turns.take("a"));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(turns.waiting(), 2);
        let full = QueueFull { waiting: 2, limit: 2 };
        assert_eq!(turns.take("b").await.expect_err("the queue is full"), full);
        let third = turns.take("c").await.expect("it need not wait");
        drop(first);
        assert_eq!(turns.waiting(), 1);
        turns.set_max_queue(1);
        assert!(turns.take("b").now_or_never().is_some_and(|turn| turn.is_err()), "the limit is smaller now");
        drop(inside);
        let second = second.as_mut().now_or_never().expect("its turn").expect("it is let in");
        assert_eq!(turns.waiting(), 0);
        drop((second, other, third));
        assert!(turns.lock().names.is_empty(), "nothing is left of them");
    }
}
