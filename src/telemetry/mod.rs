//! Logs, metrics and traces. Owns what they are called and where they go; others say what happened. Nothing here
//! is global but the process's one log subscriber, and only if [`init`] is called.

mod active;
mod admission;
mod calls;
mod gauges;
mod health;
mod lanes;
mod logs;
mod metrics;
mod placement;
mod trace;
mod unknown;
mod waiting;

pub use active::ActiveGuard;
pub use admission::{AdmissionGauges, BudgetGauges, CallGauges, QueueGauges};
pub use gauges::{HostGauges, PoolGauges};
pub use health::{ClusterHealth, HealthMetrics, HostState};
pub use lanes::LaneGauges;
pub use logs::{LogFilter, LogFormat, TelemetryError, TelemetryGuard, TelemetrySettings, check_filter, init};
pub use metrics::{Metrics, RouteLabels};
pub use trace::{parent_from, parent_from_traceparent, request_span};
pub use waiting::WaitingGauges;
