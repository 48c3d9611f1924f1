//! After a write of unknown outcome: its session reads from the primary until the backend that may still be committing
//! is known to be gone, and one stick timeout longer (rule 3).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Broker, Receipt, database::Database, reach::Reach};
use crate::{
    clock,
    model::{ClusterId, HostId},
    postgres::{Facts, ProbeConnection, Target},
};

/// Between two looks for the backend: at first, and after a while. Well below any stick timeout.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// One look's limit.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

impl Broker {
    /// Counts the unknown outcome, and keeps the caller's session on the primary until it is settled.
    pub(super) fn watch_unknown(
        self: &Arc<Self>,
        database: &Database,
        receipt: &Receipt,
        facts: &Facts,
        reach: &Reach,
    ) {
        self.metrics.unknown_outcome();
        tracing::warn!(cluster = %receipt.cluster, host = %receipt.host, backend = facts.backend_pid, "the outcome of a write is unknown");
        if !reach.has_session() {
            return;
        }
        let (broker, reach, facts) = (Arc::clone(self), reach.clone(), facts.clone());
        let pooled = database.is_pooled();
        let (cluster, host) = (database.cluster, receipt.host_id);
        // Its place was taken by yet another one: the session waits for one stick timeout.
        let Some(target) = database.hosts.target(host) else { return };
        // Not among the tasks that a drain waits for: nobody waits for this.
        tokio::spawn(async move {
            let superseded = || broker.is_superseded(cluster, host, &facts);
            let mut pause = FIRST_PAUSE;
            let since = pooled.then(clock::now);
            while !broker.stop.is_cancelled() && !superseded() && !broker.look(&target, &facts, since).await {
                reach.extend_unknown(&broker);
                broker.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            reach.extend_unknown(&broker);
        });
    }
}

impl Broker {
    /// Whether the primary that these facts are of was left behind, and commits nothing that this broker would ever show;
    /// or has restarted, and has decided already.
    pub(super) fn is_superseded(&self, cluster: ClusterId, host: HostId, facts: &Facts) -> bool {
        let snapshot = self.topology.snapshot();
        let view = snapshot.cluster(cluster);
        let restarted = view.host(host).is_some_and(|host| ![0, facts.started_us].contains(&host.incarnation));
        view.timeline > facts.timeline || restarted
    }

    /// [`is_gone`], a few at a time: many writes are of unknown outcome at once, and the server may have little to spare.
    async fn look(&self, target: &Target, facts: &Facts, since: Option<Instant>) -> bool {
        match self.looks.acquire().await {
            Ok(_one_of_few) => is_gone(target, facts, since).await,
            // Never closed; should it be, nothing is proved.
            Err(_) => false,
        }
    }
}

/// Whether the backend can commit no more: it has ended, or its server has restarted. A proxy lets it live on: then it is
/// enough that it is in no transaction that may be older than the doubt, which began at `since`.
async fn is_gone(target: &Target, facts: &Facts, since: Option<Instant>) -> bool {
    // A server that cannot be asked proves nothing.
    let Ok(connection) = ProbeConnection::open(target).await else { return false };
    if connection.identity().started_us != facts.started_us {
        return true;
    }
    let doubt = since.map(|since| clock::now().saturating_duration_since(since));
    connection.backend_is_gone(facts.backend_pid, doubt, LOOK_LIMIT).await.unwrap_or(false)
}
