//! What lanes show: the reads that they answered, those that left them and why, statements that were demoted, and what is in
//! flight. Counted where it happens, and read when somebody looks.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use super::{gauges::gauge, metrics::Metrics};

/// One database's lanes.
#[derive(Debug, Clone)]
pub struct LaneGauges {
    /// The configured name.
    pub database: String,
    /// Reads answered so far.
    pub answered: u64,
    /// Reads that were to go on a lane and ran elsewhere, by the reason.
    pub left: Vec<(&'static str, u64)>,
    /// Statements that may not go on lanes for a while, by the reason.
    pub demotions: Vec<(&'static str, u64)>,
    /// Lanes to all hosts.
    pub lanes: usize,
    /// Reads in flight on them.
    pub in_flight: usize,
    /// Reads that wait for a place.
    pub waiting: usize,
}

/// Gives them as they are now; cheap, and never blocks.
type Source = Arc<dyn Fn() -> Vec<LaneGauges> + Send + Sync>;

/// What one instrument takes of them.
type Pick<T> = fn(&LaneGauges, &mut dyn FnMut(T, Option<KeyValue>));

impl Metrics {
    /// Shows what `source` gives of lanes, at each scrape. Call it once.
    pub fn observe_lanes(&self, source: Arc<dyn Fn() -> Vec<LaneGauges> + Send + Sync>) {
        register(&self.0.meter, &source);
    }
}

fn register(meter: &Meter, source: &Source) {
    let counters: [(&'static str, &'static str, Pick<u64>); 3] = [
        ("tidegate_lane_reads", "Reads answered on lanes.", |of, put| put(of.answered, None)),
        ("tidegate_lane_reads_left", "Reads that ran on a connection of their own instead, by why.", |of, put| {
            of.left.iter().for_each(|(why, count)| put(*count, Some(KeyValue::new("reason", *why))));
        }),
        ("tidegate_lane_demotions", "Statements kept away from lanes for a while, by why.", |of, put| {
            of.demotions.iter().for_each(|(why, count)| put(*count, Some(KeyValue::new("reason", *why))));
        }),
    ];
    for (name, help, pick) in counters {
        let source = Arc::clone(source);
        let counter = meter.u64_observable_counter(name).with_description(help);
        let shown = move |instrument: &dyn AsyncInstrument<u64>| {
            observe(&source, pick, &mut |value, labels| instrument.observe(value, labels));
        };
        counter.with_callback(shown).build();
    }
    let gauges: [(&'static str, &'static str, Pick<f64>); 3] = [
        ("tidegate_lanes", "Connections that are lanes.", |of, put| put(of.lanes as f64, None)),
        ("tidegate_lane_reads_in_flight", "Reads in flight on lanes.", |of, put| put(of.in_flight as f64, None)),
        ("tidegate_lane_reads_waiting", "Reads that wait for a place on a lane.", |of, put| {
            put(of.waiting as f64, None)
        }),
    ];
    for (name, help, pick) in gauges {
        let source = Arc::clone(source);
        gauge(meter, name, help, move |put| observe(&source, pick, put));
    }
}

fn observe<T>(source: &Source, pick: Pick<T>, put: &mut dyn FnMut(T, &[KeyValue])) {
    for of in source() {
        let database = KeyValue::new("database", of.database.clone());
        pick(&of, &mut |value, label| {
            let labels: Vec<_> = std::iter::once(database.clone()).chain(label).collect();
            put(value, &labels);
        });
    }
}
