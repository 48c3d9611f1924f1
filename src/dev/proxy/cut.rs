//! Cutting a connection at one protocol message, so that a test can go through all of an exchange.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{Direction, framing::Framing};

/// A cut that waits for its message. Nothing is cut any more once this is dropped.
#[derive(Debug)]
pub struct CutAt {
    pub(super) plan: Arc<Plan>,
}

impl CutAt {
    /// Whether the message came, and the connection was cut.
    pub fn reached(&self) -> bool {
        self.plan.reached.load(Ordering::SeqCst)
    }
}

impl Drop for CutAt {
    fn drop(&mut self) {
        self.plan.over.store(true, Ordering::SeqCst);
    }
}

/// What is to be cut.
#[derive(Debug)]
pub(super) struct Plan {
    /// Connections up to this number, in the order in which they were opened, are spared.
    spared: u64,
    direction: Direction,
    /// Messages to pass before the cut.
    left: AtomicU64,
    reached: AtomicBool,
    over: AtomicBool,
}

impl Plan {
    pub(super) fn new(spared: u64, direction: Direction, message: u64) -> Self {
        let (left, reached, over) = (message.into(), false.into(), false.into());
        Self { spared, direction, left, reached, over }
    }

    /// The offset, of those at which messages begin, where the connection is to be cut; once.
    fn cut(&self, number: u64, direction: Direction, starts: &[usize]) -> Option<usize> {
        let concerned = number > self.spared && direction == self.direction;
        if !concerned || self.over.load(Ordering::SeqCst) || self.reached.load(Ordering::SeqCst) {
            return None;
        }
        for start in starts {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                return (!self.reached.swap(true, Ordering::SeqCst)).then_some(*start);
            }
        }
        None
    }
}

/// The messages of one connection, and where to cut it.
#[derive(Debug)]
pub(super) struct Messages {
    number: u64,
    framing: Mutex<Framing>,
}

impl Messages {
    pub(super) fn new(number: u64) -> Self {
        Self { number, framing: Mutex::default() }
    }

    /// How much of the next chunk is to be passed on before the connection is cut; None: all, and it is not. Must be told
    /// of every chunk, also while nothing is planned.
    pub(super) fn cut(&self, plan: Option<Arc<Plan>>, direction: Direction, chunk: &[u8]) -> Option<usize> {
        let starts = self.framing.lock().unwrap_or_else(PoisonError::into_inner).starts(direction, chunk);
        plan?.cut(self.number, direction, &starts)
    }
}
