//! Looks after a lane for as long as it is one: whether the server gets on with it, whose deadline has passed, whether it is
//! used; and gives its connection back, reset, when it is to be one no more. One task a lane, and no timer for a read.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{LATE, Lane, Owner, STALLED, lock};
use crate::{
    clock,
    postgres::{LaneBegun, PgError},
};

/// A lane on which nothing was in flight for so long, or for one `patience`, is one no more.
const LINGER_MIN: Duration = Duration::from_secs(1);

/// Fewer looks than these without an answer of the server make no stall.
const QUIET_LOOKS_MIN: u32 = 4;

/// Between two looks at most: so much later than it passed a deadline may be noticed.
const LOOK_EVERY_MAX: Duration = Duration::from_millis(20);

/// What the server must have answered beyond its own time limit; else the connection is given up.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// How long the server lets a statement run on a lane. What it stops then runs on a connection of its own.
pub(super) fn statement_timeout(patience: Duration) -> Duration {
    const AT_LEAST: Duration = Duration::from_secs(1);
    (patience * 2).max(AT_LEAST)
}

/// What was seen at the last look.
#[derive(Default)]
struct Seen {
    progress: u64,
    was_busy: bool,
    quiet: u32,
}

pub(super) fn keep(lane: Arc<Lane>, owner: Owner, begun: LaneBegun, patience: Duration) {
    tokio::spawn(async move {
        let is_drained = lane.attend(&owner, begun, patience).await;
        lane.give_back(is_drained).await;
    });
}

impl Lane {
    /// Until it has ended, and nothing is in flight any more: true; or the connection is lost, or to be given up: false.
    async fn attend(self: &Arc<Self>, owner: &Owner, mut begun: LaneBegun, patience: Duration) -> bool {
        let every = (patience / QUIET_LOOKS_MIN).min(LOOK_EVERY_MAX);
        // The last of them is one patience behind the first.
        let quiet_looks = patience.as_nanos().div_ceil(every.as_nanos().max(1)) as u32;
        let mut seen = Seen::default();
        let mut answered: Option<Result<(), PgError>> = None;
        let mut used_at = self.began;
        let mut ended_at = None;
        loop {
            tokio::select! {
                answer = begun.answer(), if answered.is_none() => answered = Some(answer),
                () = tokio::time::sleep(every) => {}
            }
            let now = clock::now();
            let is_empty = self.in_flight() == 0;
            if !is_empty {
                used_at = now;
            }
            self.tell_the_late();
            let quiet = self.quiet_for(&mut seen);
            if quiet >= quiet_looks {
                self.leave_the_head_behind(quiet == quiet_looks);
            }
            let failed = self.link.is_closed() || matches!(answered, Some(Err(_)));
            let is_unused = is_empty && now.saturating_duration_since(used_at) >= LINGER_MIN.max(patience);
            let is_over = owner.upgrade().is_none_or(|lanes| {
                // Lanes do not make way for each other: each would be one for a few looks only.
                let is_wanted = is_empty && lanes.account.is_awaited_by_calls();
                is_wanted || lanes.is_over(self, now)
            });
            if failed || is_unused || is_over {
                self.end();
            }
            if !self.is_ending() {
                continue;
            }
            if ended_at.is_none() {
                ended_at = Some(now);
                // Others may take its place at once, and who waits for one is told if there is none.
                owner.upgrade().into_iter().for_each(|lanes| lanes.remove(self));
            }
            // Behind the mark nobody enters: what is empty now stays so.
            if failed || self.in_flight() == 0 {
                return !failed;
            }
            let limit = statement_timeout(patience) + LIMIT;
            if ended_at.is_some_and(|ended_at| now.saturating_duration_since(ended_at) >= limit) {
                return false;
            }
        }
    }

    fn tell_the_late(&self) {
        let now = clock::now();
        let line = lock(&self.line);
        let is_late = |deadline: crate::model::Deadline| deadline.is_over(now);
        line.reads.iter().filter(|read| read.deadline.is_some_and(is_late)).for_each(|read| read.tell(LATE));
    }

    /// For how many looks the server has answered nothing at all, though something was in flight: by its own answers, as they
    /// come from the socket, not by when anybody had the time to look at them.
    fn quiet_for(&self, seen: &mut Seen) -> u32 {
        let is_busy = !lock(&self.line).reads.is_empty();
        let progress = self.link.progress();
        let is_quiet = is_busy && seen.was_busy && progress == seen.progress;
        seen.quiet = if is_quiet { seen.quiet + 1 } else { 0 };
        (seen.progress, seen.was_busy) = (progress, is_busy);
        seen.quiet
    }

    /// Its statement is demoted; who is behind it, or comes in as the lane ends, runs elsewhere. None of them, not even
    /// those that are only read to their end, keeps a place from a read on another lane.
    fn leave_the_head_behind(&self, is_first_time: bool) {
        self.end();
        let line = lock(&self.line);
        let head = line.reads.front().and_then(|head| head.known.as_ref()).filter(|_| is_first_time);
        if let Some(known) = head {
            self.counts.demoted(known.ran_on_lane(None, self.patience));
        }
        line.reads.iter().skip(1).for_each(|read| read.tell(STALLED));
        let permits: Vec<_> = line.reads.iter().filter_map(|read| read.take_permit()).collect();
        drop(line);
        drop(permits);
    }

    /// Resets the connection and gives it back to its pool; closes it if there is any doubt.
    async fn give_back(&self, is_drained: bool) {
        lock(&self.statements).clear();
        let seat = timeout(LIMIT, self.seat.lock()).await;
        let Some((mut lease, grant)) = seat.ok().and_then(|mut seat| seat.take()) else { return };
        if is_drained {
            lease.end_lane().await;
        }
        // In this order: the connection is back before another may have it.
        drop(lease);
        drop(grant);
    }
}
