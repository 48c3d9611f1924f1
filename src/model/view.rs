//! Owns the record of one cluster as the monitor publishes it, and the lag that follows from it.

use super::{ClusterId, Floor, HistoryId, HostId, HostSet, HostView, Lsn, Sample, Timeline, WalGeometry};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is known of one cluster: a plain record, replaced as a whole.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// Its index in the broker.
    pub id: ClusterId,
    /// Its configured name.
    pub name: Arc<str>,
    /// PostgreSQL's `system_identifier`, once a server was read.
    pub system_identifier: Option<u64>,
    /// The history of its primary.
    pub history: Option<HistoryId>,
    /// That history's timeline.
    pub timeline: Option<Timeline>,
    /// The sizes of its WAL.
    pub geometry: WalGeometry,
    /// Its hosts, in the order of their places.
    pub hosts: Vec<HostView>,
    /// The host that is confirmed as the primary and up.
    pub primary: Option<HostId>,
    /// The cluster whose primary its hosts follow, and by which they are judged; None: it has a primary of its own.
    pub follows: Option<ClusterId>,
    /// The host that was the primary when it was taken out of the configuration: what began there may end. None once another
    /// server is the primary.
    pub left_primary: Option<LeftPrimary>,
    /// Whether the primary answers its probes. While it does not, positions do not expire.
    pub primary_reachable: bool,
    /// Until when its role counts as confirmed: one lease after the confirming probe was sent.
    pub lease_until: Option<Instant>,
    /// Several hosts claim the role on one timeline: there is no primary until an operator decides.
    pub conflict: bool,
    /// Who claims the role on the newest timeline: more than one in a conflict.
    pub claimants: HostSet,
    /// The newest insert position read from the primary, in `history`.
    pub newest_sample: Option<Sample>,
    /// What every session must see because the broker may have forgotten positions.
    pub floor: Floor,
    /// Why hosts that should follow another cluster's primary take no reads, if any do not.
    pub refused: Option<Arc<str>>,
}

/// A primary that was taken out of the configuration, and by which nobody can be told any more that it is still it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftPrimary {
    /// The host that it was.
    pub host: HostId,
    /// Its server, see [`HostView::incarnation`].
    pub incarnation: u64,
    /// The end of its last lease. Beyond it nothing is committed there, unless the same server has a lease by another name.
    pub until: Instant,
}

impl ClusterView {
    /// A cluster of which nothing is known yet. Its floor is unknown, so its sessions read from the primary.
    #[must_use]
    pub const fn unknown(id: ClusterId, name: Arc<str>, geometry: WalGeometry, hosts: Vec<HostView>) -> Self {
        Self {
            id,
            name,
            system_identifier: None,
            history: None,
            timeline: None,
            geometry,
            hosts,
            primary: None,
            follows: None,
            left_primary: None,
            primary_reachable: false,
            lease_until: None,
            conflict: false,
            claimants: HostSet::EMPTY,
            newest_sample: None,
            floor: Floor::Unknown,
            refused: None,
        }
    }

    /// The host of that id.
    #[must_use]
    pub fn host(&self, id: HostId) -> Option<&HostView> {
        self.hosts.get(id.index()).filter(|host| host.id == id).or_else(|| self.hosts.iter().find(|host| host.id == id))
    }

    /// Whether a replica that is up has yet to be seen beyond `lsn`, counted as replicas do: it is worth being asked.
    #[must_use]
    pub fn has_replica_behind(&self, lsn: Lsn) -> bool {
        self.hosts.iter().any(|host| host.is_up_replica() && host.replay.is_none_or(|replay| replay < lsn))
    }

    /// Whether what began on `host` as the primary, with the server of that incarnation, may end there.
    #[must_use]
    pub fn is_primary(&self, host: HostId, incarnation: u64, now: Instant) -> bool {
        let is_current = self.holds_lease(host, now) && self.host(host).is_some_and(|h| h.incarnation == incarnation);
        let may_end = |left: LeftPrimary| {
            // Where there is a primary, it is that very server by another name: then its lease counts.
            let has_role = self.primary.map_or(now < left.until, |primary| self.holds_lease(primary, now));
            has_role && (left.host, left.incarnation) == (host, incarnation)
        };
        is_current || self.left_primary.is_some_and(may_end)
    }

    /// The primary, when it is confirmed and may get requests. Whether its lease lasts is [`ClusterView::holds_lease`]'s:
    /// to be asked before anything is sent that must reach no other.
    #[must_use]
    pub fn primary_host(&self) -> Option<&HostView> {
        self.primary.and_then(|id| self.host(id)).filter(|host| host.health.is_usable())
    }

    /// Whether `host` is the primary, and was confirmed to be within its lease.
    #[must_use]
    pub fn holds_lease(&self, host: HostId, now: Instant) -> bool {
        self.primary == Some(host) && self.lease_until.is_some_and(|until| now < until)
    }

    /// How far `host` is behind the primary at most: the time since the newest of the primary's samples that it has
    /// passed was asked for. `None`: unknown, for it has passed none of this history.
    #[must_use]
    pub fn lag(&self, host: &HostView, now: Instant) -> Option<Duration> {
        self.passed_sample_at(host).map(|at| now.saturating_duration_since(at))
    }

    /// How stale a read of `host` may be: its lag. `None`: unknown, as it is of every host while no primary can be reached,
    /// for one that this broker cannot see may have gone on.
    #[must_use]
    pub fn staleness(&self, host: &HostView, now: Instant) -> Option<Duration> {
        self.lag(host, now).filter(|_| self.primary_reachable)
    }

    /// How many bytes of WAL `host` has still to replay, by the newest sample. `None`: unknown, for it is not proved to be
    /// on this history.
    #[must_use]
    pub fn lag_bytes(&self, host: &HostView) -> Option<u64> {
        let sample = self.newest_sample?;
        host.replay
            .filter(|_| self.history.is_some_and(HistoryId::is_comparable) && host.history == self.history)
            .map(|replay| self.end_of_records(sample.insert).saturating_sub(replay))
    }

    /// The newest sample passed by `host`, unless that belongs to another history (the host's record may be older than
    /// the view's).
    pub(super) fn passed_sample_at(&self, host: &HostView) -> Option<Instant> {
        host.passed_sample_at.filter(|_| !self.on_other_history(host))
    }

    /// An insert position as replicas count it: see [`Lsn::without_page_header`].
    pub(super) const fn end_of_records(&self, insert: Lsn) -> Lsn {
        insert.without_page_header(self.geometry)
    }

    fn on_other_history(&self, host: &HostView) -> bool {
        matches!((host.history, self.history), (Some(host), Some(cluster)) if host != cluster)
    }
}
