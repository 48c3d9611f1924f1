//! The `health` section: when a host is given up, when it is trusted again, and how long a primary's role counts.

use std::time::Duration;

use super::{ProbeConfig, read::Reader, units::show_duration};
use crate::model::HealthSettings;

/// When hosts get requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// The health machine's numbers.
    pub machine: HealthSettings,
    /// A primary gets no writes once the last probe that confirmed its role was sent this long ago; above
    /// `probe.interval + probe.timeout`.
    pub lease: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { machine: HealthSettings::default(), lease: Duration::from_secs(5) }
    }
}

/// Reads the section, and holds it against the probes' pace.
pub(super) fn health(reader: &mut Reader<'_>, probe: &ProbeConfig) -> HealthConfig {
    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    let HealthConfig { machine: default, lease } = HealthConfig::default();
    let machine = HealthSettings {
        failures: reader.count("health.failures", default.failures, 1..=100),
        successes: reader.count("health.successes", default.successes, 1..=100),
        quarantine: reader.duration("health.quarantine", default.quarantine, Duration::ZERO..=HOUR),
        quarantine_max: reader.duration("health.quarantine_max", default.quarantine_max, SECOND..=24 * HOUR),
        slow_start: reader.duration("health.slow_start", default.slow_start, Duration::ZERO..=HOUR),
    };
    if machine.quarantine > machine.quarantine_max {
        let message = format!("{} is above health.quarantine_max; lower it", show_duration(machine.quarantine));
        reader.problems.add("health.quarantine", message);
    }
    let lease = reader.duration("health.lease", lease, 100 * MS..=HOUR);
    if lease <= probe.interval + probe.timeout {
        let message = format!(
            "{} is not above probe.interval ({}) + probe.timeout ({}): the role of a primary that is well would lapse \
             between two probes; raise it, or lower those",
            show_duration(lease),
            show_duration(probe.interval),
            show_duration(probe.timeout),
        );
        reader.problems.add("health.lease", message);
    }
    HealthConfig { machine, lease }
}
