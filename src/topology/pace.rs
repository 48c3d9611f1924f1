//! When a prober asks again: fast while somebody waits for a position that the host has not reached, slowly else.

use std::time::{Duration, Instant};

use super::ProbeSettings;
use crate::model::Lsn;

/// How long an unflushed position is watched before a flush is forced, and the least time between two (rule 2b).
const FLUSH_PATIENCE: Duration = Duration::from_millis(200);
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Between the first probes of a host that had failed: whether it is back is to be known soon.
const RECHECK: Duration = Duration::from_millis(100);

/// One prober's pace.
#[derive(Debug)]
pub(super) struct Pace {
    settings: ProbeSettings,
    step: Duration,
    /// Answers that a host which had failed still owes.
    owed: u32,
    last_progress: Lsn,
    unflushed_since: Option<Instant>,
    flushed_at: Option<Instant>,
}

impl Pace {
    /// At rest, or `anew` after a failure.
    pub(super) fn new(settings: ProbeSettings, anew: bool) -> Pace {
        let step = settings.fast_interval;
        let owed = if anew { settings.health.successes } else { 0 };
        Pace { settings, step, owed, last_progress: Lsn::ZERO, unflushed_since: None, flushed_at: None }
    }

    /// Goes by these settings from now on.
    pub(super) fn adopt(&mut self, settings: ProbeSettings) {
        self.settings = settings;
    }

    /// The wait before the next probe, after one that found `progress`. A host that does not move is asked ever more
    /// rarely, up to the slow interval; one that moves is asked fast.
    pub(super) fn next(&mut self, progress: Option<Lsn>, awaited: Option<Lsn>, paused: bool) -> Duration {
        let waited_for = awaited.is_some_and(|awaited| progress.is_none_or(|progress| progress < awaited));
        let moved = progress.is_some_and(|progress| progress > self.last_progress);
        self.last_progress = progress.unwrap_or(self.last_progress);
        self.owed = self.owed.saturating_sub(1);
        if !waited_for {
            self.step = self.settings.fast_interval;
            return if self.owed > 0 { RECHECK.min(self.settings.interval) } else { self.settings.interval };
        }
        if moved && !paused {
            self.step = self.settings.fast_interval;
        } else {
            self.step = (self.step * 2).min(self.settings.interval).min(Duration::from_millis(100));
        }
        self.step
    }

    /// Whether to force a flush now: `awaited` has stayed above what the primary has flushed for too long.
    pub(super) fn force_flush(&mut self, flushed: Lsn, awaited: Option<Lsn>, now: Instant) -> bool {
        if awaited.is_none_or(|awaited| awaited <= flushed) {
            self.unflushed_since = None;
            return false;
        }
        let since = *self.unflushed_since.get_or_insert(now);
        let rested = self.flushed_at.is_none_or(|at| now.saturating_duration_since(at) >= FLUSH_EVERY);
        if now.saturating_duration_since(since) < FLUSH_PATIENCE || !rested {
            return false;
        }
        self.flushed_at = Some(now);
        self.unflushed_since = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HealthSettings;

    fn pace() -> Pace {
        pace_of(false)
    }

    fn pace_of(anew: bool) -> Pace {
        let settings = ProbeSettings {
            interval: Duration::from_secs(1),
            fast_interval: Duration::from_millis(5),
            timeout: Duration::from_secs(1),
            stick_timeout: Duration::from_secs(30),
            lease: Duration::from_secs(5),
            health: HealthSettings { successes: 3, ..HealthSettings::default() },
        };
        Pace::new(settings, anew)
    }

    #[test]
    fn a_host_that_had_failed_is_asked_soon_until_it_has_answered_often_enough() {
        let mut pace = pace_of(true);
        let waits = [(); 4].map(|()| pace.next(Some(Lsn::new(10)), None, false).as_millis());
        assert_eq!(waits, [100, 100, 1000, 1000]);
    }

    #[test]
    fn slow_when_nothing_is_awaited_and_fast_while_a_host_moves_towards_it() {
        let mut pace = pace();
        assert_eq!(pace.next(Some(Lsn::new(10)), None, false), Duration::from_secs(1));
        assert_eq!(pace.next(Some(Lsn::new(20)), Some(Lsn::new(50)), false), Duration::from_millis(5));
        assert_eq!(pace.next(Some(Lsn::new(30)), Some(Lsn::new(50)), false), Duration::from_millis(5));
        assert_eq!(pace.next(Some(Lsn::new(50)), Some(Lsn::new(50)), false), Duration::from_secs(1));
    }

    #[test]
    fn a_host_that_stands_still_is_asked_ever_more_rarely() {
        let mut pace = pace();
        let waits: Vec<_> =
            (0..8).map(|_| pace.next(Some(Lsn::new(10)), Some(Lsn::new(50)), true).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 100, 100, 100, 100]);
    }

    #[test]
    fn a_flush_is_forced_after_200_ms_and_once_a_second_at_most() {
        let mut pace = pace();
        let start = crate::clock::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (low, high) = (Lsn::new(10), Some(Lsn::new(20)));
        assert!(!pace.force_flush(low, high, at(0)));
        assert!(!pace.force_flush(low, high, at(199)));
        assert!(pace.force_flush(low, high, at(200)));
        assert!(!pace.force_flush(low, high, at(500)));
        assert!(!pace.force_flush(low, high, at(1100)));
        assert!(pace.force_flush(low, high, at(1200)));
        assert!(!pace.force_flush(Lsn::new(20), high, at(3000)), "flushed far enough");
        assert!(!pace.force_flush(low, None, at(3000)), "nobody waits");
    }
}
