//! The clock: the one place that reads the time. Everything below the shells takes `now` as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The present moment of the monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is the shell that reads the clock for all others")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the Unix epoch, for times that travel between machines (position tokens).
#[allow(clippy::disallowed_methods, reason = "this is the shell that reads the clock for all others")]
pub fn unix_ms() -> u64 {
    // A clock before 1970 gives 0: positions then look old, and the floor of a fresh broker covers them.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
