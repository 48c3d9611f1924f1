//! Owns how long to wait between tries. Whether to try again is the caller's.

use std::time::Duration;

/// Exponential delays with full jitter: each is a random part of a bound that doubles, up to a maximum. Callers that
/// failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first delay is at most `base`, every one at most `max`.
    #[must_use]
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, attempt: 0 }
    }

    /// The next delay. `jitter` is the caller's randomness, from 0 to 1: the part of the bound to wait.
    pub fn next(&mut self, jitter: f64) -> Duration {
        // Beyond 31 doublings every base of a nanosecond and more exceeds two seconds; `min` does the rest.
        let bound = self.base.saturating_mul(1 << self.attempt.min(31)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        // NaN is read as the whole bound: the careful side.
        let part = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        Duration::try_from_secs_f64(bound.as_secs_f64() * part).unwrap_or(bound).min(bound)
    }

    /// How many delays were taken.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Begins again at the base, after a success.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_doubles_up_to_its_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(65));
        let delays: Vec<_> = (0..5).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 65, 65]);
        assert_eq!(backoff.attempt(), 5);
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(5));
    }

    proptest! {
        #[test]
        fn never_above_the_maximum(base: u64, max: u64, jitters in prop::collection::vec(any::<f64>(), 0..50)) {
            let max = Duration::from_nanos(max);
            let mut backoff = Backoff::new(Duration::from_nanos(base), max);
            for jitter in jitters {
                prop_assert!(backoff.next(jitter) <= max);
            }
        }
    }
}
