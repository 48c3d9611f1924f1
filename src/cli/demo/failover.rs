//! The last step: the primary dies, and a replica is promoted.

use serde_json::json;
use tidegate_client::{HostRole, params};

use super::tour::{Tour, TourError, call, demand, read};
use crate::{clock, dev::Server};

/// The row that the step writes, and what it is before.
const ROW: i64 = 0;
const BEFORE: i64 = 2;

impl Tour<'_> {
    pub(super) async fn failover(&mut self) -> Result<(), TourError> {
        let cluster = &self.local.cluster;
        let (heir, other) = (cluster.replica(0), cluster.replica(1));
        self.report.step(&format!(
            "The primary dies, {} is promoted: a write waits for it, and the session goes on, on the new timeline",
            heir.name()
        ));
        for replica in cluster.replicas() {
            replica.reset("recovery_min_apply_delay").await?;
            // What no replica has received would be lost: this shows the promise, not a loss.
            replica.catch_up(cluster.primary()).await?;
        }
        cluster.primary().kill().await?;
        let writer = self.writer.clone();
        let write = tokio::spawn(async move {
            let written = writer.execute("UPDATE visits SET n = n + 1 WHERE id = $1", params![ROW]).await;
            (written, clock::now())
        });
        let mut reads = 0;
        let promotion = async {
            heir.promote().await?;
            Ok::<_, TourError>(clock::now())
        };
        let (promoted_at, written) = tokio::try_join!(promotion, async {
            // Meanwhile the session reads on: its last write, until the next one is done.
            while !write.is_finished() {
                let (n, _) = read(&self.writer, ROW).await?;
                demand(n == BEFORE || n == BEFORE + 1, "a read went back behind the session's own write")?;
                reads += 1;
            }
            write.await.map_err(|error| TourError::NotShown(error.to_string()))
        })?;
        let (written, written_at) = written;
        let written = written.map_err(call("the write"))?;
        self.report.call("session `writer` increments it to 3", &written.receipt);
        let receipt = &written.receipt;
        let is_heir = (receipt.host.as_str(), receipt.role()) == (heir.name(), HostRole::Primary);
        demand(is_heir, "the write did not go to the new primary")?;
        demand(receipt.timeline > 1, "the new primary is on the old timeline")?;
        let late = written_at.saturating_duration_since(promoted_at).as_secs_f64() * 1e3;
        let said = match late {
            0.0 => "before the promotion was confirmed".to_owned(),
            late => format!("{late:.0} ms after the promotion"),
        };
        let what = format!("it was answered {said}; the session read {reads} times meanwhile, 0 violations");
        self.report.sum(&what, json!({ "written_after_promotion_ms": late, "reads_meanwhile": reads }));
        other.follow(heir).await?;
        self.found(heir, other).await?;
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
