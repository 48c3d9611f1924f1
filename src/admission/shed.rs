//! Why a caller is sent away instead of waiting on, and when it may come back.

use std::time::Duration;

/// No caller is told to come back sooner, or later.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A caller that is sent away; nothing was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// More callers wait than the queue may hold.
    #[error("{waiting} callers wait for {place} already (at most {limit} may)")]
    Full {
        /// What they wait for, in words.
        place: &'static str,
        /// Callers waiting.
        waiting: usize,
        /// The bound.
        limit: usize,
        /// How long the first of them has waited.
        oldest: Duration,
    },
    /// It has waited for as long as anybody may.
    #[error("no place for {place} became free within {} s (pool.max_queue_age)", waited.as_secs_f64())]
    Aged {
        /// What it waited for, in words.
        place: &'static str,
        /// The bound.
        waited: Duration,
    },
}

impl Shed {
    /// For metric labels.
    pub fn cause(&self) -> &'static str {
        match self {
            Shed::Full { .. } => "full",
            Shed::Aged { .. } => "age",
        }
    }

    /// The wait before a retry, before jitter: about what those in line wait now.
    pub fn retry_after(&self) -> Duration {
        let wait = match self {
            Shed::Full { oldest, .. } => *oldest,
            Shed::Aged { waited, .. } => *waited,
        };
        wait.clamp(RETRY_MIN, RETRY_MAX)
    }
}
