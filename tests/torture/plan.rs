//! What the nemesis will do, and when: a pure function of the seed. Whom it hits is said by part ("the first replica"), since
//! a failover changes the parts.

use std::fmt;

use super::dice::Dice;

/// What may be done to the cluster and the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// One replica stops to apply what it receives.
    PauseReplay,
    /// All of them.
    PauseAllReplay,
    /// One replica applies late.
    DelayReplay,
    /// One replica is killed, and started again.
    KillReplica,
    /// One replica's processes are stopped: its connections stay, and nothing moves.
    FreezeReplica,
    /// One backend of a replica dies: the replica recovers, and is behind what it had shown.
    CrashReplica,
    /// Connections of brokers to one server are reset and refused.
    CutServer,
    /// They stay, and nothing comes through.
    SilenceServer,
    /// They are slow.
    SlowServer,
    /// The primary's processes are stopped for a while.
    FreezePrimary,
    /// The primary is killed and started again: the same timeline.
    RestartPrimary,
    /// The primary is killed, and the replica that has received the most is promoted.
    FailOver,
    /// The primary stops in order, a replica is promoted.
    SwitchOver,
    /// The primary is stopped, a replica promoted; then the old one goes on, a second primary.
    TwoPrimaries,
    /// A broker is stopped in order, and started again.
    RestartBroker,
    /// A broker is killed, and started again.
    KillBroker,
    /// A broker reads its configuration again: a host is gone from it, and comes back.
    Reload,
}

/// All of them.
pub const FAULTS: [Fault; 17] = [
    Fault::PauseReplay,
    Fault::PauseAllReplay,
    Fault::DelayReplay,
    Fault::KillReplica,
    Fault::FreezeReplica,
    Fault::CrashReplica,
    Fault::CutServer,
    Fault::SilenceServer,
    Fault::SlowServer,
    Fault::FreezePrimary,
    Fault::RestartPrimary,
    Fault::FailOver,
    Fault::SwitchOver,
    Fault::TwoPrimaries,
    Fault::RestartBroker,
    Fault::KillBroker,
    Fault::Reload,
];

/// One fault, and the calm after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub fault: Fault,
    /// Which of those that it may hit: taken modulo their number.
    pub whom: usize,
    /// How long it lasts, in milliseconds.
    pub lasts_ms: u64,
    /// How long all is left alone once everything has healed, in milliseconds.
    pub calm_ms: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}) {}+{} ms", self.fault, self.whom, self.lasts_ms, self.calm_ms)
    }
}

/// The steps of a seed, without end: every fault that is allowed once, in some order, then all again in another.
pub fn plan(seed: u64, allowed: impl Fn(Fault) -> bool) -> impl Iterator<Item = Step> {
    let mut dice = Dice::of(seed, 0);
    let mut faults: Vec<Fault> = FAULTS.into_iter().filter(|fault| allowed(*fault)).collect();
    std::iter::repeat_with(move || {
        dice.shuffle(&mut faults);
        let mut step = |fault| Step {
            fault,
            whom: dice.below(6) as usize,
            lasts_ms: dice.between(800, 2600),
            calm_ms: dice.between(1200, 2500),
        };
        faults.iter().copied().map(&mut step).collect::<Vec<_>>()
    })
    .flatten()
}
