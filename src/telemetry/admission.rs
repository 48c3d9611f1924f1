//! What admission shows: connections by use, queues with their length and age, calls that run, and who was sent away.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::{gauges::gauge, metrics::Metrics};

/// One use of a host's connections.
#[derive(Debug, Clone)]
pub struct QueueGauges {
    /// Such as `write`.
    pub usage: &'static str,
    /// Connections in use.
    pub in_use: usize,
    /// The most there may be.
    pub limit: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// How long the first of them has waited; None: nobody waits.
    pub oldest: Option<Duration>,
}

/// One host's connections.
#[derive(Debug, Clone)]
pub struct BudgetGauges {
    /// The cluster's name.
    pub cluster: String,
    /// The host's name.
    pub host: String,
    /// The most connections that calls may have.
    pub limit: usize,
    /// Open and unused.
    pub idle: usize,
    /// The rest, by use.
    pub uses: Vec<QueueGauges>,
}

/// One database's calls.
#[derive(Debug, Clone)]
pub struct CallGauges {
    /// The configured name.
    pub database: String,
    /// Those that run; counted while there are limits.
    pub running: usize,
    /// Those that wait for their turn.
    pub waiting: usize,
    /// How long the first of them has waited; None: nobody waits.
    pub oldest: Option<Duration>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct AdmissionGauges {
    /// By host.
    pub budgets: Vec<BudgetGauges>,
    /// By database.
    pub calls: Vec<CallGauges>,
}

/// Gives what is so now. Called at each scrape, several times: it must be cheap and must not block.
pub(super) type Source = Arc<dyn Fn() -> AdmissionGauges + Send + Sync>;

/// What one gauge takes of it.
type Pick = fn(&AdmissionGauges, &mut dyn FnMut(f64, &[KeyValue]));

impl Metrics {
    /// A caller was sent away from a queue (a use of connections, or `call`); `cause` is `full` or `age`.
    pub fn shed(&self, database: &str, queue: &'static str, cause: &'static str) {
        let database = KeyValue::new("database", database.to_owned());
        self.0.sheds.add(1, &[database, KeyValue::new("queue", queue), KeyValue::new("cause", cause)]);
    }

    /// Shows what `source` gives of admission, at each scrape. Call it once, as [`Metrics::observe`].
    pub fn observe_admission(&self, source: Arc<dyn Fn() -> AdmissionGauges + Send + Sync>) {
        register(&self.0.meter, &source);
    }
}

pub(super) fn sheds(meter: &Meter) -> Counter<u64> {
    let help = "Callers sent away because a queue was full, or too slow.";
    meter.u64_counter("tidegate_sheds").with_description(help).build()
}

/// Registers the gauges; up-down counters for the reason that `gauges` gives.
pub(super) fn register(meter: &Meter, source: &Source) {
    let gauges: [(&'static str, &'static str, Pick); 8] = [
        ("tidegate_budget_connections", "Connections of calls to a host, by use, and idle ones.", |all, put| {
            for budget in &all.budgets {
                budget.uses.iter().for_each(|of| put(of.in_use as f64, &use_labels(budget, of.usage)));
                put(budget.idle as f64, &use_labels(budget, "idle"));
            }
        }),
        ("tidegate_budget_limit", "The most connections to a host that calls may have.", |all, put| {
            all.budgets.iter().for_each(|budget| put(budget.limit as f64, &host_labels(budget)));
        }),
        ("tidegate_budget_share", "The most connections to a host that one use may have.", |all, put| {
            for budget in &all.budgets {
                budget.uses.iter().for_each(|of| put(of.limit as f64, &use_labels(budget, of.usage)));
            }
        }),
        ("tidegate_queue_waiting", "Callers that wait for a connection to a host, by use.", |all, put| {
            for budget in &all.budgets {
                budget.uses.iter().for_each(|of| put(of.waiting as f64, &use_labels(budget, of.usage)));
            }
        }),
        ("tidegate_queue_oldest_seconds", "How long the first of them has waited; 0: nobody waits.", |all, put| {
            for budget in &all.budgets {
                let age = |of: &QueueGauges| of.oldest.unwrap_or_default().as_secs_f64();
                budget.uses.iter().for_each(|of| put(age(of), &use_labels(budget, of.usage)));
            }
        }),
        ("tidegate_calls_running", "Calls that run on a database; counted while there are limits.", |all, put| {
            all.calls.iter().for_each(|calls| put(calls.running as f64, &database_labels(calls)));
        }),
        ("tidegate_calls_waiting", "Calls that wait for their turn to run.", |all, put| {
            all.calls.iter().for_each(|calls| put(calls.waiting as f64, &database_labels(calls)));
        }),
        ("tidegate_calls_oldest_seconds", "How long the first of them has waited; 0: nobody waits.", |all, put| {
            let age = |calls: &CallGauges| calls.oldest.unwrap_or_default().as_secs_f64();
            all.calls.iter().for_each(|calls| put(age(calls), &database_labels(calls)));
        }),
    ];
    for (name, help, pick) in gauges {
        let source = Arc::clone(source);
        gauge(meter, name, help, move |put| pick(&source(), put));
    }
}

fn host_labels(budget: &BudgetGauges) -> Vec<KeyValue> {
    vec![KeyValue::new("cluster", budget.cluster.clone()), KeyValue::new("host", budget.host.clone())]
}

fn use_labels(budget: &BudgetGauges, usage: &'static str) -> Vec<KeyValue> {
    let mut labels = host_labels(budget);
    labels.push(KeyValue::new("use", usage));
    labels
}

fn database_labels(calls: &CallGauges) -> Vec<KeyValue> {
    vec![KeyValue::new("database", calls.database.clone())]
}
