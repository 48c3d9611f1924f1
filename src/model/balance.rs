//! Owns how the hosts that may take a call share the calls: by weight, in turns or by what they have in hand. Which hosts
//! may take it is `route`'s. Its counts are atomics that a broker keeps for each cluster; nothing waits for another.

use super::{HostHealth, HostId, HostSet, HostView};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// How a host is chosen among those that may take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BalancePolicy {
    /// They take turns, each as often as its weight says.
    #[default]
    RoundRobin,
    /// Of the one whose turn it is and another drawn at random, the one that has fewer calls in hand for its weight.
    LeastLoaded,
}

/// What the configuration says of a host's part in its cluster's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its part of the calls, beside the others'; 0: only when nothing else will do.
    pub weight: u16,
    /// Whether it is in the broker's own zone, or zones do not matter.
    pub is_near: bool,
    /// Hosts of a lower number come first: an SRV record's priority.
    pub priority: u16,
}

impl Place {
    /// The weight of a host of which nothing else is said.
    pub const DEFAULT_WEIGHT: u16 = 100;
    /// The largest weight.
    pub const WEIGHT_MAX: u16 = 1000;
}

impl Default for Place {
    fn default() -> Self {
        Self { weight: Self::DEFAULT_WEIGHT, is_near: true, priority: 0 }
    }
}

/// Hosts of a later tier take a call only when none of an earlier one may: those that are up first, then those that may
/// be failing; of these and those, of each priority the own zone's first, then other zones', and those of weight 0 last of
/// all.
pub(super) const fn tier(host: &HostView) -> u32 {
    /// Behind every priority in every zone.
    const LAST: u32 = 2 << u16::BITS;
    let Place { weight, is_near, priority } = host.place;
    let place = if weight == 0 { LAST } else { priority as u32 * 2 + !is_near as u32 };
    let may_be_failing = !matches!(host.health, HostHealth::Up);
    may_be_failing as u32 * (LAST + 1) + place
}

/// A host's part of its tier's calls, at least 1: less than its weight says while it has come back a short time ago. Those
/// of weight 0 share evenly.
fn share(host: &HostView, now: Instant) -> u32 {
    let weight = if host.place.weight == 0 { Place::DEFAULT_WEIGHT } else { host.place.weight };
    // In hundredths, so that equal hosts stay equal.
    u32::from(weight) * u32::from(host.ramp(now)).max(1)
}

/// How the calls of one cluster are shared, and the counts that this rests on. Calls on different threads disturb each
/// other only by the order in which they count.
#[derive(Debug)]
pub struct Balance {
    policy: BalancePolicy,
    turns: Turns,
    in_flight: [AtomicU32; HostSet::CAPACITY],
}

impl Balance {
    /// Nothing was chosen yet.
    #[must_use]
    pub fn new(policy: BalancePolicy) -> Self {
        Self { policy, turns: Turns::new(), in_flight: [const { AtomicU32::new(0) }; HostSet::CAPACITY] }
    }

    /// Counts a call as in flight at a host until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, host: HostId) -> InFlight {
        if let Some(count) = self.in_flight.get(host.index()) {
            count.fetch_add(1, Relaxed);
        }
        InFlight { balance: Arc::clone(self), host }
    }

    /// The calls in flight at a host, over all databases.
    #[must_use]
    pub fn in_flight(&self, host: HostId) -> u32 {
        self.in_flight.get(host.index()).map_or(0, |count| count.load(Relaxed))
    }

    /// Chooses among the hosts that `may_take` the call, and takes the turn. Allocates nothing.
    pub(super) fn pick(
        &self,
        hosts: &[HostView],
        now: Instant,
        may_take: impl Fn(&HostView) -> bool,
    ) -> Option<HostId> {
        let (mut set, mut best) = (HostSet::EMPTY, u32::MAX);
        let mut shares = Shares::default();
        for host in hosts.iter().filter(|host| host.id.index() < HostSet::CAPACITY && may_take(host)) {
            let tier = tier(host);
            if tier < best {
                (set, shares, best) = (HostSet::EMPTY, Shares::default(), tier);
            }
            if tier == best {
                set = set.with(host.id);
                shares.add(share(host, now));
            }
        }
        if shares.count == 0 {
            return None;
        }
        let candidates = || {
            let of_the_set = hosts.iter().filter(|host| set.contains(host.id));
            of_the_set.map(|host| Candidate { id: host.id, share: share(host, now) })
        };
        let turn = self.turns.next(set);
        let (index, first) = whose_turn(candidates(), &shares, turn)?;
        let count = shares.count;
        if self.policy == BalancePolicy::LeastLoaded && count > 1 {
            let others = index as u64 + 1 + scatter(turn.count) % (count - 1);
            let second = candidates().nth((others % count) as usize)?;
            if self.is_less_loaded(second, first) {
                return Some(second.id);
            }
        }
        Some(first.id)
    }

    /// Whether `second` would have no more in hand for its share with this call than `first` has without. Between equal
    /// hosts: whether it has less. So idle hosts keep their turns, and a light one is not taken for idle beside a heavy one.
    fn is_less_loaded(&self, second: Candidate, first: Candidate) -> bool {
        let with_this = u64::from(self.in_flight(second.id)) + 1;
        with_this * u64::from(first.share) <= u64::from(self.in_flight(first.id)) * u64::from(second.share)
    }
}

/// A host that may take the call at hand, and its part of such calls.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: HostId,
    share: u32,
}

/// The shares of all candidates.
#[derive(Debug, Default)]
struct Shares {
    count: u64,
    total: u64,
    last: u32,
    differ: bool,
}

impl Shares {
    fn add(&mut self, share: u32) {
        self.differ |= self.count > 0 && share != self.last;
        self.count += 1;
        self.total += u64::from(share);
        self.last = share;
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self::new(BalancePolicy::default())
    }
}

/// One call at one host, from the choice until its answer has ended.
#[derive(Debug)]
pub struct InFlight {
    balance: Arc<Balance>,
    host: HostId,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(count) = self.balance.in_flight.get(self.host.index()) {
            count.fetch_sub(1, Relaxed);
        }
    }
}

/// The turns taken by each set of hosts. One count for all sets would not be fair: when calls that only some hosts may take
/// alternate with others, each kind would see every second number, and of two hosts always the same one.
#[derive(Debug)]
struct Turns {
    counts: Box<[AtomicU64; Turns::OWN + Turns::SHARED]>,
}

/// A call's place among those that the same hosts could take.
#[derive(Debug, Clone, Copy)]
struct Turn {
    count: u64,
    /// Whether no other set of hosts moves the count.
    is_own: bool,
}

impl Turns {
    /// Every set of a cluster's first 8 hosts has a count of its own.
    const OWN: usize = 256;
    /// Sets with a later host share these.
    const SHARED: usize = 256;

    fn new() -> Self {
        Self { counts: Box::new([const { AtomicU64::new(0) }; Self::OWN + Self::SHARED]) }
    }

    fn next(&self, set: HostSet) -> Turn {
        let bits = set.bits();
        let own = usize::try_from(bits).ok().filter(|bits| *bits < Self::OWN);
        let index = own.unwrap_or_else(|| Self::OWN + scatter(bits) as usize % Self::SHARED);
        Turn { count: self.counts[index].fetch_add(1, Relaxed), is_own: own.is_some() }
    }
}

/// Whose turn it is, and its index among the candidates. Hosts with equal shares go round. Otherwise the shares are
/// stretches of a circle that is walked in steps of the golden ratio: however long the walk, and whichever regular part of
/// its steps is looked at, each stretch is met as often as its length says, within a few steps; and a heavy host's turns lie
/// apart.
fn whose_turn(candidates: impl Iterator<Item = Candidate>, shares: &Shares, turn: Turn) -> Option<(usize, Candidate)> {
    const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut candidates = candidates.enumerate();
    if !shares.differ && turn.is_own {
        return candidates.nth((turn.count % shares.count) as usize);
    }
    let angle = turn.count.wrapping_mul(GOLDEN_RATIO);
    let mut left = ((u128::from(angle) * u128::from(shares.total)) >> 64) as u64;
    // It lies below the total, so on somebody's stretch.
    candidates.find(|(_, candidate)| {
        let is_here = left < candidate.share.into();
        left = left.saturating_sub(candidate.share.into());
        is_here
    })
}

/// Spreads neighbouring numbers over all of 64 bits (the finaliser of MurmurHash3, with Stafford's constants).
const fn scatter(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
