//! A broker that forgets its promise, for the test that shows that its checker would notice. Nothing but a call from the same
//! process makes a broker so: no file, variable, flag or message reaches it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Broker;

/// Whether positions are ignored.
#[derive(Debug, Default)]
pub(super) struct Blindness(AtomicBool);

impl Blindness {
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Broker {
    /// From now on reads go to any healthy replica, whatever their callers must see. For tests of tests alone.
    #[doc(hidden)]
    pub fn ignore_positions(&self) {
        self.blindness.0.store(true, Ordering::Relaxed);
    }
}
