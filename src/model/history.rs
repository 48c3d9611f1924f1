//! Owns the histories of all clusters: which timelines followed each other and where, and so what a position of one
//! means in another. LSNs are compared within one history only.

use super::{ClusterId, Lsn, Timeline};
use std::sync::Arc;

/// A broker-wide number for a history: a timeline of a cluster. A later history has a larger number. Broker-wide, so
/// that a position stored under a number of another cluster is noticed as foreign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HistoryId(u8);

impl HistoryId {
    /// No history: nothing was ever stored.
    pub const NONE: Self = Self(0);

    /// The history of positions that cannot be compared any more: after 254 histories, or an unknown one. It is above
    /// all others, so a store that keeps the highest never hides it.
    pub const OVERFLOW: Self = Self(255);

    /// The history of that number.
    #[must_use]
    pub const fn from_raw(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Whether it stands for a history whose positions can be compared.
    #[must_use]
    pub const fn is_comparable(self) -> bool {
        self.0 != Self::NONE.0 && self.0 != Self::OVERFLOW.0
    }
}

/// A WAL position together with the history that gives it a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryPoint {
    /// Of a history that this broker numbered.
    Known {
        /// The history.
        history: HistoryId,
        /// The position in it.
        lsn: Lsn,
    },
    /// As a token names it: this broker may have seen that history or not.
    Named {
        /// PostgreSQL's `system_identifier`.
        system_identifier: u64,
        /// The timeline.
        timeline: Timeline,
        /// The position in it.
        lsn: Lsn,
    },
}

/// Where a history left its parent, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwitchPoint {
    /// All up to here is certainly in the history.
    pub sure: Lsn,
    /// Nothing of the parent beyond here is.
    pub latest: Lsn,
}

impl SwitchPoint {
    /// It is known exactly.
    #[must_use]
    pub const fn exactly(at: Lsn) -> Self {
        Self { sure: at, latest: at }
    }

    /// What a position of the parent requires: never less than what may have been kept of it.
    fn require(self, lsn: Lsn) -> Required {
        if lsn <= self.sure { Required::At(lsn) } else { Required::MayBeLost(lsn.min(self.latest)) }
    }
}

/// What a position requires in the cluster's current history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// All up to this.
    At(Lsn),
    /// All up to this, a switch point or what may have been kept below it; the rest did not survive the promotion.
    MayBeLost(Lsn),
    /// It lies in a history that this broker has yet to see: whatever it takes for the primary was left behind.
    Ahead,
    /// It cannot be said: only the primary will do.
    Unknown,
}

/// All histories that this broker has seen, of all clusters. Cheap to clone: readers hold a copy of their own.
#[derive(Debug, Clone, Default)]
pub struct Histories(Arc<Registry>);

#[derive(Debug, Clone, Default)]
struct Registry {
    /// In the order of their ids, which begin at 1.
    entries: Vec<Entry>,
    /// By cluster; NONE before its first.
    current: Vec<HistoryId>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    cluster: ClusterId,
    system_identifier: u64,
    timeline: Timeline,
    start: SwitchPoint,
}

impl Histories {
    /// Begins a history of `cluster`, now its current one, which left its parent at `start`. One of the same timeline
    /// as another is another all the same: two standbys that were promoted each for itself.
    ///
    /// Returns [`HistoryId::OVERFLOW`] once all numbers are used: the cluster's positions then always ask for the
    /// primary.
    pub fn begin(
        &mut self,
        cluster: ClusterId,
        system_identifier: u64,
        timeline: Timeline,
        start: SwitchPoint,
    ) -> HistoryId {
        let registry = Arc::make_mut(&mut self.0);
        let id = match u8::try_from(registry.entries.len() + 1) {
            Ok(number) if number < HistoryId::OVERFLOW.0 => {
                registry.entries.push(Entry { cluster, system_identifier, timeline, start });
                HistoryId(number)
            }
            _ => HistoryId::OVERFLOW,
        };
        if registry.current.len() <= cluster.index() {
            registry.current.resize(cluster.index() + 1, HistoryId::NONE);
        }
        registry.current[cluster.index()] = id;
        id
    }

    /// The current history of `cluster`: the one begun last.
    #[must_use]
    pub fn current(&self, cluster: ClusterId) -> Option<HistoryId> {
        self.0.current.get(cluster.index()).copied().filter(|id| *id != HistoryId::NONE)
    }

    /// The newest history of `cluster` with that system identifier and timeline.
    #[must_use]
    pub fn find(&self, cluster: ClusterId, system_identifier: u64, timeline: Timeline) -> Option<HistoryId> {
        let is = |(_, e): &(HistoryId, Entry)| e.system_identifier == system_identifier && e.timeline == timeline;
        self.of_cluster(cluster).rev().find(is).map(|(id, _)| id)
    }

    /// The timeline of a history.
    #[must_use]
    pub fn timeline(&self, history: HistoryId) -> Option<Timeline> {
        self.entry(history).map(|entry| entry.timeline)
    }

    /// The system identifier of a history.
    #[must_use]
    pub fn system_identifier(&self, history: HistoryId) -> Option<u64> {
        self.entry(history).map(|entry| entry.system_identifier)
    }

    /// The cluster of a history.
    #[must_use]
    pub fn cluster(&self, history: HistoryId) -> Option<ClusterId> {
        self.entry(history).map(|entry| entry.cluster)
    }

    /// Where a history left its parent.
    #[must_use]
    pub fn start(&self, history: HistoryId) -> Option<SwitchPoint> {
        self.entry(history).map(|entry| entry.start)
    }

    /// What `at` requires in the current history of `cluster`.
    ///
    /// A position of an older timeline is held against every later switch point that is known: beyond one, nothing of
    /// the older is in the newer. [`Required::Unknown`] without a current history, and for a position of another
    /// cluster, another system identifier, or no comparable history at all; and for one that may be of another branch
    /// with the current timeline's number, unless it lies below where both began.
    #[must_use]
    pub fn require(&self, cluster: ClusterId, at: HistoryPoint) -> Required {
        let Some(current_id) = self.current(cluster) else { return Required::Unknown };
        let Some(current) = self.entry(current_id) else { return Required::Unknown };
        let (lsn, system_identifier, timeline) = match at {
            HistoryPoint::Named { system_identifier, timeline, lsn } => (lsn, system_identifier, timeline),
            HistoryPoint::Known { history, lsn } => match self.entry(history) {
                Some(entry) if entry.cluster == cluster => (lsn, entry.system_identifier, entry.timeline),
                _ => return Required::Unknown,
            },
        };
        if system_identifier != current.system_identifier {
            return Required::Unknown;
        }
        if timeline > current.timeline {
            // A token may come from a broker that saw the promotion first; what was seen here and is not current any
            // more was undone by hand.
            let is_named = matches!(at, HistoryPoint::Named { .. });
            return if is_named { Required::Ahead } else { Required::Unknown };
        }
        let branches = |of: Timeline| {
            let is_of = move |e: &Entry| e.system_identifier == system_identifier && e.timeline == of;
            self.of_cluster(cluster).filter(move |(_, e)| is_of(e))
        };
        if timeline == current.timeline {
            let is_own = match at {
                HistoryPoint::Known { history, .. } => history == current_id,
                HistoryPoint::Named { .. } => branches(timeline).count() == 1,
            };
            let is_shared = branches(timeline).all(|(_, e)| lsn <= e.start.sure);
            return if is_own || is_shared { Required::At(lsn) } else { Required::Unknown };
        }
        let later =
            self.of_cluster(cluster).map(|(_, e)| e.timeline).filter(|t| *t > timeline && *t < current.timeline);
        // Of several branches with one number any may be the ancestor: what is sure in all, at most what is in any.
        let ancestors = later.map(|later| {
            let all = branches(later).map(|(_, e)| e.start);
            let widest = |a: SwitchPoint, b: SwitchPoint| SwitchPoint {
                sure: a.sure.min(b.sure),
                latest: a.latest.max(b.latest),
            };
            all.reduce(widest).unwrap_or(current.start)
        });
        let both =
            |a: SwitchPoint, b: SwitchPoint| SwitchPoint { sure: a.sure.min(b.sure), latest: a.latest.min(b.latest) };
        let start = ancestors.fold(current.start, both);
        // It may itself be of a branch that the current history does not come from.
        let own = branches(timeline).map(|(_, e)| e.start.sure);
        let sure = if branches(timeline).count() > 1 { own.fold(start.sure, Lsn::min) } else { start.sure };
        SwitchPoint { sure, ..start }.require(lsn)
    }

    fn entry(&self, id: HistoryId) -> Option<&Entry> {
        self.0.entries.get(usize::from(id.0).checked_sub(1)?)
    }

    fn of_cluster(&self, cluster: ClusterId) -> impl DoubleEndedIterator<Item = (HistoryId, Entry)> {
        // 254 entries at most, so the number fits and the end of the range is never reached.
        let numbers = 1..=HistoryId::OVERFLOW.0;
        let entries = self.0.entries.iter().enumerate();
        numbers.zip(entries).filter_map(move |(n, (_, e))| (e.cluster == cluster).then_some((HistoryId(n), *e)))
    }
}
