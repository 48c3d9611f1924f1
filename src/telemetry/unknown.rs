//! What is counted of writes whose outcome nobody could tell.

use opentelemetry::metrics::{Counter, Meter, UpDownCounter};

use super::{ActiveGuard, Metrics};

/// The instruments.
pub(super) struct UnknownOutcomes {
    all: Counter<u64>,
    watched: UpDownCounter<i64>,
}

impl UnknownOutcomes {
    pub(super) fn new(meter: &Meter) -> UnknownOutcomes {
        let (all, watched) =
            ("Writes whose outcome is unknown.", "Sessions kept on the primary by one that may still end.");
        UnknownOutcomes {
            all: meter.u64_counter("tidegate_unknown_outcomes").with_description(all).build(),
            watched: meter.i64_up_down_counter("tidegate_unknown_watched").with_description(watched).build(),
        }
    }
}

impl Metrics {
    /// A write ended with an unknown outcome.
    pub fn unknown_outcome(&self) {
        self.unknown_outcomes().all.add(1, &[]);
    }

    /// It may still end, and its session reads from the primary, until the guard is dropped.
    #[must_use = "it counts until it is dropped"]
    pub fn unknown_watched(&self) -> ActiveGuard {
        ActiveGuard::new(&self.unknown_outcomes().watched)
    }
}
