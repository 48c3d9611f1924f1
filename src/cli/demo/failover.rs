//! The last step: the primary dies, and a replica is promoted.

use tidegate_client::{HostRole, params};

use super::tour::{Tour, TourError, call, demand};
use crate::dev::Server;

impl Tour<'_> {
    pub(super) async fn failover(&mut self) -> Result<(), TourError> {
        let cluster = &self.local.cluster;
        let (heir, other) = (cluster.replica(0), cluster.replica(1));
        self.report
            .step(&format!("The primary dies, {} is promoted: the session goes on, on the new timeline", heir.name()));
        for replica in cluster.replicas() {
            replica.reset("recovery_min_apply_delay").await?;
            // What no replica has received would be lost: this shows the promise, not a loss.
            replica.catch_up(cluster.primary()).await?;
        }
        cluster.primary().kill().await?;
        heir.promote().await?;
        other.follow(heir).await?;
        self.found(heir, other).await?;
        let sql = "UPDATE visits SET n = n + 1 WHERE id = 0";
        let written = self.writer.execute(sql, params![]).await.map_err(call("the write"))?;
        self.report.call("session `writer` increments it to 3", &written.receipt);
        let receipt = &written.receipt;
        let is_heir = (receipt.host.as_str(), receipt.role()) == (heir.name(), HostRole::Primary);
        demand(is_heir, "the write did not go to the new primary")?;
        demand(receipt.timeline > 1, "the new primary is on the old timeline")?;
        self.read_from_replica(3).await
    }

    /// Waits until the broker has found the new primary, and that the other replica follows it.
    async fn found(&self, heir: &Server, other: &Server) -> Result<(), TourError> {
        let found = self.local.wait_until(|view| {
            let primary = view.primary_host().is_some_and(|host| &*host.name == heir.name());
            let follows = view.hosts.iter().any(|host| {
                let follows = host.history == view.history && host.passed_sample_at.is_some();
                &*host.name == other.name() && host.is_up_replica() && follows
            });
            primary && follows
        });
        if found.await { Ok(()) } else { Err(TourError::TimedOut { what: "the broker finds the new primary" }) }
    }
}
