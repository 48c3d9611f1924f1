//! Owns the recent insert positions of a primary, from which a replica's lag in time follows.

use super::{Lsn, WalGeometry};
use std::collections::VecDeque;
use std::time::Instant;

/// One reading of a primary's insert position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the probe was sent: every commit acknowledged before is at or below `insert`.
    pub sent_at: Instant,
    /// The insert position that it read.
    pub insert: Lsn,
}

/// The samples of one primary and one history, oldest first, in bounded space.
///
/// Recent ones are kept densely, older ones ever more sparsely: probes come every few milliseconds or every second, and
/// a replica that is seconds behind must still find a sample that it has passed. A dropped sample makes a lag look
/// larger, never smaller.
#[derive(Debug, Clone)]
pub struct SampleRing {
    samples: VecDeque<Sample>,
    capacity: usize,
}

impl SampleRing {
    /// How many samples are kept unless said otherwise: enough for an error of a few percent over hours.
    pub const DEFAULT_CAPACITY: usize = 128;

    /// An empty ring for `capacity` samples, at least 2.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(2);
        Self { samples: VecDeque::with_capacity(capacity + 1), capacity }
    }

    /// Adds the newest sample. One that was sent before the newest known is ignored: answers may overtake each other.
    pub fn push(&mut self, sample: Sample) {
        if let Some(newest) = self.samples.back_mut() {
            if sample.sent_at < newest.sent_at {
                return;
            }
            if sample.insert == newest.insert {
                // An idle primary: whoever has passed the one has passed the other, and only the newest matters.
                newest.sent_at = sample.sent_at;
                return;
            }
        }
        self.samples.push_back(sample);
        if self.samples.len() > self.capacity {
            self.drop_one();
        }
    }

    /// The newest sample.
    #[must_use]
    pub fn newest(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// The newest sample that a replica at `replay` has passed.
    #[must_use]
    pub fn newest_passed(&self, replay: Lsn, geometry: WalGeometry) -> Option<Sample> {
        self.samples.iter().rev().find(|sample| sample.insert.without_page_header(geometry) <= replay).copied()
    }

    /// Forgets all: another history began, or another primary answers.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// How many samples are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Drops the sample that is missed least: the gap it leaves is smallest beside its age. Never the newest.
    fn drop_one(&mut self) {
        let Some(newest) = self.newest() else { return };
        let age = |at: Instant| newest.sent_at.saturating_duration_since(at).as_secs_f64();
        let relative_gap = |i: usize| {
            let gap = age(self.samples[i - 1].sent_at) - age(self.samples[i + 1].sent_at);
            gap / age(self.samples[i].sent_at)
        };
        let inner = 1..self.samples.len() - 1;
        let least = inner.min_by(|a, b| relative_gap(*a).total_cmp(&relative_gap(*b)));
        self.samples.remove(least.unwrap_or(0));
    }
}

impl Default for SampleRing {
    fn default() -> Self {
        Self::new(Self::DEFAULT_CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_support::{at, sample};
    use proptest::prelude::*;
    use std::time::Duration;

    fn ring(samples: &[(u64, u64)]) -> SampleRing {
        let mut ring = SampleRing::default();
        for (ms, insert) in samples {
            ring.push(sample(*ms, *insert));
        }
        ring
    }

    #[test]
    fn an_idle_primary_counts_as_passed_until_its_newest_sample() {
        let ring = ring(&[(0, 100), (10, 200), (20, 200), (30, 200)]);
        assert_eq!(ring.len(), 2);
        assert_eq!(ring.newest(), Some(sample(30, 200)));
        let passed = |replay| ring.newest_passed(Lsn::new(replay), WalGeometry::default());
        assert_eq!(passed(200), Some(sample(30, 200)));
        assert_eq!(passed(199), Some(sample(0, 100)));
        assert_eq!(passed(99), None);
    }

    #[test]
    fn page_headers_do_not_hold_a_replica_back() {
        let ring = ring(&[(0, 100), (10, 8192 + 24)]);
        assert_eq!(ring.newest_passed(Lsn::new(8192), WalGeometry::default()), Some(sample(10, 8192 + 24)));
    }

    #[test]
    fn late_answers_are_ignored_and_clear_forgets() {
        let mut ring = ring(&[(10, 200), (5, 300)]);
        assert_eq!(ring.newest(), Some(sample(10, 200)));
        ring.clear();
        assert!(ring.is_empty());
        assert_eq!(ring.newest_passed(Lsn::new(u64::MAX), WalGeometry::default()), None);
    }

    #[test]
    fn a_fast_probe_does_not_push_the_past_out() {
        let mut ring = SampleRing::default();
        let end = 600_000;
        for ms in (0..=end).step_by(5) {
            ring.push(sample(ms, 1000 + ms * 10));
        }
        assert_eq!(ring.len(), SampleRing::DEFAULT_CAPACITY);
        for behind_ms in [0, 5, 20, 100, 1_000, 5_000, 20_000, 300_000] {
            let replay = Lsn::new(1000 + (end - behind_ms) * 10);
            let passed = ring.newest_passed(replay, WalGeometry::default()).unwrap();
            let lag = at(end) - passed.sent_at;
            let exact = Duration::from_millis(behind_ms);
            assert!(lag >= exact && lag <= exact.mul_f64(1.3), "{behind_ms} ms behind is seen as {lag:?}");
        }
    }

    proptest! {
        #[test]
        fn a_lag_is_never_too_small(
            steps in prop::collection::vec((0u64..50, 0u64..3), 1..300),
            capacity in 2usize..20,
            replay in 0u64..600,
        ) {
            let mut ring = SampleRing::new(capacity);
            let mut all = Vec::new();
            let (mut ms, mut insert) = (0, 0);
            for (wait, written) in steps {
                ms += wait;
                insert += written;
                all.push(sample(ms, insert));
                ring.push(sample(ms, insert));
                prop_assert!(ring.len() <= capacity);
                prop_assert_eq!(ring.newest(), all.last().copied());
            }
            let geometry = WalGeometry::default();
            let passed = ring.newest_passed(Lsn::new(replay), geometry);
            let exact = all.iter().rev().find(|s| s.insert.without_page_header(geometry) <= Lsn::new(replay));
            match (passed, exact) {
                (Some(passed), Some(exact)) => {
                    prop_assert!(passed.sent_at <= exact.sent_at);
                    prop_assert!(passed.insert.without_page_header(geometry) <= Lsn::new(replay));
                }
                (passed, _) => prop_assert_eq!(passed, None),
            }
            if insert <= replay {
                prop_assert_eq!(passed, all.last().copied());
            }
        }
    }
}
