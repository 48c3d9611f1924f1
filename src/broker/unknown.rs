//! After a write of unknown outcome: its session reads from the primary until the backend that may still be committing
//! is known to be gone, or its server to be none of the cluster's, and one stick timeout longer (rule 3).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Broker, Receipt, database::Database, reach::Reach};
use crate::{
    clock,
    model::{ClusterId, ClusterView, HostId},
    postgres::{Facts, ProbeConnection, Target},
};

/// Between two looks for the backend: at first, and after a while. Well below any stick timeout.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// One look's limit.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A write that may still be committed.
struct Doubt {
    cluster: ClusterId,
    /// The host that it was sent to.
    host: HostId,
    facts: Facts,
    /// Behind a proxy: when the doubt began.
    since: Option<Instant>,
}

/// Where the server of a doubt is by now.
#[derive(Debug, PartialEq, Eq)]
enum Whereabouts {
    /// Behind this host, by whatever name.
    At(HostId),
    /// Its host left, and nobody is the primary: it may be back by another name.
    Away,
    /// Its host or cluster left, and if there is a primary, it is another server: what commits there is seen by nobody.
    Gone,
}

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
        let since = database.is_pooled().then(clock::now);
        let doubt = Doubt { cluster: database.cluster, host: receipt.host_id, facts: facts.clone(), since };
        let (broker, reach) = (Arc::clone(self), reach.clone());
        // Not among the tasks that a drain waits for: nobody waits for this.
        tokio::spawn(async move {
            let _counted = broker.metrics.unknown_watched();
            let mut pause = FIRST_PAUSE;
            while !broker.stop.is_cancelled() && !broker.is_settled(&doubt).await {
                reach.extend_unknown(&broker);
                broker.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
            reach.extend_unknown(&broker);
        });
    }

    /// Whether the primary that these facts are of was left behind, and commits nothing that this broker would ever show;
    /// or has restarted, and has decided already.
    pub(super) fn is_superseded(&self, cluster: ClusterId, host: HostId, facts: &Facts) -> bool {
        let snapshot = self.topology.snapshot();
        let view = snapshot.cluster(cluster);
        let restarted = view.host(host).is_some_and(|host| ![0, facts.started_us].contains(&host.incarnation));
        view.timeline > facts.timeline || restarted
    }

    async fn is_settled(&self, doubt: &Doubt) -> bool {
        let Doubt { cluster, host, facts, since } = doubt;
        if self.is_superseded(*cluster, *host, facts) {
            return true;
        }
        let whereabouts = Whereabouts::of(self.topology.snapshot().cluster(*cluster), *host, facts.started_us);
        match whereabouts {
            Whereabouts::At(host) => match self.target(*cluster, host) {
                Some(target) => self.look(&target, facts, *since).await,
                // No database is there any more.
                None => true,
            },
            Whereabouts::Away => false,
            Whereabouts::Gone => true,
        }
    }

    /// How to ask a host, by whichever database: backends are the server's.
    fn target(&self, cluster: ClusterId, host: HostId) -> Option<Target> {
        let databases = self.databases.load();
        let mut sides = databases.values().flat_map(|served| served.sides()).filter(|side| side.cluster == cluster);
        sides.find_map(|side| side.hosts.target(host))
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

impl Whereabouts {
    /// Of the server that was behind `host`, and whose postmaster started then. A cluster that left has no hosts.
    fn of(view: &ClusterView, host: HostId, started_us: u64) -> Whereabouts {
        let is_it = |other: &HostId| view.host(*other).is_some_and(|view| view.incarnation == started_us);
        let by_another_name = || view.hosts.iter().map(|view| view.id).find(is_it);
        match view.host(host).map(|view| view.id).or_else(by_another_name) {
            Some(host) => Whereabouts::At(host),
            // Positions do not expire meanwhile, but they do once it is back.
            None if view.primary.is_none() && !view.hosts.is_empty() => Whereabouts::Away,
            None => Whereabouts::Gone,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_support::{CLUSTER, histories, replica, view};

    #[test]
    fn a_server_is_found_under_any_name_awaited_while_there_is_no_primary_and_else_gone() {
        let histories = histories(&[1, 100]);
        let replicas = vec![replica(1, histories.current(CLUSTER).unwrap(), 150, 0)];
        let mut before = view(&histories, 150, replicas);
        before.hosts[0].incarnation = 7;
        let host = HostId::new(0);
        let whereabouts = |view: &ClusterView| Whereabouts::of(view, host, 7);
        assert_eq!(whereabouts(&before), Whereabouts::At(host));
        let mut down = before.clone();
        (down.primary, down.hosts[0].incarnation) = (None, 0);
        assert_eq!(whereabouts(&down), Whereabouts::At(host), "it did not leave");

        // Its place is another host's: of the same server, of one that is not known yet, of another server.
        let next = host.next_occupant();
        let mut renamed = before.clone();
        (renamed.hosts[0].id, renamed.primary) = (next, Some(next));
        assert_eq!(whereabouts(&renamed), Whereabouts::At(next));
        (renamed.hosts[0].incarnation, renamed.primary) = (0, None);
        assert_eq!(whereabouts(&renamed), Whereabouts::Away);
        (renamed.hosts[0].incarnation, renamed.primary) = (8, Some(next));
        assert_eq!(whereabouts(&renamed), Whereabouts::Gone);

        let mut removed = before.clone();
        removed.hosts.remove(0);
        removed.primary = None;
        assert_eq!(whereabouts(&removed), Whereabouts::Away, "it may be added again");
        removed.primary = Some(HostId::new(1));
        assert_eq!(whereabouts(&removed), Whereabouts::Gone);
        let no_cluster = ClusterView { hosts: Vec::new(), primary: None, ..before };
        assert_eq!(whereabouts(&no_cluster), Whereabouts::Gone);
    }
}
