//! The step of the checks: many sessions write and read back at once, under replicas that apply late. Each read is a check.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tidegate_client::{Client, HostRole, params};
use tokio::task::JoinSet;

use super::{
    report::Report,
    tour::{TourError, call, demand, read},
};
use crate::{
    cli::local::{Local, PATIENCE},
    topology::Topology,
};

const SESSIONS: i64 = 16;
/// How late each replica applies a commit: apart, so that a session's reads meet both kinds of replica.
const DELAYS_MS: [u64; 2] = [10, 40];

/// What the checks found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) on_primary: u64,
    pub(super) on_replicas: u64,
    pub(super) violations: u64,
}

impl Tally {
    pub(super) fn checks(&self) -> u64 {
        self.on_primary + self.on_replicas
    }

    /// What speaks against exit code 0.
    pub(super) fn problem(&self) -> Option<String> {
        (self.violations > 0).then(|| format!("{} reads did not see their session's write", self.violations))
    }

    fn add(&mut self, other: Tally) {
        self.on_primary += other.on_primary;
        self.on_replicas += other.on_replicas;
        self.violations += other.violations;
    }
}

pub(super) async fn show(local: &Local, report: &mut Report, client: &Client, checks: u64) -> Result<Tally, TourError> {
    let delays = DELAYS_MS.map(|ms| format!("{ms} ms")).join(" and ");
    report.step(&format!(
        "{SESSIONS} sessions write and read back at once, again and again, until a replica answers; replay is {delays} late"
    ));
    for (replica, delay) in local.cluster.replicas().iter().zip(DELAYS_MS) {
        replica.apply_delay(Duration::from_millis(delay)).await?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let mut sessions = JoinSet::new(); // aborted when it is dropped
    for id in 1..=SESSIONS {
        let session = Session {
            id,
            client: client.for_session(format!("session-{id}")),
            topology: local.app.topology().clone(),
            done: Arc::clone(&done),
            checks,
        };
        sessions.spawn(session.run());
    }
    let mut tally = Tally::default();
    while let Some(ended) = sessions.join_next().await {
        let ended = ended.map_err(|error| TourError::NotShown(error.to_string()))?;
        tally.add(ended?);
    }
    let Tally { on_primary, on_replicas, violations } = tally;
    let line = format!("{} reads: {on_replicas} on replicas, {on_primary} on the primary, 0 failed", tally.checks());
    let numbers =
        json!({ "on_replicas": on_replicas, "on_primary": on_primary, "violations": violations, "failed": 0 });
    report.sum(&line, numbers);
    demand(on_primary > 0 && on_replicas > 0, "not both the primary and the replicas took reads")?;
    Ok(tally)
}

struct Session {
    id: i64,
    client: Client,
    topology: Topology,
    /// Checks of all sessions so far, and how many there shall be.
    done: Arc<AtomicU64>,
    checks: u64,
}

impl Session {
    async fn run(self) -> Result<Tally, TourError> {
        let sql = "INSERT INTO visits VALUES ($1, 0)";
        self.client.execute(sql, params![self.id]).await.map_err(call("a session's first write"))?;
        let mut tally = Tally::default();
        let mut written = 0;
        while self.done.load(Ordering::Relaxed) < self.checks {
            written += 1;
            let round = tokio::time::timeout(PATIENCE, self.round(written, &mut tally));
            round.await.map_err(|_| TourError::TimedOut { what: "a replica serves a session's read" })??;
        }
        Ok(tally)
    }

    /// One write, and the reads behind it.
    async fn round(&self, written: i64, tally: &mut Tally) -> Result<(), TourError> {
        let sql = "UPDATE visits SET n = $2 WHERE id = $1";
        self.client.execute(sql, params![self.id, written]).await.map_err(call("a session's write"))?;
        let mut changes = self.topology.changes();
        loop {
            changes.mark_unchanged();
            let (n, receipt) = read(&self.client, self.id).await?;
            self.done.fetch_add(1, Ordering::Relaxed);
            tally.violations += u64::from(n != written);
            if receipt.role() == HostRole::Replica {
                tally.on_replicas += 1;
                return Ok(());
            }
            tally.on_primary += 1;
            let stopped = |_| TourError::NotShown("the broker has stopped".into());
            changes.changed().await.map_err(stopped)?;
        }
    }
}
