//! Owns what binds one read: of all that a session or a token may have to see, what still counts now. Where to find it
//! is `route`'s.

use super::{ClusterView, Histories, HistoryId, HistoryPoint, Lsn, Required, Sample};
use std::time::{Duration, Instant};

/// Something that a session must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Up to where.
    pub point: HistoryPoint,
    /// When it was written: never before the LSN was read. `None`: not known, so it never expires.
    pub written: Option<Instant>,
    /// By when it certainly was written: `written` by this broker's own clock, later by another's. `None`: not known.
    pub written_by: Option<Instant>,
}

/// All that may bind one read, gathered from its session and its tokens, for one cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks<'a> {
    /// The positions.
    pub positions: &'a [Position],
    /// Until when only the primary will do, because a write's outcome or position is unknown.
    pub primary_only_until: Option<Instant>,
    /// Whether the read belongs to a session: then the cluster's floor counts too.
    pub has_session: bool,
}

/// What every session of a cluster must see because the broker may have forgotten positions (at its start, say).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Floor {
    /// Not read yet: sessions read from the primary.
    #[default]
    Unknown,
    /// The primary's insert position, read after the moment of forgetting.
    At {
        /// Its history.
        history: HistoryId,
        /// The position.
        lsn: Lsn,
        /// Until when it binds: one stick timeout after that moment.
        until: Instant,
    },
    /// Nothing was forgotten, or long ago.
    NotNeeded,
}

/// What binds a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// It has no positions.
    NoPosition,
    /// It had some; none binds any more.
    Expired,
    /// All of the cluster's current history up to here.
    At {
        /// The position, as replicas count it (without a page header).
        lsn: Lsn,
        /// Whether what was written may lie beyond, lost in a failover or a crash.
        may_be_lost: bool,
    },
    /// Only the primary will do.
    PrimaryOnly,
    /// A position lies in a newer history than any that this broker has seen: no host that it knows will do, its primary
    /// least of all.
    Ahead,
}

/// What of `marks` binds a read of `view`'s cluster at `now`: the highest requirement of all that have not expired.
#[must_use]
pub fn bind(
    marks: &Marks<'_>,
    view: &ClusterView,
    histories: &Histories,
    now: Instant,
    stick_timeout: Duration,
) -> Binding {
    let now = expiry_clock(view, now);
    let binds = |until: Option<Instant>| until.is_none_or(|until| now.is_none_or(|now| now < until));
    // A written time so late that the clock cannot hold its end is one that never ends.
    let end = |position: &Position| position.written.and_then(|written| written.checked_add(stick_timeout));
    let positions = marks.positions.iter().filter(|position| binds(end(position))).copied();
    let floor = match view.floor {
        Floor::At { history, lsn, until } if marks.has_session && binds(Some(until)) => {
            Some(Position { point: HistoryPoint::Known { history, lsn }, written: None, written_by: None })
        }
        _ => None,
    };
    let floor_is_unknown = marks.has_session && view.floor == Floor::Unknown;
    let mut primary_only = floor_is_unknown || marks.primary_only_until.is_some_and(|until| binds(Some(until)));
    let mut strictest: Option<(Lsn, bool)> = None;
    for position in positions.chain(floor) {
        let (lsn, may_be_lost) = match require(&position, view, histories) {
            Required::At(lsn) => (lsn, false),
            Required::MayBeLost(lsn) => (lsn, true),
            // Behind every host that is known, the primary too.
            Required::Ahead => return Binding::Ahead,
            Required::Unknown => {
                primary_only = true;
                continue;
            }
        };
        let (highest, any_lost) = strictest.unwrap_or((lsn, may_be_lost));
        strictest = Some((highest.max(lsn), any_lost || may_be_lost));
    }
    match strictest {
        _ if primary_only => Binding::PrimaryOnly,
        Some((lsn, may_be_lost)) => Binding::At { lsn, may_be_lost },
        None if marks.positions.is_empty() && marks.primary_only_until.is_none() => Binding::NoPosition,
        None => Binding::Expired,
    }
}

/// The time by which positions expire; `None`: none does.
///
/// While no primary can be reached it stands still at the last sample. What had expired by then stays expired (the
/// replicas that may serve have passed that sample, and with it all that was written before); nothing else expires.
fn expiry_clock(view: &ClusterView, now: Instant) -> Option<Instant> {
    if view.primary_reachable { Some(now) } else { view.newest_sample.map(|sample| sample.sent_at.min(now)) }
}

/// What one position requires of the view's hosts.
fn require(position: &Position, view: &ClusterView, histories: &Histories) -> Required {
    // The view and the histories are published apart. In between, a requirement of the one must not meet hosts of the
    // other.
    if view.history.is_none() || view.history != histories.current(view.id) {
        return Required::Unknown;
    }
    let (lsn, may_be_lost) = match histories.require(view.id, position.point) {
        Required::At(lsn) => (view.end_of_records(lsn), false),
        Required::MayBeLost(lsn) => (view.end_of_records(lsn), true),
        other => return other,
    };
    match clamp(position, view).map(|sample| view.end_of_records(sample.insert)) {
        Some(clamped) if clamped < lsn => Required::MayBeLost(clamped),
        _ if may_be_lost => Required::MayBeLost(lsn),
        _ => Required::At(lsn),
    }
}

/// The sample that proves a higher position gone: asked for after the position was written, and yet below it (a
/// primary's crash moves its insert position back on the same timeline).
fn clamp(position: &Position, view: &ClusterView) -> Option<Sample> {
    let written_by = position.written_by?;
    view.newest_sample.filter(|sample| sample.sent_at > written_by)
}
