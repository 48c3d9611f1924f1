//! The control connection to one host: what a probe asks, and the two things it may be told to do.
//! One plain connection, never shared with callers.

use std::{num::NonZeroU32, time::Duration};

use tokio_postgres::{Client, Row, types::PgLsn};

use super::{
    catalogue::{self, Objection},
    error::{ConnectError, PgError},
    facts::timeline_of_wal_file,
    open::{self, DriverGuard, Opened},
    target::Target,
};
use crate::{
    model::{Lsn, Timeline, WalGeometry},
    sql::Footprint,
};

/// One round trip tells all that routing needs. The primary's timeline comes from the WAL file name, never from the
/// control file; a standby's from its receiver (needs `pg_monitor`) and its minimum recovery point (rule 6).
const PROBE: &str = "SELECT in_recovery, \
     CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
     CASE WHEN in_recovery THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END, \
     CASE WHEN in_recovery THEN NULL ELSE pg_catalog.pg_last_wal_replay_lsn() END, \
     CASE WHEN in_recovery THEN NULL ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
     CASE WHEN in_recovery THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END, \
     CASE WHEN in_recovery THEN (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()) END, \
     CASE WHEN in_recovery THEN (SELECT received_tli FROM pg_catalog.pg_stat_get_wal_receiver()) END \
     FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) AS state";

/// What does not change while a server runs.
const IDENTITY: &str = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
     (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8, \
     pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')), \
     pg_catalog.current_setting('wal_block_size')::pg_catalog.int8, \
     pg_catalog.current_setting('server_version'), \
     pg_catalog.pg_has_role('pg_monitor', 'USAGE')";

/// Makes the server flush its WAL: a flushed, empty record (rule 2b).
const FORCE_FLUSH: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'tidegate', '')";

/// A forced flush must reach the disk whatever the server's default says, and must never wait for a synchronous standby
/// that is away: that would look like a dead primary.
const OPTIONS: &str = "-c synchronous_commit=local";

/// What a server said of itself when the control connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's system identifier.
    pub system_identifier: u64,
    /// `pg_postmaster_start_time`, microseconds since the Unix epoch.
    pub started_us: u64,
    /// WAL segment and block size.
    pub geometry: WalGeometry,
    /// `server_version`.
    pub version: String,
    /// Whether the login role may see a standby's WAL receiver (`pg_monitor`).
    pub is_monitor: bool,
}

/// One probe's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The server accepts writes.
    Primary {
        /// Insert position: an upper bound of all that is committed.
        insert: Lsn,
        /// What is on disk, and so can be sent to standbys.
        flush: Lsn,
        /// Where it stopped replaying, when it was promoted by this postmaster.
        promoted_at: Option<Lsn>,
        /// Its timeline.
        timeline: Timeline,
    },
    /// The server is in recovery.
    Replica {
        /// Replayed; None before the first record.
        replay: Option<Lsn>,
        /// Received.
        receive: Option<Lsn>,
        /// The newest timeline that it is proved to follow; None: unproved.
        timeline: Option<Timeline>,
        /// Whether replay is paused by an operator.
        paused: bool,
    },
}

/// A connection that only probes.
pub struct ProbeConnection {
    client: Client,
    _driver: DriverGuard,
    probe: tokio_postgres::Statement,
    identity: Identity,
}

impl ProbeConnection {
    /// Connects and asks for the identity, within the target's `connect_timeout`.
    pub async fn open(target: &Target) -> Result<ProbeConnection, ConnectError> {
        let limit = target.connect_timeout;
        match tokio::time::timeout(limit, Self::open_unbounded(target)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { host: target.address(), limit }),
        }
    }

    async fn open_unbounded(target: &Target) -> Result<ProbeConnection, ConnectError> {
        let failed = |error: PgError| ConnectError::from_exchange(&target.address(), error);
        let Opened { client, driver, .. } = open::open(target, &target.tls_connector(), OPTIONS).await?;
        let (identity, probe) = tokio::join!(client.query_one(IDENTITY, &[]), client.prepare(PROBE));
        let identity = identity.map_err(PgError::from).and_then(|row| decode_identity(&row)).map_err(failed)?;
        Ok(ProbeConnection { client, _driver: driver, probe: probe.map_err(|error| failed(error.into()))?, identity })
    }

    /// What the server said when this connection was made; true for as long as the connection lives.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// True when nothing can be asked on it any more.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Reads positions, role and timeline evidence: one round trip. A probe that takes longer than `limit` has failed.
    pub async fn read(&self, limit: Duration) -> Result<Reading, PgError> {
        let late = || PgError::Lost(format!("no answer to a probe within {}s", limit.as_secs_f64()));
        let asked = tokio::time::timeout(limit, self.client.query_one(&self.probe, &[]));
        decode_reading(&asked.await.map_err(|_| late())??)
    }

    /// Makes a primary flush its WAL.
    pub async fn force_flush(&self, limit: Duration) -> Result<(), PgError> {
        let late = || PgError::Lost(format!("no flush within {}s", limit.as_secs_f64()));
        tokio::time::timeout(limit, self.client.batch_execute(FORCE_FLUSH)).await.map_err(|_| late())??;
        Ok(())
    }

    /// Whether there is no backend with this pid any more (rule 3); with an age, whether there is none in a transaction
    /// that is as old. One whose state may not be seen counts as there.
    pub async fn backend_is_gone(&self, pid: i32, age: Option<Duration>, limit: Duration) -> Result<bool, PgError> {
        let late = || PgError::Lost(format!("no answer within {}s", limit.as_secs_f64()));
        let asked = async {
            let sql = "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity($1::pg_catalog.int4) \
                 WHERE $2::pg_catalog.float8 IS NULL OR state IS NULL \
                 OR xact_start <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2))";
            self.client.query_one(sql, &[&pid, &age.map(|age| age.as_secs_f64())]).await
        };
        let row = tokio::time::timeout(limit, asked).await.map_err(|_| late())??;
        Ok(row.try_get(0)?)
    }

    /// What a server's catalogue says against a statement's being clean; empty: it is, by now.
    pub async fn objections(&self, footprint: &Footprint, limit: Duration) -> Result<Vec<Objection>, PgError> {
        let late = || PgError::Lost(format!("no answer within {}s", limit.as_secs_f64()));
        tokio::time::timeout(limit, catalogue::objections(&self.client, footprint)).await.map_err(|_| late())?
    }

    /// The only row of a question, within `limit`.
    pub(super) async fn ask(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        limit: Duration,
    ) -> Result<Row, PgError> {
        let late = || PgError::Lost(format!("no answer within {}s", limit.as_secs_f64()));
        Ok(tokio::time::timeout(limit, self.client.query_one(sql, params)).await.map_err(|_| late())??)
    }

    /// How many connections the server lets roles without privileges have, all clients together.
    pub async fn connections_allowed(&self, limit: Duration) -> Result<u32, PgError> {
        let late = || PgError::Lost(format!("no answer within {}s", limit.as_secs_f64()));
        let sql = "SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4 \
             - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4 \
             - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::pg_catalog.int4";
        let row = tokio::time::timeout(limit, self.client.query_one(sql, &[])).await.map_err(|_| late())??;
        let allowed: i32 = row.try_get(0)?;
        Ok(allowed.try_into().unwrap_or(0))
    }
}

fn decode_identity(row: &Row) -> Result<Identity, PgError> {
    let system_identifier: i64 = row.try_get(0)?;
    let started_us: i64 = row.try_get(1)?;
    let segment: i64 = row.try_get(2)?;
    let block: i64 = row.try_get(3)?;
    let geometry = WalGeometry::new(segment.unsigned_abs(), block.unsigned_abs())
        .map_err(|error| PgError::Protocol(error.to_string()))?;
    Ok(Identity {
        system_identifier: system_identifier as u64,
        started_us: started_us.unsigned_abs(),
        geometry,
        version: row.try_get(4)?,
        is_monitor: row.try_get(5)?,
    })
}

fn decode_reading(row: &Row) -> Result<Reading, PgError> {
    let lsn = |index: usize| -> Result<Option<Lsn>, PgError> {
        let value: Option<PgLsn> = row.try_get(index)?;
        Ok(value.map(|value| Lsn::new(value.into())))
    };
    let missing = |what: &str| PgError::Protocol(format!("a primary without {what}"));
    if row.try_get::<_, bool>(0)? {
        // The larger of the two evidences; a standby may lack either.
        let timelines = [row.try_get::<_, Option<i32>>(6)?, row.try_get::<_, Option<i32>>(7)?];
        let timeline =
            timelines.iter().flatten().filter_map(|&id| u32::try_from(id).ok().and_then(NonZeroU32::new)).max();
        return Ok(Reading::Replica {
            replay: lsn(1)?,
            receive: lsn(2)?,
            timeline: timeline.and_then(|id| Timeline::new(id.get())),
            paused: row.try_get(5)?,
        });
    }
    let file: Option<String> = row.try_get(4)?;
    Ok(Reading::Primary {
        insert: lsn(1)?.ok_or_else(|| missing("an insert position"))?,
        flush: lsn(2)?.ok_or_else(|| missing("a flush position"))?,
        promoted_at: lsn(3)?,
        timeline: file.as_deref().and_then(timeline_of_wal_file).ok_or_else(|| missing("a timeline"))?,
    })
}
