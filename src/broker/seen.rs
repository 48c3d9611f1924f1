//! What a CAUSAL read has seen becomes a position of its caller (rule 19): what one read saw, the next sees, whichever
//! host answers.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use super::{
    Broker,
    database::Database,
    reach::{Reach, Written},
};
use crate::{
    model::{HostId, Timeline},
    position::SlotIndex,
    postgres::{Facts, Seen},
    topology::Snapshot,
};

/// The connection on which something was seen.
#[derive(Clone, Copy)]
pub(super) struct SeenOn<'a> {
    pub(super) host: HostId,
    pub(super) facts: &'a Facts,
}

impl Reach {
    /// Stores what a read saw, before its caller gets the last of it; the token says the same to whoever carries it.
    /// None: nobody knows, and only the primary will do for a while.
    pub(super) fn record_seen(
        &self,
        broker: &Broker,
        database: &Database,
        on: SeenOn<'_>,
        seen: Option<Seen>,
    ) -> String {
        let Some(seen) = seen else { return self.mark_unknown(broker, database) };
        let snapshot = broker.topology.snapshot();
        let timeline = seen.timeline.or_else(|| measured_timeline(&snapshot, database, on, seen));
        let Some(timeline) = timeline else { return self.mark_unknown(broker, database) };
        let written = Written { system_identifier: on.facts.system_identifier, timeline, lsn: seen.lsn };
        let token = self.store(broker, database, written);
        // What every replica is known to have passed is nothing to poll for.
        let needed = seen.lsn.without_page_header(snapshot.cluster(database.positions_in).geometry);
        if snapshot.kin(database.positions_in).any(|view| view.has_replica_behind(needed)) {
            broker.topology.await_position(database.positions_in, seen.lsn);
        }
        token
    }

    /// What keeps the caller's session on the primary while it has rows of which nobody knows yet what they saw.
    pub(super) fn hold<'a>(&self, broker: &'a Broker) -> Hold<'a> {
        Hold { holds: &broker.holds, slot: self.slot(), stage: AtomicU8::new(IDLE) }
    }

    /// Whether the session is held.
    pub(super) fn is_held(&self, broker: &Broker) -> bool {
        self.slot().is_some_and(|slot| broker.holds.contains(slot))
    }
}

/// Sessions that were sent rows by a CAUSAL read that has yet to record what it saw: it runs on, or was cut just now,
/// which its caller may know before the broker does.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// How many in all: as a rule none, and nobody takes the lock.
    count: AtomicUsize,
    slots: Mutex<HashMap<SlotIndex, usize>>,
}

impl Holds {
    fn contains(&self, slot: SlotIndex) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.lock().contains_key(&slot)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SlotIndex, usize>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds one session, from its beginning until it ends or is dropped. What was seen is to be recorded first.
pub(super) struct Hold<'a> {
    holds: &'a Holds,
    slot: Option<SlotIndex>,
    stage: AtomicU8,
}

const IDLE: u8 = 0;
const ON: u8 = 1;
const OVER: u8 = 2;

impl Hold<'_> {
    /// To be called before the first rows are sent.
    pub(super) fn begin(&self) {
        if self.stage.compare_exchange(IDLE, ON, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        if let Some(slot) = self.slot {
            *self.holds.lock().entry(slot).or_default() += 1;
            self.holds.count.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == ON
    }

    pub(super) fn end(&self) {
        if self.stage.swap(OVER, Ordering::Relaxed) != ON {
            return;
        }
        let Some(slot) = self.slot else { return };
        let mut slots = self.holds.lock();
        if let Entry::Occupied(mut held) = slots.entry(slot) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        self.holds.count.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The timeline of what was seen on a standby that does not say: good as far as its prober has measured it. An older one
/// than the standby's own would let the position end at the point where that began.
fn measured_timeline(snapshot: &Snapshot, database: &Database, on: SeenOn<'_>, seen: Seen) -> Option<Timeline> {
    let view = snapshot.cluster(database.cluster);
    let host = view.host(on.host)?;
    let is_measured = host.incarnation == on.facts.started_us
        && host.history.is_some()
        && host.history == view.history
        && host.replay.is_some_and(|replay| replay >= seen.lsn);
    view.timeline.filter(|_| is_measured)
}
