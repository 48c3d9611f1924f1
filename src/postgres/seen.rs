//! What a statement has seen, as a WAL position: asked for behind it, in the same flush (rule 19).

use std::sync::Arc;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::{
    connection::Connection,
    error::PgError,
    exchange::{Exchange, Queued, Rows},
    facts::timeline_of_wal_file,
};
use crate::model::{Lsn, Timeline};

/// Evaluated in this order: the receiver before the replay position, see [`nothing_in_flight`].
const SEEN: &str = "SELECT in_recovery, (receiver).pid IS NOT NULL, (receiver).received_tli, \
     pg_catalog.current_setting('restore_command', true), \
     CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
     CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_receive_lsn() END, \
     CASE WHEN in_recovery THEN NULL ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END \
     FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery, pg_catalog.pg_stat_get_wal_receiver() AS receiver) AS state";

/// An upper bound of what every snapshot taken before on this connection has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// A host that has replayed so much sees it all.
    pub lsn: Lsn,
    /// The timeline of that position, or a newer one; None: a standby that does not say (its receiver is gone, or the
    /// login role is not a member of `pg_monitor`).
    pub timeline: Option<Timeline>,
}

impl Seen {
    fn decode(row: &SimpleQueryRow) -> Result<Seen, PgError> {
        let undecodable = |name: &str| PgError::Protocol(format!("undecodable {name} behind a read"));
        let lsn = |index: usize, name: &str| match row.get(index) {
            Some(text) => text.parse::<Lsn>().map(Some).map_err(|_| undecodable(name)),
            None => Ok(None),
        };
        let position = lsn(4, "WAL position")?.ok_or_else(|| undecodable("WAL position"))?;
        if row.get(0) != Some("t") {
            let timeline = row.get(6).and_then(timeline_of_wal_file).ok_or_else(|| undecodable("WAL file name"))?;
            return Ok(Seen { lsn: position, timeline: Some(timeline) });
        }
        let is_streaming = row.get(1) == Some("t");
        let has_archive = row.get(3) != Some("");
        let timeline = row.get(2).and_then(|text| text.parse().ok()).and_then(Timeline::new);
        let lsn = if nothing_in_flight(position, lsn(5, "received position")?, is_streaming, has_archive) {
            position
        } else {
            // Any host beyond has replayed the whole record: records end at multiples of eight.
            Lsn::new(position.get().saturating_add(1))
        };
        Ok(Seen { lsn, timeline })
    }
}

/// Whether no record behind `replayed` can have been half replayed, and so seen, before this was read. A commit is visible
/// before the replay position moves on; redo has one record in flight at most.
///
/// What comes through a WAL receiver was flushed by it before it is replayed, and while one runs nothing else is
/// replayed: what was in flight when the statement ran would lie below the received position, which was read later.
/// When it is gone the standby looks into its archive, if it has one; into `pg_wal` too, but there is no more than was
/// received.
fn nothing_in_flight(replayed: Lsn, received: Option<Lsn>, is_streaming: bool, has_archive: bool) -> bool {
    match received {
        Some(received) if is_streaming => received <= replayed,
        Some(received) => received == replayed && !has_archive,
        None => false,
    }
}

/// Queues the question, behind `before`.
pub(super) fn queue_seen(connection: &Connection, before: &str) -> Queued<Result<Seen, PgError>> {
    let (client, sql) = (Arc::clone(&connection.client), format!("{before}{SEEN}"));
    Queued::new(async move {
        let messages = client.simple_query(&sql).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Seen::decode(row.ok_or_else(|| PgError::Protocol("no row of what a read has seen".into()))?)
    })
}

impl Exchange {
    /// Asks, behind a statement inside a transaction, what it has seen, in the same flush: to be called right after
    /// [`Exchange::start`]. A statement that failed leaves no answer.
    pub fn ask_seen(&mut self, connection: &Connection) {
        self.seen = Some(queue_seen(connection, ""));
    }

    /// What the statement has seen, if that was asked for and is known; rows that nobody took are read first.
    pub async fn seen(&mut self) -> Option<Seen> {
        // The error of a BEGIN is followed by the statement's own.
        while !matches!(self.rows, Rows::Ended) {
            if self.next_row().await.is_err_and(|error| error.ends_connection()) {
                break;
            }
        }
        if let Some(queued) = &mut self.seen
            && let Some(answer) = queued.answer().await
        {
            self.caught = answer.ok();
        }
        self.caught
    }
}

impl Connection {
    /// What this connection has seen by now: a round trip of its own.
    pub async fn seen(&mut self) -> Option<Seen> {
        queue_seen(self, "").answer().await.and_then(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_standby_that_has_replayed_all_it_can_have_has_nothing_in_flight() {
        let at = |lsn: u64| Some(Lsn::new(lsn));
        for (received, is_streaming, has_archive, expected) in [
            (at(80), true, true, true),
            (at(88), true, false, false),
            // Behind a restart the receiver begins with the segment.
            (at(16), true, true, true),
            (at(80), false, false, true),
            (at(80), false, true, false),
            (at(72), false, false, false),
            (at(88), false, false, false),
            (None, true, false, false),
            (None, false, false, false),
        ] {
            let found = nothing_in_flight(Lsn::new(80), received, is_streaming, has_archive);
            assert_eq!(found, expected, "{received:?} {is_streaming} {has_archive}");
        }
    }
}
