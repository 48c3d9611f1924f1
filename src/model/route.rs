//! Owns the choice of a host for one call. A decision is a value with its reason; nothing here waits, connects or
//! retries.

mod standing;

use super::{Balance, Binding, ClusterView, Consistency, HostId, HostSet, HostView, Lsn};
use std::time::{Duration, Instant};

pub use standing::{Account, Standing, account_for_read, account_for_write};

/// Why a call went where it went. The names are those of the API's `RouteReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteReason {
    /// Nothing bound it: any healthy replica.
    NoPosition,
    /// A replica that has replayed the required position.
    CaughtUp,
    /// As `CaughtUp`, after waiting for it.
    Waited,
    /// Its positions had expired: any healthy replica.
    PositionExpired,
    /// The primary: no replica was fresh enough.
    Behind,
    /// The primary: no replica is up.
    NoReplica,
    /// The primary, as asked for.
    Strong,
    /// The primary: what it must see is not known.
    PositionUnknown,
    /// All that a failover or a crash left of its position; the rest may be lost.
    PositionMayBeLost,
    /// A configured rule.
    Rule,
    /// A write, so the primary.
    Write,
}

impl RouteReason {
    /// Its name in the API without the prefix: for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPosition => "NO_POSITION",
            Self::CaughtUp => "CAUGHT_UP",
            Self::Waited => "WAITED",
            Self::PositionExpired => "POSITION_EXPIRED",
            Self::Behind => "BEHIND",
            Self::NoReplica => "NO_REPLICA",
            Self::Strong => "STRONG",
            Self::PositionUnknown => "POSITION_UNKNOWN",
            Self::PositionMayBeLost => "POSITION_MAY_BE_LOST",
            Self::Rule => "RULE",
            Self::Write => "WRITE",
        }
    }
}

/// Why no host will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// No host of the cluster is up.
    NoHostsAvailable,
    /// Hosts are up, but the call needs the primary and there is none (left to try).
    NoPrimaryAvailable,
    /// The call needs the primary, and several hosts claim to be it on one timeline.
    PrimaryConflict,
}

impl Rejection {
    /// The stable reason of the failure that the caller gets.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHostsAvailable => "NO_HOSTS_AVAILABLE",
            Self::NoPrimaryAvailable => "NO_PRIMARY_AVAILABLE",
            Self::PrimaryConflict => "PRIMARY_CONFLICT",
        }
    }
}

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// To this host.
    Send {
        /// The host.
        host: HostId,
        /// Why.
        reason: RouteReason,
        /// What the read must see there, when a position bound it.
        required: Option<Lsn>,
    },
    /// Nowhere yet: a replica may become fresh enough.
    Wait {
        /// What it must replay, when a position binds the read.
        lsn: Option<Lsn>,
        /// Until when to wait for that.
        until: Instant,
    },
    /// Nowhere.
    Reject(Rejection),
}

/// One read to route.
#[derive(Debug, Clone, Copy)]
pub struct RouteRequest<'a> {
    /// What it asks for.
    pub consistency: &'a Consistency,
    /// What binds it, see [`super::bind`]. Only session and causal reads heed it.
    pub binding: Binding,
    /// Hosts tried already.
    pub exclude: HostSet,
    /// How the replicas that may take it share such calls.
    pub balance: &'a Balance,
    /// The time.
    pub now: Instant,
    /// A replica further behind takes no reads.
    pub max_lag: Duration,
    /// A replica with more bytes of WAL to replay takes no reads.
    pub max_lag_bytes: Option<u64>,
    /// Until when to wait for a replica that is fresh enough, if one is up; None: not at all.
    pub wait_until: Option<Instant>,
}

/// Chooses the host for a read: a replica that is fresh enough, or else the primary. Allocates nothing.
#[must_use]
pub fn route(view: &ClusterView, request: &RouteRequest<'_>) -> Decision {
    let (required, on_replica) = match Aim::of(request) {
        Aim::Nowhere => return nowhere(view),
        Aim::Primary(reason) => return to_primary(view, request.exclude, reason, None),
        Aim::Replica { required, reason } => (required, reason),
    };
    let gate = Gate::new(view, request, required);
    // One that may be failing is better than the primary, and worse than any that is up.
    if let Some(host) = request.balance.pick(&view.hosts, request.now, |host| gate.admits(host)) {
        return Decision::Send { host, reason: on_replica, required };
    }
    let left = view.hosts.iter().any(|host| host.is_usable_replica() && !request.exclude.contains(host.id));
    if left && let Some(until) = request.wait_until.filter(|until| request.now < *until) {
        return Decision::Wait { lsn: required, until };
    }
    let reason = match (on_replica, left) {
        (RouteReason::PositionMayBeLost, _) => RouteReason::PositionMayBeLost,
        (_, true) => RouteReason::Behind,
        (_, false) => RouteReason::NoReplica,
    };
    to_primary(view, request.exclude, reason, required)
}

/// Chooses the host for a write: the primary.
#[must_use]
pub fn route_write(view: &ClusterView, exclude: HostSet) -> Decision {
    to_primary(view, exclude, RouteReason::Write, None)
}

fn to_primary(view: &ClusterView, exclude: HostSet, reason: RouteReason, required: Option<Lsn>) -> Decision {
    match view.primary_host() {
        Some(host) if !exclude.contains(host.id) => Decision::Send { host: host.id, reason, required },
        _ => nowhere(view),
    }
}

fn nowhere(view: &ClusterView) -> Decision {
    let any_usable = view.hosts.iter().any(|host| host.health.is_usable());
    Decision::Reject(match view.conflict {
        true => Rejection::PrimaryConflict,
        false if any_usable => Rejection::NoPrimaryAvailable,
        false => Rejection::NoHostsAvailable,
    })
}

/// What a read is after.
enum Aim {
    /// The primary alone.
    Primary(RouteReason),
    /// A replica that has replayed this, or else the primary.
    Replica { required: Option<Lsn>, reason: RouteReason },
    /// A history that is not known here.
    Nowhere,
}

impl Aim {
    fn of(request: &RouteRequest<'_>) -> Self {
        let heeded = if request.consistency.heeds_positions() { request.binding } else { Binding::NoPosition };
        if *request.consistency == Consistency::Strong {
            return Self::Primary(RouteReason::Strong);
        }
        let (required, reason) = match heeded {
            Binding::Ahead => return Self::Nowhere,
            Binding::PrimaryOnly => return Self::Primary(RouteReason::PositionUnknown),
            Binding::NoPosition => (None, RouteReason::NoPosition),
            Binding::Expired => (None, RouteReason::PositionExpired),
            Binding::At { lsn, may_be_lost: false } => (Some(lsn), RouteReason::CaughtUp),
            Binding::At { lsn, may_be_lost: true } => (Some(lsn), RouteReason::PositionMayBeLost),
        };
        Self::Replica { required, reason }
    }
}

/// What a replica must fulfil to take one read.
struct Gate<'a> {
    view: &'a ClusterView,
    exclude: HostSet,
    /// What it must have replayed, of the cluster's history.
    required: Option<Lsn>,
    freshness: Freshness,
}

enum Freshness {
    /// It has passed a sample asked for at this moment or later; `None`: any sample, the clock is younger than the
    /// limit.
    PassedSince(Option<Instant>),
    /// It has passed the last sample: how old that is nobody can say, but nothing acknowledged is known beyond.
    PassedLast,
    /// Without a primary no bound on the staleness can be shown; without a sample none in bytes.
    Unprovable,
}

impl<'a> Gate<'a> {
    fn new(view: &'a ClusterView, request: &RouteRequest<'_>, required: Option<Lsn>) -> Self {
        let freshness = match *request.consistency {
            Consistency::Bounded { max_staleness } if view.primary_reachable => {
                Freshness::PassedSince(request.now.checked_sub(max_staleness.min(request.max_lag)))
            }
            Consistency::Bounded { .. } => Freshness::Unprovable,
            _ if view.primary_reachable => Freshness::PassedSince(request.now.checked_sub(request.max_lag)),
            _ => Freshness::PassedLast,
        };
        let gate = Self { view, exclude: request.exclude, required, freshness };
        match (request.max_lag_bytes, view.newest_sample) {
            (None, _) => gate,
            (Some(_), None) => Self { freshness: Freshness::Unprovable, ..gate },
            (Some(most), Some(newest)) => {
                let least = view.end_of_records(newest.insert).get().saturating_sub(most);
                Self { required: required.max(Some(Lsn::new(least))), ..gate }
            }
        }
    }

    fn admits(&self, host: &HostView) -> bool {
        host.is_usable_replica() && !self.exclude.contains(host.id) && self.is_fresh(host) && self.has_replayed(host)
    }

    fn is_fresh(&self, host: &HostView) -> bool {
        match self.freshness {
            Freshness::PassedSince(oldest) => self.view.passed_sample_at(host).is_some_and(|at| Some(at) >= oldest),
            Freshness::PassedLast => host.passed_last_sample,
            Freshness::Unprovable => false,
        }
    }

    /// An LSN says nothing about a host that is not proved to be on the history it belongs to.
    fn has_replayed(&self, host: &HostView) -> bool {
        let Some(required) = self.required else { return true };
        self.view.history.is_some_and(super::HistoryId::is_comparable)
            && host.history == self.view.history
            && host.replay.is_some_and(|replay| replay >= required)
    }
}
