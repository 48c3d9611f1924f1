//! Owns the one deadline of a call: queue, wait, run and stream all draw on it.

use std::time::{Duration, Instant};

/// Stands for "no deadline" where the clock cannot hold the sum.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The moment by which a call must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `timeout` after `now`; ten years when the clock cannot hold that.
    #[must_use]
    pub fn after(now: Instant, timeout: Duration) -> Self {
        Self(now.checked_add(timeout.min(FAR)).unwrap_or(now))
    }

    /// The deadline at `instant`.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// What is left of it; zero once it is over.
    #[must_use]
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_over(self, now: Instant) -> bool {
        now >= self.0
    }

    /// The moment itself.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// The earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Ord::min(self, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_support::origin;

    #[test]
    fn a_deadline_runs_out() {
        let now = origin();
        let deadline = Deadline::after(now, Duration::from_secs(2));
        assert_eq!(deadline.remaining(now + Duration::from_secs(1)), Duration::from_secs(1));
        assert!(!deadline.is_over(now + Duration::from_millis(1999)));
        assert!(deadline.is_over(now + Duration::from_secs(2)));
        assert_eq!(deadline.remaining(now + Duration::from_secs(3)), Duration::ZERO);
        assert_eq!(deadline.min(Deadline::at(now)).instant(), now);
        assert!(!Deadline::after(now, Duration::MAX).is_over(now + Duration::from_secs(1 << 20)));
    }
}
