//! What became of a transaction whose COMMIT was not answered, asked on another connection to the same server.

use std::time::Duration;

use super::{error::PgError, exchange::TransactionId, facts::Facts, probe::ProbeConnection};

/// The checkpointer dies with the others in a crash, also in one that the postmaster survives: one that is older than
/// the transaction's backend proves that there was none since. Its age needs `pg_monitor`; without, nothing is proved.
const FATE: &str = "SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8), \
     pg_catalog.pg_is_in_recovery(), coalesce((SELECT \
     pg_catalog.bool_and((extract(epoch FROM backend_start) * 1000000)::pg_catalog.int8 < $2) \
     FROM pg_catalog.pg_stat_get_activity(NULL) WHERE backend_type = 'checkpointer'), false)";

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Committed,
    /// It was rolled back.
    RolledBack,
    /// It has not ended yet.
    InProgress,
    /// This server cannot tell: it is too long ago, or the server has crashed since, or is another one.
    Unknown,
}

impl ProbeConnection {
    /// What became of the transaction with this id, whose connection had these facts.
    ///
    /// A server that has crashed may give an id again whose WAL was lost: an answer of "committed" is then another's. One
    /// of "aborted" is right in either case.
    pub async fn fate(&self, id: TransactionId, facts: &Facts, limit: Duration) -> Result<Fate, PgError> {
        let identity = self.identity();
        if identity.system_identifier != facts.system_identifier || identity.started_us != facts.started_us {
            return Ok(Fate::Unknown);
        }
        let row = self.ask(FATE, &[&id.0.to_string(), &facts.backend_started_us], limit).await?;
        let (status, in_recovery, no_crash): (Option<&str>, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(match status {
            _ if in_recovery => Fate::Unknown,
            Some("committed") if no_crash => Fate::Committed,
            Some("aborted") => Fate::RolledBack,
            Some("in progress") if no_crash => Fate::InProgress,
            _ => Fate::Unknown,
        })
    }
}
