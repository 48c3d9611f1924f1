//! What a CAUSAL read has seen becomes a position of its caller (rule 19): what one read saw, the next sees, whichever
//! host answers.

use super::{
    Broker,
    database::Database,
    reach::{Reach, Written},
};
use crate::{
    clock,
    model::{HostId, Timeline},
    postgres::{Facts, Seen},
    topology::Snapshot,
};
use std::time::Duration;

/// How long a read that was cut may take to say what it saw. Until then only the primary will do.
const CUT_LIMIT: Duration = Duration::from_secs(6);

/// The connection on which something was seen.
#[derive(Clone, Copy)]
pub(super) struct SeenOn<'a> {
    pub(super) host: HostId,
    pub(super) facts: &'a Facts,
}

impl Reach {
    /// Stores what a read saw, before its caller gets the last of it; the token says the same to whoever carries it.
    /// None: nobody knows, and only the primary will do for a while.
    pub(super) fn record_seen(
        &self,
        broker: &Broker,
        database: &Database,
        on: SeenOn<'_>,
        seen: Option<Seen>,
    ) -> String {
        let Some(seen) = seen else { return self.mark_unknown(broker, database) };
        let snapshot = broker.topology.snapshot();
        let timeline = seen.timeline.or_else(|| measured_timeline(&snapshot, database, on, seen));
        let Some(timeline) = timeline else { return self.mark_unknown(broker, database) };
        let written = Written { system_identifier: on.facts.system_identifier, timeline, lsn: seen.lsn };
        let token = self.store(broker, database, written);
        // What every replica is known to have passed is nothing to poll for.
        let view = snapshot.cluster(database.cluster);
        let needed = seen.lsn.without_page_header(view.geometry);
        let is_awaited =
            view.hosts.iter().any(|host| host.is_up_replica() && host.replay.is_none_or(|replay| replay < needed));
        if is_awaited {
            broker.topology.await_position(database.cluster, seen.lsn);
        }
        token
    }

    /// A read was cut behind its first rows: until [`Reach::record_seen`] its session reads from the primary. The token is
    /// for a caller who is told now, and so learns of nothing later.
    pub(super) fn hold(&self, broker: &Broker, database: &Database) -> String {
        self.mark_until(broker, clock::now() + CUT_LIMIT.min(broker.settings.stick_timeout));
        self.unknown_token(broker, database)
    }
}

/// The timeline of what was seen on a standby that does not say: good as far as its prober has measured it. An older one
/// than the standby's own would let the position end at the point where that began.
fn measured_timeline(snapshot: &Snapshot, database: &Database, on: SeenOn<'_>, seen: Seen) -> Option<Timeline> {
    let view = snapshot.cluster(database.cluster);
    let host = view.host(on.host)?;
    let is_measured = host.incarnation == on.facts.started_us
        && host.history.is_some()
        && host.history == view.history
        && host.replay.is_some_and(|replay| replay >= seen.lsn);
    view.timeline.filter(|_| is_measured)
}
