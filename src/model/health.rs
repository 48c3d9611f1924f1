//! Owns the health of one host as a state machine: what probes and passing errors make of it, and when. Whether a read
//! goes there is `route`'s.

use super::HostHealth;
use std::time::{Duration, Instant};

/// The health machine's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
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
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            failures: 2,
            successes: 2,
            quarantine: Duration::from_secs(5),
            quarantine_max: Duration::from_secs(300),
            slow_start: Duration::from_secs(10),
        }
    }
}

/// Something that says how a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthEvent {
    /// It answered a probe, as a primary or as a replica.
    Answered {
        /// A primary has no substitute: it is neither kept waiting nor quarantined. Its role is guarded elsewhere.
        as_primary: bool,
    },
    /// A probe failed, or had no answer in time.
    Failed,
    /// It is certain that the server is not there: nobody listens, or it says that it shuts down.
    Gone,
    /// Somebody else's connection failed or was lost: a hint, not a proof.
    Doubted,
    /// No other host is left: better this one than none.
    Pardoned,
}

/// A change of health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthChange {
    /// What it was.
    pub from: HostHealth,
    /// What it is now.
    pub to: HostHealth,
}

/// A time during which a host's share of the reads grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// When it came back.
    pub from: Instant,
    /// When it has its whole share.
    pub until: Instant,
}

impl Ramp {
    /// The percentage of its share that a host gets at `now`: 1 to 100.
    #[must_use]
    pub fn percent(self, now: Instant) -> u8 {
        let whole = self.until.saturating_duration_since(self.from).as_secs_f64();
        let passed = now.saturating_duration_since(self.from).as_secs_f64();
        if passed >= whole {
            return 100;
        }
        // Below 100, so it fits.
        ((passed / whole * 100.0) as u8).max(1)
    }
}

/// One host's health.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: State,
    /// Losses that were not forgiven: above one, the host flaps.
    losses: u32,
    /// Hints since the last answer.
    doubts: u32,
    up_since: Option<Instant>,
    ramp: Option<Ramp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Unknown,
    Up,
    Suspect {
        failures: u32,
    },
    Down {
        answers: u32,
    },
    Quarantined {
        until: Instant,
    },
}

impl Health {
    /// What it is now.
    #[must_use]
    pub const fn now(&self) -> HostHealth {
        match self.state {
            State::Unknown => HostHealth::Unknown,
            State::Up => HostHealth::Up,
            State::Suspect { .. } => HostHealth::Suspect,
            State::Down { .. } => HostHealth::Down,
            State::Quarantined { .. } => HostHealth::Quarantined,
        }
    }

    /// Until when it is kept from serving although it answers.
    #[must_use]
    pub const fn quarantined_until(&self) -> Option<Instant> {
        match self.state {
            State::Quarantined { until } => Some(until),
            _ => None,
        }
    }

    /// The slow start that it is in, or was in last.
    #[must_use]
    pub const fn ramp(&self) -> Option<Ramp> {
        self.ramp
    }

    /// Takes one event in. `None`: nothing changed.
    pub fn on(&mut self, event: HealthEvent, now: Instant, settings: &HealthSettings) -> Option<HealthChange> {
        let from = self.now();
        match event {
            HealthEvent::Answered { as_primary } => self.answered(as_primary, now, settings),
            HealthEvent::Failed => self.failed(1, now, settings),
            HealthEvent::Gone => self.failed(u32::MAX, now, settings),
            HealthEvent::Doubted => {
                self.doubts = self.doubts.saturating_add(1);
                // One is what any network loses; and a hint alone never takes a host down.
                if self.state == State::Up && self.doubts >= settings.failures.max(2) {
                    self.state = State::Suspect { failures: 0 };
                }
            }
            HealthEvent::Pardoned => {
                if let State::Quarantined { .. } = self.state {
                    self.come_up(now, settings);
                }
            }
        }
        let to = self.now();
        (from != to).then_some(HealthChange { from, to })
    }

    /// It takes no part, and gets nothing, whatever it answers: the server behind the name is not one of the cluster's.
    /// That is no loss. `None`: nothing changed.
    pub fn exclude(&mut self) -> Option<HealthChange> {
        let from = self.now();
        self.state = State::Down { answers: 0 };
        self.up_since = None;
        let to = self.now();
        (from != to).then_some(HealthChange { from, to })
    }

    fn answered(&mut self, as_primary: bool, now: Instant, settings: &HealthSettings) {
        self.doubts = 0;
        match self.state {
            State::Up => {}
            // At the start there is nothing to be careful about: it was never lost.
            State::Unknown => {
                self.state = State::Up;
                self.up_since = Some(now);
            }
            // It was never given up.
            State::Suspect { .. } => self.state = State::Up,
            State::Down { answers } => {
                let answers = answers + 1;
                if as_primary {
                    self.come_up(now, settings);
                } else if answers < settings.successes {
                    self.state = State::Down { answers };
                } else if let Some(length) = self.sentence(settings) {
                    self.state = State::Quarantined { until: now + length };
                } else {
                    self.come_up(now, settings);
                }
            }
            State::Quarantined { until } => {
                if as_primary || now >= until {
                    self.come_up(now, settings);
                }
            }
        }
    }

    fn failed(&mut self, weight: u32, now: Instant, settings: &HealthSettings) {
        let failures = match self.state {
            State::Up => weight,
            State::Suspect { failures } => failures.saturating_add(weight),
            State::Unknown | State::Down { .. } => return self.state = State::Down { answers: 0 },
            // It is on trial.
            State::Quarantined { .. } => u32::MAX,
        };
        if failures < settings.failures {
            self.state = State::Suspect { failures };
            return;
        }
        let forgiven =
            self.up_since.is_some_and(|since| now.saturating_duration_since(since) >= settings.quarantine_max);
        self.losses = if forgiven { 1 } else { self.losses.saturating_add(1) };
        self.state = State::Down { answers: 0 };
        self.up_since = None;
    }

    fn come_up(&mut self, now: Instant, settings: &HealthSettings) {
        self.state = State::Up;
        self.up_since = Some(now);
        self.ramp = Some(Ramp { from: now, until: now + settings.slow_start });
    }

    /// How long it has to wait before it serves again. Being lost once is no flapping.
    fn sentence(&self, settings: &HealthSettings) -> Option<Duration> {
        let doublings = self.losses.checked_sub(2)?;
        let length = 2_u32.checked_pow(doublings).and_then(|factor| settings.quarantine.checked_mul(factor));
        Some(length.unwrap_or(settings.quarantine_max).min(settings.quarantine_max)).filter(|length| !length.is_zero())
    }
}
