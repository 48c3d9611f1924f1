//! The checkpoint that a server's control file names: what shows which of several primaries a replica has followed.

use std::time::Duration;

use tokio_postgres::types::PgLsn;

use super::{error::PgError, probe::ProbeConnection};
use crate::model::Lsn;

const CHECKPOINT: &str = "SELECT checkpoint_lsn, redo_lsn, timeline_id, next_xid, next_oid::pg_catalog.int8, \
     extract(epoch FROM checkpoint_time)::pg_catalog.int8 FROM pg_catalog.pg_control_checkpoint()";

/// A checkpoint, by what its WAL record says. A replica's control file has the record as the primary wrote it, once a
/// restartpoint was made of it (`CreateRestartPoint` in PostgreSQL's `xlog.c`): so it has replayed that very record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where its record begins.
    pub lsn: Lsn,
    /// Where recovery from it begins.
    pub redo: Lsn,
    /// The timeline that it was written on.
    pub timeline: i32,
    /// The next transaction, as PostgreSQL shows it: `epoch:xid`.
    pub next_xid: String,
    /// The next object's id.
    pub next_oid: i64,
    /// When it began, by the primary's clock: seconds since the Unix epoch.
    pub time_s: i64,
}

impl ProbeConnection {
    /// Reads the control file's checkpoint. Whoever may log in may do that, unless it was revoked.
    pub async fn checkpoint(&self, limit: Duration) -> Result<Checkpoint, PgError> {
        let row = self.ask(CHECKPOINT, &[], limit).await?;
        let lsn = |index: usize| row.try_get::<_, PgLsn>(index).map(|lsn| Lsn::new(lsn.into()));
        Ok(Checkpoint {
            lsn: lsn(0)?,
            redo: lsn(1)?,
            timeline: row.try_get(2)?,
            next_xid: row.try_get(3)?,
            next_oid: row.try_get(4)?,
            time_s: row.try_get(5)?,
        })
    }
}
