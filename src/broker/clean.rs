//! Whether a statement may run where no reset reaches (rule 21): only one that is clean. The server's verdict is asked for
//! over a direct connection, and kept for as long as a prepared statement would be.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use lru::LruCache;

use super::{Broker, Failure, Reason, caller::Caller, database::Database};
use crate::{
    clock,
    model::HostId,
    postgres::{PgError, ProbeConnection, SchemaVersion, StatementLimits},
    sql,
};

/// One question's limit.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// What a statement is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Deed {
    Read,
    /// Or read what is to be written.
    Write,
}

/// Why a statement is not clean; None: it is.
type Verdict = Option<Arc<str>>;

struct Kept {
    verdict: Verdict,
    asked_at: Instant,
    schema: u64,
}

/// The verdicts on one database's statements.
pub(super) struct Judge {
    verdicts: Mutex<LruCache<(Deed, Arc<str>), Kept>>,
    max_age: Duration,
    schema: Arc<SchemaVersion>,
    /// The connection to ask on. Its lock also makes one question of the same one from many callers.
    asking: tokio::sync::Mutex<Option<(HostId, ProbeConnection)>>,
}

impl Judge {
    pub(super) fn new(limits: StatementLimits, schema: &Arc<SchemaVersion>) -> Judge {
        Judge {
            verdicts: Mutex::new(LruCache::new(limits.size)),
            max_age: limits.max_age,
            schema: Arc::clone(schema),
            asking: tokio::sync::Mutex::default(),
        }
    }

    fn known(&self, key: &(Deed, Arc<str>)) -> Option<Verdict> {
        let (now, schema) = (clock::now(), self.schema.current());
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = verdicts.get(key)?;
        let holds = kept.schema == schema && now.saturating_duration_since(kept.asked_at) < self.max_age;
        holds.then(|| kept.verdict.clone())
    }

    fn keep(&self, key: (Deed, Arc<str>), kept: Kept) {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).put(key, kept);
    }
}

impl Broker {
    /// Refuses a statement that is not clean, if a proxy may stand between; asks nothing otherwise.
    pub(super) async fn require_clean(
        &self,
        database: &Database,
        sql: &str,
        deed: Deed,
        caller: &Caller,
    ) -> Result<(), Failure> {
        let Some(judge) = &database.judge else { return Ok(()) };
        let key = (deed, Arc::from(sql));
        let verdict = match judge.known(&key) {
            Some(verdict) => verdict,
            None => tokio::select! {
                verdict = self.judge(database, judge, key) => verdict?,
                interrupted = caller.interrupted() => return Err(interrupted.failure()),
            },
        };
        verdict.map_or(Ok(()), |why| Err(not_clean(&why)))
    }

    async fn judge(&self, database: &Database, judge: &Judge, key: (Deed, Arc<str>)) -> Result<Verdict, Failure> {
        let footprint = match key.0 {
            Deed::Read => sql::footprint(&key.1),
            Deed::Write => sql::footprint_of_write(&key.1),
        };
        // Read before asking: what changes meanwhile makes the verdict stale, never the reverse.
        let (asked_at, schema) = (clock::now(), judge.schema.current());
        let footprint = match footprint {
            Ok(footprint) => footprint,
            Err(why) => {
                let verdict = Some(Arc::from(why.to_string()));
                judge.keep(key, Kept { verdict: verdict.clone(), asked_at, schema });
                return Ok(verdict);
            }
        };
        let mut asking = judge.asking.lock().await;
        if let Some(verdict) = judge.known(&key) {
            return Ok(verdict);
        }
        let (asked_at, schema) = (clock::now(), judge.schema.current());
        // Taken out: one on which a question was left unanswered is not asked again.
        let (host, connection) = self.witness(database, asking.take()).await?;
        let objections = connection.objections(&footprint, ASK_LIMIT).await.map_err(unanswered)?;
        *asking = Some((host, connection));
        let why = objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let verdict = (!why.is_empty()).then(|| Arc::from(why));
        judge.keep(key, Kept { verdict: verdict.clone(), asked_at, schema });
        Ok(verdict)
    }

    /// A direct connection to the primary, or, without one, to a replica that is up.
    async fn witness(
        &self,
        database: &Database,
        kept: Option<(HostId, ProbeConnection)>,
    ) -> Result<(HostId, ProbeConnection), Failure> {
        let host = {
            let snapshot = self.topology.snapshot();
            let view = snapshot.cluster(database.cluster);
            let replica = || view.hosts.iter().find(|host| host.is_up_replica()).map(|host| host.id);
            view.primary.or_else(replica)
        };
        let rejection = || Failure::rejected(crate::model::Rejection::NoHostsAvailable, &database.name);
        let host = host.ok_or_else(rejection)?;
        match kept {
            Some((on, connection)) if on == host && !connection.is_closed() => Ok((on, connection)),
            _ => {
                let target = database.hosts.target(host).ok_or_else(rejection)?;
                Ok((host, ProbeConnection::open(&target).await?))
            }
        }
    }
}

fn unanswered(error: PgError) -> Failure {
    Failure::from_exchange(error, super::Outcome::NotExecuted).outcome(super::Outcome::NotExecuted)
}

fn not_clean(why: &str) -> Failure {
    let message = format!(
        "the statement is not clean, and with pool.prepared_statements = off nothing else is run, since what it leaves \
         behind could not be undone: {why}"
    );
    Failure::field(Reason::NotClean, "statement.sql", message)
}

/// What a proxy may not be asked to do at all.
pub(super) fn not_through_a_proxy(field: &str, what: &str) -> Failure {
    let message = format!("{what} is not supported where pool.prepared_statements is off");
    Failure::field(Reason::NotClean, field, message)
}
