//! The `health` section: when a host is given up, when it is trusted again, and how long a primary's role counts.

use std::time::Duration;

use super::{ProbeConfig, read::Reader, units::show_duration};

/// When hosts get requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// Consecutive failures after which a host is down; the first makes it suspect. At least 1.
    pub failures: u32,
    /// Consecutive answers after which a host that was down comes back. At least 1.
    pub successes: u32,
    /// The first quarantine of a host that flaps; each further one is twice as long.
    pub quarantine: Duration,
    /// The longest quarantine, and how long a host must stay up for its losses to be forgiven.
    pub quarantine_max: Duration,
    /// How long a host that came back takes to get its whole share of the reads.
    pub slow_start: Duration,
    /// A primary gets no writes once the last probe that confirmed its role was sent this long ago; above
    /// `probe.interval + probe.timeout`.
    pub lease: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            failures: 2,
            successes: 2,
            quarantine: Duration::from_secs(5),
            quarantine_max: Duration::from_secs(300),
            slow_start: Duration::from_secs(10),
            lease: Duration::from_secs(5),
        }
    }
}

/// Reads the section, and holds it against the probes' pace.
pub(super) fn health(reader: &mut Reader<'_>, probe: &ProbeConfig) -> HealthConfig {
    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    let default = HealthConfig::default();
    let read = HealthConfig {
        failures: reader.count("health.failures", default.failures, 1..=100),
        successes: reader.count("health.successes", default.successes, 1..=100),
        quarantine: reader.duration("health.quarantine", default.quarantine, Duration::ZERO..=HOUR),
        quarantine_max: reader.duration("health.quarantine_max", default.quarantine_max, SECOND..=24 * HOUR),
        slow_start: reader.duration("health.slow_start", default.slow_start, Duration::ZERO..=HOUR),
        lease: reader.duration("health.lease", default.lease, 100 * MS..=HOUR),
    };
    if read.quarantine > read.quarantine_max {
        let message = format!("{} is above health.quarantine_max; lower it", show_duration(read.quarantine));
        reader.problems.add("health.quarantine", message);
    }
    if read.lease <= probe.interval + probe.timeout {
        let message = format!(
            "{} is not above probe.interval ({}) + probe.timeout ({}): the role of a primary that is well would lapse \
             between two probes; raise it, or lower those",
            show_duration(read.lease),
            show_duration(probe.interval),
            show_duration(probe.timeout),
        );
        reader.problems.add("health.lease", message);
    }
    read
}
