//! Owns whether a statement is short enough to share a connection with others (a lane): by its own time and the size of
//! its results, as they were measured. One that turns slow or large is kept away for a pause, which grows each time.

use std::time::{Duration, Instant};

/// Runs up to this part of what others are held up at most count as short.
const SHORT_PART: u32 = 10;
/// Runs from this part on count as slow. Between the two it may have been the machine.
const SLOW_PART: u32 = 2;
/// Results beyond this are large, in bytes as PostgreSQL sends them.
pub const LARGE_BYTES: usize = 64 << 10;

/// Short runs before a statement counts as short.
const SHORT_RUNS: u32 = 3;
/// How much one slow run counts, in short ones.
const SLOW_WEIGHT: u32 = 8;
/// A machine that stalls makes a few runs slow; more than one in eight, beyond these, are the statement's own.
const SLOWNESS_MAX: u32 = 3 * SLOW_WEIGHT;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so many pauses without another one it begins anew.
const FORGIVEN_AFTER: u32 = 10;

/// One run of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its own time: without what it waited for.
    pub took: Duration,
    /// The size of its result.
    pub bytes: usize,
}

/// Why a statement is kept away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demotion {
    /// Too many of its runs were slow.
    Slow,
    /// A result was large.
    Large,
    /// It held up those behind it.
    Stalled,
}

impl Demotion {
    /// All of them, in the order of their numbers.
    pub const ALL: [Demotion; 3] = [Demotion::Slow, Demotion::Large, Demotion::Stalled];

    /// For metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Demotion::Slow => "slow",
            Demotion::Large => "large",
            Demotion::Stalled => "stalled",
        }
    }
}

/// What was measured of one statement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    short_runs: u32,
    slowness: u32,
    pause: Duration,
    away_until: Option<Instant>,
}

impl Pace {
    /// Whether the statement may share a connection.
    #[must_use]
    pub fn is_short(&self, now: Instant) -> bool {
        self.short_runs >= SHORT_RUNS && self.away_until.is_none_or(|until| now >= until)
    }

    /// Takes a run into account, where others are held up for `patience` at most; answers why the statement may not share a
    /// connection any more, if it might until now.
    pub fn ran(&mut self, run: Run, patience: Duration, now: Instant) -> Option<Demotion> {
        if run.bytes > LARGE_BYTES {
            return self.demote(Demotion::Large, now);
        }
        if run.took <= patience / SHORT_PART {
            self.short_runs = (self.short_runs + 1).min(SHORT_RUNS);
            self.slowness = self.slowness.saturating_sub(1);
        } else if run.took >= patience / SLOW_PART {
            if self.short_runs < SHORT_RUNS {
                self.short_runs = 0;
            }
            self.slowness += SLOW_WEIGHT;
            if self.slowness >= SLOWNESS_MAX {
                return self.demote(Demotion::Slow, now);
            }
        }
        None
    }

    /// It held up others, who have left it behind.
    pub fn stalled(&mut self, now: Instant) -> Option<Demotion> {
        self.demote(Demotion::Stalled, now)
    }

    fn demote(&mut self, why: Demotion, now: Instant) -> Option<Demotion> {
        let was_short = self.is_short(now);
        (self.short_runs, self.slowness) = (0, 0);
        if !was_short {
            return None;
        }
        let is_forgiven = self.away_until.is_none_or(|until| now >= until + self.pause * FORGIVEN_AFTER);
        self.pause = if is_forgiven { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        self.away_until = Some(now + self.pause);
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_support::origin;

    const PATIENCE: Duration = Duration::from_millis(20);

    fn run(ms: u64) -> Run {
        Run { took: Duration::from_millis(ms), bytes: 100 }
    }

    fn short(now: Instant) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..SHORT_RUNS {
            assert!(!pace.is_short(now));
            assert_eq!(pace.ran(run(1), PATIENCE, now), None);
        }
        assert!(pace.is_short(now));
        pace
    }

    #[test]
    fn three_short_runs_make_a_statement_short_and_a_slow_one_before_that_begins_anew() {
        let now = origin();
        let mut pace = Pace::default();
        for ms in [1, 2, 5, 30, 0, 9, 1] {
            pace.ran(run(ms), PATIENCE, now);
            assert!(!pace.is_short(now), "{ms}");
        }
        pace.ran(run(1), PATIENCE, now);
        assert!(pace.is_short(now));
    }

    #[test]
    fn a_machine_that_stalls_is_no_reason_and_one_slow_run_in_four_is() {
        let now = origin();
        let mut pace = short(now);
        for n in 0..1000 {
            let took = if n % 20 == 0 { 40 } else { 1 };
            assert_eq!(pace.ran(run(took), PATIENCE, now), None, "{n}");
        }
        let demoted = (0..100).find_map(|n| pace.ran(run(if n % 4 == 0 { 40 } else { 1 }), PATIENCE, now));
        assert_eq!(demoted, Some(Demotion::Slow));
        assert!(!pace.is_short(now));
    }

    #[test]
    fn a_large_result_and_a_stall_count_at_once_and_the_pause_grows_until_it_is_forgiven() {
        let mut now = origin();
        let mut pace = short(now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let why = if seconds % 4 == 0 { Demotion::Large } else { Demotion::Stalled };
            let demoted = match why {
                Demotion::Large => pace.ran(Run { took: Duration::ZERO, bytes: LARGE_BYTES + 1 }, PATIENCE, now),
                _ => pace.stalled(now),
            };
            assert_eq!(demoted, Some(why));
            for _ in 0..SHORT_RUNS {
                pace.ran(run(1), PATIENCE, now);
            }
            now += Duration::from_secs(seconds) - Duration::from_millis(1);
            assert!(!pace.is_short(now), "{seconds}");
            now += Duration::from_millis(1);
            assert!(pace.is_short(now), "{seconds}");
        }
        now += Duration::from_secs(600);
        pace.stalled(now);
        for _ in 0..SHORT_RUNS {
            pace.ran(run(1), PATIENCE, now);
        }
        assert!(pace.is_short(now + PAUSE_MIN));
    }

    #[test]
    fn what_is_away_already_is_not_demoted_again() {
        let now = origin();
        let mut pace = short(now);
        assert_eq!(pace.stalled(now), Some(Demotion::Stalled));
        assert_eq!(pace.stalled(now), None);
        assert_eq!(Pace::default().stalled(now), None);
    }
}
