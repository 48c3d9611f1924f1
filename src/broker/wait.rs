//! Waiting for a replica to catch up instead of loading the primary (`max_wait`). Who waits is woken by the monitor,
//! whenever what is known of the hosts changes; nobody asks a host for it.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{
    Broker, Failure, Receipt,
    caller::Caller,
    choose::{Choice, Chooser},
};
use crate::{
    clock,
    model::{Consistency, Deadline, HostSet, Rejection},
};

/// Until when one call waits for a replica, all its attempts together.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitLimit {
    pub(super) until: Option<Instant>,
    /// Whether it has waited.
    pub(super) waited: bool,
}

impl WaitLimit {
    /// Of a read that asks for `max_wait`; None: for the configured default. Never longer than half of what is left until
    /// the deadline, so that the primary can still answer.
    pub(super) fn of(
        broker: &Broker,
        consistency: &Consistency,
        max_wait: Option<Duration>,
        caller: &Caller,
    ) -> WaitLimit {
        WaitLimit::until(broker, consistency, max_wait, caller.deadline())
    }

    /// The same for a call with that deadline.
    pub(super) fn until(
        broker: &Broker,
        consistency: &Consistency,
        max_wait: Option<Duration>,
        deadline: Deadline,
    ) -> WaitLimit {
        let max_wait = max_wait.unwrap_or(broker.settings().max_wait);
        let never = max_wait.is_zero() || !consistency.can_wait();
        let now = clock::now();
        let at_most = max_wait.min(deadline.remaining(now) / 2);
        WaitLimit { until: (!never).then(|| now + at_most), waited: false }
    }
}

impl Chooser<'_> {
    /// Chooses a host, once there is one that is fresh enough, or it was waited for long enough.
    pub(super) async fn choose_in_time(
        &self,
        tried: HostSet,
        attempts: u32,
        limit: &mut WaitLimit,
        caller: &Caller,
    ) -> Result<Receipt, Failure> {
        let began = clock::now();
        let mut changes: Option<watch::Receiver<u64>> = None;
        let mut place = None;
        loop {
            // Before the look: a change that comes behind it wakes.
            changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let (awaited, until) = match self.choose(tried, attempts, *limit)? {
                Choice::Host(mut receipt) => {
                    if place.is_some() {
                        receipt.waited = clock::now() - began;
                        self.broker.metrics.waited("replay", receipt.waited);
                    }
                    return Ok(*receipt);
                }
                Choice::Wait { lsn, until } => (lsn, until),
            };
            if self.next.is_some_and(Chooser::is_served_by_a_replica) {
                // Of the side whose primary these hosts follow: nobody waits for what is there.
                return Err(Failure::rejected(Rejection::NoPrimaryAvailable, &self.database.name));
            }
            let Some(changes) = &mut changes else {
                // With too many who wait already: as if it did not want to.
                match self.broker.waiting_readers.enter(self.broker.settings().admission.max_queue, began) {
                    Some(stay) => {
                        limit.waited = true;
                        place = Some((stay, self.broker.metrics.reader_waiting()));
                        changes = Some(self.broker.topology.changes());
                    }
                    None => limit.until = None,
                }
                continue;
            };
            match awaited {
                Some(lsn) => self.broker.topology.seek_position(self.database.cluster, lsn),
                // How fresh a replica is shows with the next samples.
                None => self.broker.topology.probe_now(self.database.cluster),
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    // The monitor has stopped: nothing will ever change.
                    limit.until = None;
                },
                () = tokio::time::sleep_until(until.into()) => limit.until = None,
                // A reload has taken away what it waits for.
                () = self.database.removed.cancelled() => self.database.check()?,
                interrupted = caller.interrupted() => return Err(interrupted.failure()),
            }
        }
    }
}
