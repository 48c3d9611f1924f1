//! What a server says of itself when a connection to it is made.

use std::{sync::Arc, time::Instant};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::error::PgError;
use crate::{
    clock,
    model::{Lsn, Timeline},
};

/// Asked once on every connection, in one round trip (rule 5): a cached position is proof only for connections that
/// are known to lead to the server it was measured on.
pub(super) const FACTS: &str = "SELECT pg_catalog.pg_backend_pid(), \
     (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
     (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8, \
     pg_catalog.pg_is_in_recovery(), \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
          ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
          ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
     (SELECT (extract(epoch FROM backend_start) * 1000000)::pg_catalog.int8 \
      FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())), \
     pg_catalog.concat_ws(' ', session_user, pg_catalog.current_setting('search_path'))";

/// What a server said of itself when a connection to it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When the question was sent.
    pub asked_at: Instant,
    /// The backend's process id.
    pub backend_pid: i32,
    /// When the backend was started, microseconds since the Unix epoch by the server's clock.
    pub backend_started_us: i64,
    /// The cluster's system identifier (`pg_control_system`).
    pub system_identifier: u64,
    /// `pg_postmaster_start_time`, microseconds since the Unix epoch.
    pub started_us: u64,
    /// `pg_is_in_recovery`.
    pub in_recovery: bool,
    /// Replayed (in recovery) or inserted WAL; none on a standby that has replayed nothing.
    pub lsn: Option<Lsn>,
    /// The timeline, on a primary.
    pub timeline: Option<Timeline>,
    /// Where names without a schema are looked for, by the settings that the connection began with; and whose path it is, which
    /// `"$user"` in it stands for.
    pub search_path: Arc<str>,
}

impl Facts {
    /// For a connection that has yet to ask.
    pub(super) fn unasked() -> Facts {
        Facts {
            asked_at: clock::now(),
            backend_pid: 0,
            backend_started_us: 0,
            system_identifier: 0,
            started_us: 0,
            in_recovery: false,
            lsn: None,
            timeline: None,
            search_path: Arc::default(),
        }
    }

    /// Asks a server over a new connection.
    pub(super) async fn ask(client: &Client) -> Result<Facts, PgError> {
        let asked_at = clock::now();
        let messages = client.simple_query(FACTS).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Facts::decode(row.ok_or_else(|| PgError::Protocol("no row of facts".into()))?, asked_at)
    }

    /// Reads the answer to [`FACTS`].
    pub(super) fn decode(row: &SimpleQueryRow, asked_at: Instant) -> Result<Facts, PgError> {
        let field = |index: usize| row.get(index);
        let undecodable = |name: &str| PgError::Protocol(format!("undecodable {name}"));
        Ok(Facts {
            asked_at,
            backend_pid: field(0).and_then(|text| text.parse().ok()).ok_or_else(|| undecodable("backend pid"))?,
            backend_started_us: field(6)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| undecodable("backend start time"))?,
            system_identifier: field(1)
                .and_then(|text| text.parse::<i64>().ok())
                .map(|identifier| identifier as u64)
                .ok_or_else(|| undecodable("system identifier"))?,
            started_us: field(2).and_then(|text| text.parse().ok()).ok_or_else(|| undecodable("start time"))?,
            in_recovery: match field(3) {
                Some("t") => true,
                Some("f") => false,
                _ => return Err(undecodable("recovery state")),
            },
            lsn: match field(4) {
                Some(text) => Some(text.parse().map_err(|_| undecodable("WAL position"))?),
                None => None,
            },
            timeline: match field(5) {
                Some(name) => Some(timeline_of_wal_file(name).ok_or_else(|| undecodable("WAL file name"))?),
                None => None,
            },
            search_path: field(7).map(Arc::from).ok_or_else(|| undecodable("search path"))?,
        })
    }
}

/// The timeline is the first eight hexadecimal digits of a WAL file's name.
pub(super) fn timeline_of_wal_file(name: &str) -> Option<Timeline> {
    u32::from_str_radix(name.get(..8)?, 16).ok().and_then(Timeline::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_is_read_from_a_wal_file_name() {
        assert_eq!(timeline_of_wal_file("0000000A0000001600000037"), Timeline::new(10));
        assert_eq!(timeline_of_wal_file("00000000"), None);
        assert_eq!(timeline_of_wal_file("zz"), None);
    }
}
