//! Owns the small numbers that stand for clusters and hosts, and sets of hosts.

/// A configured cluster, by its number in the broker. No other cluster ever gets the number; one that is configured again
/// by the same name gets it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u32);

impl ClusterId {
    /// The cluster of that number.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A host, by its place within its cluster. A place may be taken by another host once it was left, which is then another
/// id: what was said of the former occupant never holds for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId {
    place: u16,
    occupant: u32,
}

impl HostId {
    /// The first host at that place of its cluster.
    #[must_use]
    pub const fn new(place: u16) -> Self {
        Self { place, occupant: 0 }
    }

    /// The next host at the same place.
    #[must_use]
    pub const fn next_occupant(self) -> Self {
        Self { place: self.place, occupant: self.occupant.wrapping_add(1) }
    }

    /// Its place within its cluster: no two hosts have the same at a time.
    #[must_use]
    pub const fn index(self) -> usize {
        self.place as usize
    }

    /// How many hosts had the place before it.
    #[must_use]
    pub const fn occupant(self) -> u32 {
        self.occupant
    }
}

/// A set of hosts of one cluster: those that a call has tried already. Holds the first [`HostSet::CAPACITY`] hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostSet(u64);

impl HostSet {
    /// The set of no host.
    pub const EMPTY: Self = Self(0);

    /// How many hosts of a cluster can be told apart; the configuration allows no more.
    pub const CAPACITY: usize = 64;

    /// The set with `host` added. A host beyond the capacity cannot be held and is left out.
    #[must_use]
    pub const fn with(self, host: HostId) -> Self {
        if host.index() < Self::CAPACITY { Self(self.0 | 1 << host.index()) } else { self }
    }

    /// The set with `host` taken out.
    #[must_use]
    pub const fn without(self, host: HostId) -> Self {
        if host.index() < Self::CAPACITY { Self(self.0 & !(1 << host.index())) } else { self }
    }

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The hosts in the set.
    pub fn iter(self) -> impl Iterator<Item = HostId> {
        (0..Self::CAPACITY as u16).map(HostId::new).filter(move |host| self.contains(*host))
    }

    /// Whether `host` is in the set.
    #[must_use]
    pub const fn contains(self, host: HostId) -> bool {
        host.index() < Self::CAPACITY && self.0 >> host.index() & 1 == 1
    }

    /// A bit for each host of the set, by its index.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether no host is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many hosts are in the set.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_added() {
        let set = HostSet::EMPTY.with(HostId::new(0)).with(HostId::new(63)).with(HostId::new(63)).with(HostId::new(64));
        assert!(set.contains(HostId::new(0)) && set.contains(HostId::new(63)));
        assert!(!set.contains(HostId::new(1)) && !set.contains(HostId::new(64)) && !set.contains(HostId::new(128)));
        assert_eq!(set.len(), 2);
        assert_eq!(set.without(HostId::new(0)).without(HostId::new(5)).iter().collect::<Vec<_>>(), [HostId::new(63)]);
        assert_eq!(set.without(HostId::new(0)).union(set), set);
        assert!(HostSet::EMPTY.is_empty() && !set.is_empty());
    }
}
