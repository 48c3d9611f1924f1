//! Gauges of those who wait for a primary, read when somebody looks.

use std::{sync::Arc, time::Duration};

use opentelemetry::{KeyValue, metrics::Meter};

use super::gauges::gauge;

/// Who waits for a primary of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingGauges {
    /// The cluster's name.
    pub cluster: String,
    /// `read` or `write`.
    pub kind: &'static str,
    /// How many calls.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest: Duration,
}

/// Gives them as they are now; cheap, and never blocks.
pub(super) type Source = Arc<dyn Fn() -> Vec<WaitingGauges> + Send + Sync>;

/// What one gauge takes from them.
type Pick = fn(&WaitingGauges) -> f64;

/// Registers the gauges: up-down counters to OpenTelemetry, as those of the hosts are.
pub(super) fn register(meter: &Meter, source: &Source) {
    let gauges: [(&'static str, &'static str, Pick); 2] = [
        ("tidegate_primary_waiting", "Calls that wait for a primary.", |gauges| gauges.waiting as f64),
        (
            "tidegate_primary_waiting_oldest_seconds",
            "How long the first of the calls that wait for a primary has waited.",
            |gauges| gauges.oldest.as_secs_f64(),
        ),
    ];
    for (name, help, value) in gauges {
        let source = Arc::clone(source);
        gauge(meter, name, help, move |put| {
            for gauges in source() {
                let labels = [KeyValue::new("cluster", gauges.cluster.clone()), KeyValue::new("kind", gauges.kind)];
                put(value(&gauges), &labels);
            }
        });
    }
}
