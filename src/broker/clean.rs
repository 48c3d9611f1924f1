//! The verdicts on a database's statements: which are clean. They are kept for as long as a prepared statement would be. Where
//! no reset reaches (rule 21) only what is clean runs, and a direct connection is asked first; elsewhere see `known`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Broker, Failure, Reason,
    caller::Caller,
    database::Database,
    known::{Kept, Known, Verdict},
};
use crate::{
    clock,
    model::HostId,
    postgres::{PgError, ProbeConnection, SchemaVersion, StatementLimits},
};

/// What a statement is to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    Read,
    /// Or read what is to be written.
    Write,
}

/// Questions beside reads that may wait at a time.
const BESIDE: usize = 4;

/// The statements of one database, and the verdicts on them.
pub(super) struct Judge {
    /// By what they are to do.
    known: [Mutex<LruCache<Arc<str>, Arc<Known>>>; 2],
    last_id: AtomicU64,
    schema: Arc<SchemaVersion>,
    /// The connection to ask on through no proxy. Its lock also makes one question of the same one from many callers.
    asking: tokio::sync::Mutex<Option<(HostId, ProbeConnection)>>,
    beside: Arc<Semaphore>,
}

impl Judge {
    /// One question's limit.
    pub(super) const ASK_LIMIT: Duration = Duration::from_secs(5);

    pub(super) fn new(limits: StatementLimits, schema: &Arc<SchemaVersion>) -> Judge {
        let cache = || Mutex::new(LruCache::new(limits.size));
        Judge {
            known: [cache(), cache()],
            last_id: AtomicU64::new(0),
            schema: Arc::clone(schema),
            asking: tokio::sync::Mutex::default(),
            beside: Arc::new(Semaphore::new(BESIDE)),
        }
    }

    /// Keeps so many statements from now on.
    pub(super) fn set_limits(&self, limits: StatementLimits) {
        for deed in [Deed::Read, Deed::Write] {
            self.lock(deed).resize(limits.size);
        }
    }

    pub(super) fn schema(&self) -> u64 {
        self.schema.current()
    }

    /// A place for a question beside a read; None: enough are asked already.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.beside).try_acquire_owned().ok()
    }

    fn lock(&self, deed: Deed) -> MutexGuard<'_, LruCache<Arc<str>, Arc<Known>>> {
        self.known[deed as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a statement, if anything is.
    pub(super) fn find(&self, deed: Deed, sql: &str) -> Option<Arc<Known>> {
        self.lock(deed).get(sql).cloned()
    }

    /// The same; from now on something is.
    pub(super) fn enter(&self, deed: Deed, sql: &str) -> Arc<Known> {
        let mut known = self.lock(deed);
        if let Some(known) = known.get(sql) {
            return Arc::clone(known);
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        let entered = Arc::new(Known::new(sql, id));
        known.put(Arc::clone(&entered.sql), Arc::clone(&entered));
        entered
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
        if !database.is_pooled() {
            return Ok(());
        }
        let known = database.judge.enter(deed, sql);
        let verdict = match known.verdict(self.freshness(database)) {
            Some(verdict) => verdict,
            None => tokio::select! {
                verdict = self.judge(database, &known, deed) => verdict?,
                interrupted = caller.interrupted() => return Err(interrupted.failure()),
            },
        };
        match verdict {
            Verdict::Clean(_) => Ok(()),
            Verdict::NotClean(why) => Err(not_clean(&why)),
        }
    }

    async fn judge(&self, database: &Database, known: &Known, deed: Deed) -> Result<Verdict, Failure> {
        let judge = &database.judge;
        let footprint = match known.footprint(deed, judge.schema()) {
            Ok(footprint) => footprint,
            Err(verdict) => return Ok(verdict),
        };
        let mut asking = judge.asking.lock().await;
        if let Some(verdict) = known.verdict(self.freshness(database)) {
            return Ok(verdict);
        }
        // Read before asking: what changes meanwhile makes the verdict stale, never the reverse.
        let (asked_at, schema) = (clock::now(), judge.schema());
        // Taken out: one on which a question was left unanswered is not asked again.
        let (host, connection) = self.witness(database, asking.take()).await?;
        let objections = connection.objections(&footprint, Judge::ASK_LIMIT).await.map_err(unanswered)?;
        *asking = Some((host, connection));
        let verdict = Verdict::of(&objections, || None);
        known.keep(Kept { verdict: verdict.clone(), by_text: false, asked_at, schema });
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
