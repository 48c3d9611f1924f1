//! Who may take a connection, and in which order: gates with first-in-first-out queues of bounded length.

mod room;
mod turns;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use room::{Room, Stay};
pub use turns::{Turn, Turns};

/// More callers wait than the queue may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} callers wait for a connection already (at most {limit} may)")]
pub struct QueueFull {
    /// Callers waiting.
    pub waiting: usize,
    /// The bound.
    pub limit: usize,
}

/// Lets a fixed number of callers through at a time, in the order in which they came.
#[derive(Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
    max_queue: usize,
}

/// A place behind the gate, for as long as it lives.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate for `size` callers at a time, before which `max_queue` may wait.
    pub fn new(size: usize, max_queue: usize) -> Gate {
        Gate { permits: Arc::new(Semaphore::new(size)), size, waiting: AtomicUsize::new(0), max_queue }
    }

    /// Waits for a place; dropping the future leaves the queue. The caller bounds the wait.
    pub async fn enter(&self) -> Result<Permit, QueueFull> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(Permit { _permit: permit });
        }
        let place = Place::take(&self.waiting);
        let full = QueueFull { waiting: place.before, limit: self.max_queue };
        if place.before >= self.max_queue {
            return Err(full);
        }
        // The semaphore is never closed; should it be, nobody is let in any more.
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| full)?;
        Ok(Permit { _permit: permit })
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many are behind the gate.
    pub fn in_use(&self) -> usize {
        self.size.saturating_sub(self.permits.available_permits())
    }

    /// How many are let in at a time.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// Counts a caller in the queue for as long as it waits, however it leaves.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Place<'a> {
        Place { waiting, before: waiting.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_queue_is_fair_and_bounded_and_leaving_it_is_noticed() {
        let gate = Gate::new(1, 2);
        let inside = gate.enter().await.expect("the gate is free");
        let mut first = Box::pin(gate.enter());
        let mut second = Box::pin(gate.enter());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(gate.waiting(), 2);
        assert_eq!(gate.enter().await.expect_err("the queue is full"), QueueFull { waiting: 2, limit: 2 });
        drop(inside);
        assert!(second.as_mut().now_or_never().is_none(), "the first in line goes first");
        drop(first);
        assert!(second.as_mut().now_or_never().expect("its turn").is_ok());
        assert_eq!(gate.waiting(), 0);
    }
}
