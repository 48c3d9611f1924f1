//! Owns whether a statement is short enough to share a connection with others (a lane): by its own time and the size of
//! its results, as they were measured. One that turns slow or large is kept away for a pause, which grows each time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Runs up to this part of what others are held up at most count as short.
const SHORT_PART: u32 = 10;
/// Runs from this part on count as slow. Between the two it may have been the machine.
const SLOW_PART: u32 = 2;
/// Results beyond this are large, in bytes as PostgreSQL sends them.
pub const LARGE_BYTES: usize = 64 << 10;

/// Short runs before a statement counts as short.
const SHORT_RUNS: u32 = 3;
/// How much one slow run counts at most, in short ones.
const SLOW_WEIGHT: u32 = 8;
/// More than one slow run in eight, beyond these, are the statement's own; more of them while others are slow, too.
const SLOWNESS_MAX: u32 = 5 * SLOW_WEIGHT;
/// Of so many runs of all statements it is known how many were slow.
const CROWD: u64 = 1024;
/// Of which so many were short before any was seen.
const CROWD_MIN: u64 = 16;
/// A statement's slow runs are its own where it has so many times the share of all.
const CROWD_FACTOR: u64 = 4;

const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The first pause for a stall: one in a while may be the machine's, and a statement that most callers use is to be back soon.
const PAUSE_MIN_STALLED: Duration = Duration::from_millis(125);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The next pause is a first one again once there was none for so many times as long,
const FORGIVEN_AFTER: u32 = 10;
/// and for at least so long.
const FORGIVEN_AFTER_MIN: Duration = Duration::from_secs(10);

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

/// The last runs of all statements that pass for short. A busy machine makes any of them slow, as often as it is busy: one
/// statement is judged by how much more often it is slow than all are. Nothing waits for another.
#[derive(Debug, Default)]
pub struct Crowd(AtomicU64);

impl Crowd {
    /// Slow runs are counted in the upper half.
    const SLOW: u64 = 1 << 32;

    fn ran(&self, is_slow: bool) {
        let one = if is_slow { Self::SLOW | 1 } else { 1 };
        let counts = self.0.fetch_add(one, Relaxed) + one;
        if counts % Self::SLOW >= CROWD {
            let halves = (counts / Self::SLOW / 2) * Self::SLOW + counts % Self::SLOW / 2;
            // Whoever counts meanwhile does it.
            let _ = self.0.compare_exchange(counts, halves, Relaxed, Relaxed);
        }
    }

    /// How many short runs a slow one outweighs.
    fn weight(&self) -> u32 {
        let counts = self.0.load(Relaxed);
        let (slow, runs) = (counts / Self::SLOW, counts % Self::SLOW + CROWD_MIN);
        (runs / (CROWD_FACTOR * slow.max(1))).clamp(1, SLOW_WEIGHT.into()) as u32
    }
}

/// What was measured of one statement.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    short_runs: u32,
    slowness: u32,
    pause: Duration,
    paused_until: Option<Instant>,
    away_until: Option<Instant>,
    /// Messages of so many bytes do not hold its results; until then it is not tried again.
    too_narrow: Option<(usize, Instant)>,
}

impl Pace {
    /// Whether the statement may share a connection.
    #[must_use]
    pub fn is_short(&self, now: Instant) -> bool {
        self.short_runs >= SHORT_RUNS && self.away_until.is_none_or(|until| now >= until)
    }

    /// Whether its results fit a message of so many bytes, as far as is known.
    #[must_use]
    pub fn fits(&self, message_bytes: usize, now: Instant) -> bool {
        self.too_narrow.is_none_or(|(narrow, until)| message_bytes > narrow || now >= until)
    }

    /// A result did not fit such a message, though it is not large; answers whether that is news. Those who take longer
    /// messages are no worse off.
    pub fn did_not_fit(&mut self, message_bytes: usize, now: Instant) -> Option<Demotion> {
        if !self.fits(message_bytes, now) {
            return None;
        }
        self.too_narrow = Some((message_bytes, self.pause(PAUSE_MIN, now)));
        Some(Demotion::Large)
    }

    /// Takes a run into account, where others are held up for `patience` at most; answers why the statement may not share a
    /// connection any more, if it might until now. `crowd`: of those with whom it shares the machines.
    pub fn ran(&mut self, run: Run, patience: Duration, crowd: &Crowd, now: Instant) -> Option<Demotion> {
        if run.bytes > LARGE_BYTES {
            return self.demote(Demotion::Large, now);
        }
        if self.is_short(now) {
            crowd.ran(run.took >= patience / SLOW_PART);
        }
        if run.took <= patience / SHORT_PART {
            self.short_runs = (self.short_runs + 1).min(SHORT_RUNS);
            self.slowness = self.slowness.saturating_sub(1);
        } else if run.took >= patience / SLOW_PART {
            if self.short_runs < SHORT_RUNS {
                self.short_runs = 0;
            }
            self.slowness += crowd.weight();
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
        let at_least = if why == Demotion::Stalled { PAUSE_MIN_STALLED } else { PAUSE_MIN };
        self.away_until = Some(self.pause(at_least, now));
        Some(why)
    }

    /// The end of a pause that begins now.
    fn pause(&mut self, at_least: Duration, now: Instant) -> Instant {
        let forgiven_after = (self.pause * FORGIVEN_AFTER).max(FORGIVEN_AFTER_MIN);
        let is_forgiven = self.paused_until.is_none_or(|until| now >= until + forgiven_after);
        self.pause = if is_forgiven { at_least } else { (self.pause * 2).clamp(at_least, PAUSE_MAX) };
        *self.paused_until.insert(now + self.pause)
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
        let crowd = Crowd::default();
        let mut pace = Pace::default();
        for _ in 0..SHORT_RUNS {
            assert!(!pace.is_short(now));
            assert_eq!(pace.ran(run(1), PATIENCE, &crowd, now), None);
        }
        assert!(pace.is_short(now));
        pace
    }

    #[test]
    fn three_short_runs_make_a_statement_short_and_a_slow_one_before_that_begins_anew() {
        let now = origin();
        let crowd = Crowd::default();
        let mut pace = Pace::default();
        for ms in [1, 2, 5, 30, 0, 9, 1] {
            pace.ran(run(ms), PATIENCE, &crowd, now);
            assert!(!pace.is_short(now), "{ms}");
        }
        pace.ran(run(1), PATIENCE, &crowd, now);
        assert!(pace.is_short(now));
    }

    /// Chance that is the same each time: true once in so many runs (SplitMix64).
    fn once_in(runs: u64, n: u64) -> bool {
        let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).is_multiple_of(runs)
    }

    /// After how many runs the first of these statements is demoted; each run of one is slow once in so many.
    fn until_demoted(slow_once_in: &[u64]) -> Option<u64> {
        let (now, crowd) = (origin(), Crowd::default());
        let mut paces = vec![short(now); slow_once_in.len()];
        let mut step = |n| {
            let index = n as usize % paces.len();
            let took = if once_in(slow_once_in[index], n) { 15 } else { 1 };
            paces[index].ran(run(took), PATIENCE, &crowd, now)
        };
        (0..20_000).find(|n| step(*n) == Some(Demotion::Slow))
    }

    #[test]
    fn a_busy_machine_demotes_nobody_and_a_statement_that_is_slow_among_others_that_are_not_is_demoted() {
        const NEVER: u64 = u64::MAX;
        for slow_once_in in [64, 32, 16, 8, 4] {
            assert_eq!(until_demoted(&[slow_once_in]), None, "alone, once in {slow_once_in}");
            assert_eq!(until_demoted(&[slow_once_in; 10]), None, "ten of them, once in {slow_once_in}");
        }
        let among_others = [NEVER, NEVER, NEVER, 4, NEVER, NEVER];
        assert!(until_demoted(&among_others).is_some_and(|runs| runs < 1000), "{:?}", until_demoted(&among_others));
        let on_a_busy_machine = [16, 16, 16, 2, 16, 16, 16];
        assert!(until_demoted(&on_a_busy_machine).is_some(), "{:?}", until_demoted(&on_a_busy_machine));
        // Whatever the machine does.
        assert!(until_demoted(&[1]).is_some_and(|runs| runs < 50), "{:?}", until_demoted(&[1]));
    }

    #[test]
    fn a_result_that_fits_no_message_keeps_away_those_who_take_no_longer_ones() {
        let now = origin();
        let mut pace = short(now);
        assert!(pace.fits(1, now));
        assert_eq!(pace.did_not_fit(1000, now), Some(Demotion::Large));
        // Reads that were in flight.
        assert_eq!([pace.did_not_fit(1000, now), pace.did_not_fit(900, now)], [None, None]);
        assert_eq!([pace.fits(1000, now), pace.fits(1001, now)], [false, true]);
        assert!(pace.is_short(now), "for the others");
        let later = now + PAUSE_MIN;
        assert!(pace.fits(1000, later));
        assert_eq!(pace.did_not_fit(1000, later), Some(Demotion::Large));
        assert!(!pace.fits(1000, later + PAUSE_MIN), "the pause grows");
        assert!(pace.fits(1000, later + 2 * PAUSE_MIN));
    }

    #[test]
    fn a_large_result_and_a_stall_count_at_once_and_the_pause_grows_until_it_is_forgiven() {
        let mut now = origin();
        let crowd = Crowd::default();
        let mut pace = short(now);
        use Demotion::{Large, Stalled};
        let eighths = [
            (1, Stalled),
            (2, Stalled),
            (8, Large),
            (16, Stalled),
            (32, Large),
            (64, Large),
            (128, Large),
            (256, Stalled),
            (480, Stalled),
            (480, Large),
        ];
        for (eighths, why) in eighths {
            let demoted = match why {
                Demotion::Large => {
                    pace.ran(Run { took: Duration::ZERO, bytes: LARGE_BYTES + 1 }, PATIENCE, &crowd, now)
                }
                _ => pace.stalled(now),
            };
            assert_eq!(demoted, Some(why));
            for _ in 0..SHORT_RUNS {
                pace.ran(run(1), PATIENCE, &crowd, now);
            }
            now += Duration::from_millis(eighths * 125 - 1);
            assert!(!pace.is_short(now), "{eighths}");
            now += Duration::from_millis(1);
            assert!(pace.is_short(now), "{eighths}");
        }
        // However short the pause was, it is not forgiven at once.
        for (after, ms) in
            [(Duration::from_secs(600), 125), (Duration::from_secs(9), 250), (Duration::from_secs(10), 125)]
        {
            now += after;
            pace.stalled(now);
            for _ in 0..SHORT_RUNS {
                pace.ran(run(1), PATIENCE, &crowd, now);
            }
            now += Duration::from_millis(ms - 1);
            assert!(!pace.is_short(now), "{ms}");
            now += Duration::from_millis(1);
            assert!(pace.is_short(now), "{ms}");
        }
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
