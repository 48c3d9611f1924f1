//! What an operator asks and decides: the hosts as they are known, where a call would go, and whom a host is kept from. The
//! calls themselves are `read`'s and `write`'s.

use tokio::sync::watch;

use super::{
    Broker, Context, Failure, Reason,
    choose::Chooser,
    placement::{Planned, ReadPlan, Side},
    reach::Reach,
};
use crate::{
    clock,
    model::{
        Account, Binding, ClusterView, Consistency, Decision, HostId, HostSet, HostView, RouteReason, RouteRequest,
        account_for_read, account_for_write,
    },
    telemetry::PoolGauges,
    topology::HostKey,
};
use std::{sync::Arc, time::Duration};

/// A cluster as it is known at one moment.
#[derive(Debug, Clone)]
pub struct ClusterReport {
    /// What routing goes by.
    pub view: ClusterView,
    /// The pools of each host, in the order of the view's.
    pub pools: Vec<Vec<PoolGauges>>,
}

impl ClusterReport {
    /// A host with its pools.
    pub fn host(&self, id: HostId) -> Option<(&HostView, &[PoolGauges])> {
        let index = self.view.hosts.iter().position(|host| host.id == id)?;
        Some((&self.view.hosts[index], self.pools.get(index)?))
    }
}

/// A host as an operator names it.
#[derive(Debug, Clone, Default)]
pub struct PlaceName {
    /// The cluster; empty: the only one with a host of that name.
    pub cluster: String,
    /// The host.
    pub host: String,
}

/// Where a call would go.
#[derive(Debug, Clone)]
pub struct RouteAccount {
    /// The cluster as it was judged.
    pub view: ClusterView,
    /// What would become of the call.
    pub account: Account,
    /// What binds it, in a few words.
    pub binding: String,
    /// The name of the rule that the read meets.
    pub rule: Option<Arc<str>>,
}

impl Broker {
    /// Resolves when what is known of the hosts has changed since this receiver last looked.
    pub fn topology_changes(&self) -> watch::Receiver<u64> {
        self.topology.changes()
    }

    /// Resolves once a drain began.
    pub async fn drain_begun(&self) {
        self.draining.cancelled().await;
    }

    /// All clusters as they are known now.
    pub fn report(&self) -> Vec<ClusterReport> {
        let snapshot = self.topology.snapshot();
        let report = |view: &ClusterView| ClusterReport {
            pools: view.hosts.iter().map(|host| self.pool_gauges(view, host.id)).collect(),
            view: view.clone(),
        };
        snapshot.clusters.iter().map(report).collect()
    }

    /// Where such a read would go now. Nothing runs, and no turn is taken.
    ///
    /// # Errors
    /// As for the read: a database, session id or token that is not acceptable.
    pub fn explain_read(
        &self,
        context: &Context,
        (consistency, is_stated): (Consistency, bool),
        max_wait: Option<Duration>,
    ) -> Result<RouteAccount, Failure> {
        let Planned { plan, rule, .. } = self.plan(context, consistency, is_stated)?;
        let ReadPlan { side, otherwise, consistency, by_rule } = plan;
        let followed = otherwise.as_ref().map(|side| self.chooser(side, &consistency, by_rule, None));
        let chooser = self.chooser(&side, &consistency, by_rule, followed.as_ref());
        let now = clock::now();
        let snapshot = self.topology.snapshot();
        let view = snapshot.cluster(side.database.cluster);
        let max_wait = max_wait.unwrap_or(self.settings().max_wait);
        let wait_until = (consistency.can_wait() && !max_wait.is_zero()).then(|| now + max_wait);
        let request = RouteRequest { wait_until, ..chooser.request(&snapshot, HostSet::EMPTY, now) };
        let binding = match consistency.heeds_positions() {
            true => in_words(request.binding),
            false => "nothing: its consistency heeds no positions".to_owned(),
        };
        let mut account = account_for_read(view, &request);
        // Hosts that follow the primary of another cluster have none of their own: that one's cluster is next.
        if let (Decision::Reject(_), Some(next)) = (&account.decision, &followed) {
            let view = snapshot.cluster(next.database.cluster);
            let request = next.request(&snapshot, HostSet::EMPTY, now);
            return Ok(RouteAccount { view: view.clone(), account: account_for_read(view, &request), binding, rule });
        }
        if let Decision::Send { reason, .. } = &mut account.decision
            && by_rule
            && consistency != Consistency::Strong
        {
            *reason = RouteReason::Rule;
        }
        Ok(RouteAccount { view: view.clone(), account, binding, rule })
    }

    /// Where a write would go now.
    ///
    /// # Errors
    /// As for the write: a database, session id or token that is not acceptable.
    pub fn explain_write(&self, context: &Context) -> Result<RouteAccount, Failure> {
        let placed = self.place(context)?;
        let database = placed.primary();
        Reach::of(self, database, context)?;
        let view = self.topology.snapshot().cluster(database.cluster).clone();
        let account = account_for_write(&view);
        Ok(RouteAccount { account, view, binding: "nothing: a write".to_owned(), rule: None })
    }

    fn chooser<'a>(
        &'a self,
        side: &'a Side,
        consistency: &'a Consistency,
        by_rule: bool,
        next: Option<&'a Chooser<'a>>,
    ) -> Chooser<'a> {
        let Side { database, reach, elsewhere, .. } = side;
        Chooser { broker: self, database, reach, consistency, by_rule, elsewhere: elsewhere.as_deref(), next }
    }

    /// Keeps new reads from a host, or lets it take them again; answers its cluster and its id once routing goes by it.
    ///
    /// # Errors
    /// No such host; or it is to be drained and is a primary.
    pub async fn set_drained(&self, name: &PlaceName, drained: bool) -> Result<(ClusterReport, HostId), Failure> {
        let key = self.find(name)?;
        if self.topology.set_drained(key, drained).await {
            return self.reported(name, key);
        }
        // It may have left meanwhile.
        self.reported(name, key)?;
        let message = format!(
            "{} is a primary, which no other host can stand in for: switch over first (promote a replica, stop this one), \
             and drain it then",
            name.host
        );
        Err(Failure::field(Reason::HostIsPrimary, "host", message))
    }

    /// Decides for one of several hosts that claim to be the primary; answers the cluster.
    ///
    /// # Errors
    /// No such host, no conflict, or the host is no part of it.
    pub async fn settle_conflict(&self, name: &PlaceName) -> Result<ClusterReport, Failure> {
        let key = self.find(name)?;
        if self.topology.settle_conflict(key).await {
            return Ok(self.reported(name, key)?.0);
        }
        let (report, _) = self.reported(name, key)?;
        let claimants = names(&report.view, report.view.claimants);
        let message = match report.view.conflict {
            true => format!("{} is not among the hosts that claim to be the primary: {claimants}", name.host),
            false => format!("there is no conflict in cluster {}: nothing is to be decided", report.view.name),
        };
        Err(Failure::field(Reason::NoConflict, "host", message))
    }

    fn reported(&self, name: &PlaceName, key: HostKey) -> Result<(ClusterReport, HostId), Failure> {
        let report = self.report().into_iter().find(|report| report.view.id == key.cluster);
        let report = report.filter(|report| report.host(key.host).is_some());
        report.map(|report| (report, key.host)).ok_or_else(|| self.unknown(name))
    }

    fn find(&self, name: &PlaceName) -> Result<HostKey, Failure> {
        let snapshot = self.topology.snapshot();
        let meant = |view: &&ClusterView| name.cluster.is_empty() || *view.name == *name.cluster;
        let mut found = snapshot.clusters.iter().filter(meant).filter_map(|view| {
            let host = view.hosts.iter().find(|host| *host.name == *name.host)?;
            Some(HostKey { cluster: view.id, host: host.id })
        });
        match (found.next(), found.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => {
                let message = format!("several clusters have a host {}: name the cluster", shown(&name.host));
                Err(Failure::field(Reason::FieldMissing, "host.cluster", message))
            }
            _ => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &PlaceName) -> Failure {
        let snapshot = self.topology.snapshot();
        let one = |view: &ClusterView| {
            let hosts: Vec<_> = view.hosts.iter().map(|host| &*host.name).collect();
            format!("{} (cluster {})", hosts.join(", "), view.name)
        };
        let all: Vec<_> = snapshot.clusters.iter().map(one).collect();
        let within = if name.cluster.is_empty() { String::new() } else { format!(" in {}", shown(&name.cluster)) };
        let message = format!("there is no host {}{within} here; there is {}", shown(&name.host), all.join("; "));
        Failure::field(Reason::HostUnknown, "host", message)
    }
}

impl RouteAccount {
    /// The names of the hosts that would take the call.
    pub fn hosts(&self) -> Vec<String> {
        let takes = self.account.standings.iter().filter(|(_, standing)| *standing == crate::model::Standing::Takes);
        let sent = matches!(self.account.decision, Decision::Send { .. });
        takes.filter(|_| sent).filter_map(|(id, _)| Some(self.view.host(*id)?.name.to_string())).collect()
    }
}

fn names(view: &ClusterView, hosts: HostSet) -> String {
    let named = view.hosts.iter().filter(|host| hosts.contains(host.id)).map(|host| &*host.name);
    named.collect::<Vec<_>>().join(", ")
}

/// A text that somebody gave, as far as it fits into a message.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(128).collect::<String>())
}

fn in_words(binding: Binding) -> String {
    match binding {
        Binding::NoPosition => "nothing: no position".to_owned(),
        Binding::Expired => "nothing: its positions have expired".to_owned(),
        Binding::At { lsn, may_be_lost: false } => format!("the position {lsn}"),
        Binding::At { lsn, may_be_lost: true } => format!("the position {lsn}; what was written beyond may be lost"),
        Binding::PrimaryOnly => "what it must see is not known: the primary alone".to_owned(),
        Binding::Ahead => "a position of a history that this broker has yet to see".to_owned(),
    }
}
