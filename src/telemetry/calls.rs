//! What is counted and timed of every call, and so must cost next to nothing: plain Prometheus instruments, which find
//! what they count into by labels that are borrowed. OpenTelemetry's own copy, sort and hash them at each count.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::metrics::{Metrics, RouteLabels};

/// Upper bounds of the duration histograms' buckets, in seconds.
const DURATION_BUCKETS_SECONDS: [f64; 17] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The instruments.
pub(super) struct CallMetrics {
    routes: IntCounterVec,
    requests: HistogramVec,
    waits: HistogramVec,
}

impl CallMetrics {
    /// Makes and registers them.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<CallMetrics> {
        let seconds = |name, help, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(DURATION_BUCKETS_SECONDS.to_vec()), labels)
        };
        let calls = CallMetrics {
            routes: IntCounterVec::new(
                Opts::new("tidegate_routes_total", "Statements sent to a host, by the reason for it."),
                &["database", "cluster", "host", "role", "reason"],
            )?,
            requests: seconds(
                "tidegate_request_duration_seconds",
                "From a request's arrival to its last message.",
                &["method", "code"],
            )?,
            waits: seconds(
                "tidegate_wait_duration_seconds",
                "Waiting for a connection, a place on a lane, a turn to run, a replica to catch up, or a primary.",
                &["what"],
            )?,
        };
        registry.register(Box::new(calls.routes.clone()))?;
        registry.register(Box::new(calls.requests.clone()))?;
        registry.register(Box::new(calls.waits.clone()))?;
        Ok(calls)
    }
}

impl Metrics {
    /// A statement was sent to a host.
    pub fn route(&self, labels: &RouteLabels<'_>) {
        let RouteLabels { database, cluster, host, role, reason } = *labels;
        self.0.calls.routes.with_label_values(&[database, cluster, host, role, reason]).inc();
    }

    /// A request ended, with a gRPC code such as `OK` or `DEADLINE_EXCEEDED`.
    pub fn request(&self, method: &'static str, code: &'static str, duration: Duration) {
        self.0.calls.requests.with_label_values(&[method, code]).observe(duration.as_secs_f64());
    }

    /// A request waited for something: `connection`, `lane`, `turn`, `replay` or `primary`.
    pub fn waited(&self, what: &'static str, duration: Duration) {
        self.0.calls.waits.with_label_values(&[what]).observe(duration.as_secs_f64());
    }
}
