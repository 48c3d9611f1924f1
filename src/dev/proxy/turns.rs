//! Counting turns: how often clients write after the server wrote. What a request costs in round trips is the number of
//! its turns.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

/// A running count.
#[derive(Debug)]
pub(super) struct Tally {
    quiet: Duration,
    by_connection: Mutex<BTreeMap<u64, u64>>,
    ended: AtomicBool,
}

impl Tally {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, by_connection: Mutex::default(), ended: AtomicBool::new(false) }
    }

    fn by_connection(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.by_connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }
}

/// A count of turns, which ends when this is dropped.
#[derive(Debug)]
pub struct TurnCount {
    tally: Arc<Tally>,
}

impl TurnCount {
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        Self { tally }
    }

    /// The turns of all connections since the start or the last reset.
    pub fn turns(&self) -> u64 {
        self.tally.by_connection().values().sum()
    }

    /// The same for each connection that had any, in the order in which they were opened: so that one which polls beside
    /// the others can be told from them.
    pub fn turns_by_connection(&self) -> Vec<u64> {
        self.tally.by_connection().values().copied().collect()
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        self.tally.by_connection().clear();
    }
}

impl Drop for TurnCount {
    fn drop(&mut self) {
        self.tally.ended.store(true, Ordering::Relaxed);
    }
}

/// Who spoke last on one connection. Kept also while nobody counts, so that a count may start at any time.
#[derive(Debug)]
pub(super) struct Talk {
    number: u64,
    server_spoke: AtomicBool,
    client_writes: watch::Sender<u64>,
}

impl Talk {
    pub(super) fn new(number: u64) -> Self {
        Self { number, server_spoke: AtomicBool::new(true), client_writes: watch::Sender::new(0) }
    }

    /// The client wrote.
    pub(super) fn client_wrote(&self, tally: Option<Arc<Tally>>) {
        let begins = self.server_spoke.swap(false, Ordering::Relaxed);
        self.client_writes.send_modify(|writes| *writes += 1);
        if let Some(tally) = tally.filter(|tally| begins && tally.is_live()) {
            *tally.by_connection().entry(self.number).or_default() += 1;
        }
    }

    /// Before what the server wrote goes on to the client: while counting, waits until the client has been quiet, since
    /// what it writes now was written without this answer. Once the client has heard something, nothing more is held: its
    /// next write is a new turn in any case.
    pub(super) async fn hold(&self, tally: Option<Arc<Tally>>) {
        let mut writes = self.client_writes.subscribe();
        if let Some(tally) = tally.filter(|tally| tally.is_live()) {
            let mut silent = self.server_spoke.load(Ordering::Relaxed);
            while !silent {
                silent = timeout(tally.quiet, writes.changed()).await.is_err();
            }
        }
    }

    /// What the server wrote goes on to the client now.
    pub(super) fn server_wrote(&self) {
        self.server_spoke.store(true, Ordering::Relaxed);
    }
}
