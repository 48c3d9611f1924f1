//! What is counted of calls to databases that are being moved, and of rules by operation.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::Metrics;

/// The instruments.
pub(super) struct PlacementCounters {
    calls: Counter<u64>,
    rules: Counter<u64>,
}

impl PlacementCounters {
    pub(super) fn new(meter: &Meter) -> PlacementCounters {
        let counter = |name, help| meter.u64_counter(name).with_description(help).build();
        PlacementCounters {
            calls: counter("tidegate_rollout_calls", "Calls to a database that is being moved, by cluster and cause."),
            rules: counter("tidegate_rule_hits", "Reads that a rule by operation was applied to."),
        }
    }
}

impl Metrics {
    /// A call to a database that is being moved was given a cluster: a `write`; a read where it was `placed`, kept by a
    /// `position`, or with positions on `both` sides; or one for which no `follower` would do.
    pub fn placed(&self, database: &str, cluster: &str, why: &'static str) {
        let labels = [
            KeyValue::new("database", database.to_owned()),
            KeyValue::new("cluster", cluster.to_owned()),
            KeyValue::new("why", why),
        ];
        self.placement().calls.add(1, &labels);
    }

    /// A rule was applied to a read, which then went to the `primary`, or might go to `replicas`.
    pub fn ruled(&self, rule: &str, verdict: &'static str) {
        self.placement().rules.add(1, &[KeyValue::new("rule", rule.to_owned()), KeyValue::new("verdict", verdict)]);
    }
}
