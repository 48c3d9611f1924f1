//! What the broker tells operators, as messages.

use std::time::{Duration, Instant};

use crate::{
    broker::{ClusterReport, RolloutReport, RouteAccount},
    grpc::reply::route_reason,
    model::{ClusterView, Decision, Floor, HostHealth, HostId, HostView, Lsn, Role, Standing},
    proto,
    telemetry::PoolGauges,
};

/// All clusters.
pub(super) fn topology(reports: &[ClusterReport], now: Instant) -> proto::Topology {
    proto::Topology { clusters: reports.iter().map(|report| cluster(report, now)).collect() }
}

/// One cluster.
pub(super) fn cluster(report: &ClusterReport, now: Instant) -> proto::ClusterState {
    let view = &report.view;
    let name = |id: HostId| view.host(id).map(|host| host.name.to_string()).unwrap_or_default();
    let claimants = view.hosts.iter().filter(|host| view.conflict && view.claimants.contains(host.id));
    proto::ClusterState {
        name: view.name.to_string(),
        primary: view.primary.map(name).unwrap_or_default(),
        lease: view.lease_until.and_then(|until| left(until, now)),
        conflict: claimants.map(|host| host.name.to_string()).collect(),
        system_identifier: view.system_identifier.unwrap_or_default(),
        timeline: view.timeline.map_or(0, |timeline| timeline.get()),
        insert_lsn: lsn(view.newest_sample.map(|sample| sample.insert)),
        floor: match view.floor {
            Floor::Unknown => proto::FloorState::Unknown,
            Floor::At { until, .. } if now < until => proto::FloorState::Binds,
            Floor::At { .. } | Floor::NotNeeded => proto::FloorState::Past,
        }
        .into(),
        hosts: view.hosts.iter().zip(&report.pools).map(|(one, pools)| host(view, one, pools, now)).collect(),
    }
}

/// One host.
pub(super) fn host(view: &ClusterView, host: &HostView, pools: &[PoolGauges], now: Instant) -> proto::HostState {
    let is_replica = host.role == Some(Role::Replica);
    let is_on_history = view.history.is_some() && host.history == view.history;
    proto::HostState {
        name: host.name.to_string(),
        role: role(host.role).into(),
        health: match host.health {
            HostHealth::Unknown => proto::HostHealth::Unknown,
            HostHealth::Up => proto::HostHealth::Up,
            HostHealth::Suspect => proto::HostHealth::Suspect,
            HostHealth::Down => proto::HostHealth::Down,
            HostHealth::Quarantined => proto::HostHealth::Quarantined,
        }
        .into(),
        quarantine_left: host.quarantined_until.and_then(|until| left(until, now)),
        share_percent: host.ramp(now).into(),
        lag: view.staleness(host, now).filter(|_| is_replica).and_then(|lag| lag.try_into().ok()),
        lag_bytes: view.lag_bytes(host).filter(|_| is_replica),
        lsn: lsn(host.replay),
        timeline: view.timeline.filter(|_| is_on_history).map_or(0, |timeline| timeline.get()),
        drained: host.drained,
        refused: host.refused.as_deref().unwrap_or_default().to_owned(),
        pools: by_kind(pools),
    }
}

/// Pools of one kind together: each database has its own, within the host's one limit.
fn by_kind(pools: &[PoolGauges]) -> Vec<proto::PoolState> {
    let mut kinds: Vec<proto::PoolState> = Vec::new();
    for pool in pools {
        let index = kinds.iter().position(|known| known.kind == pool.kind).unwrap_or_else(|| {
            kinds.push(proto::PoolState { kind: pool.kind.to_owned(), ..Default::default() });
            kinds.len() - 1
        });
        let sum = &mut kinds[index];
        sum.open = sum.open.saturating_add(pool.size);
        sum.in_use = sum.in_use.saturating_add(pool.in_use);
        sum.waiting = sum.waiting.saturating_add(pool.waiting);
        sum.limit = sum.limit.max(pool.limit);
    }
    kinds
}

/// Where a call would go.
pub(super) fn route(explained: &RouteAccount) -> proto::ExplainRouteResponse {
    let RouteAccount { view, account, binding, rule } = explained;
    let (reason, required, rejection) = match account.decision {
        Decision::Send { reason, required, .. } => (route_reason(reason), required, ""),
        Decision::Reject(rejection) => (proto::RouteReason::Unspecified, None, rejection.as_str()),
        // The account is of what comes without waiting.
        Decision::Wait { lsn, .. } => (proto::RouteReason::Unspecified, lsn, ""),
    };
    let named = |(id, standing): &(HostId, Standing)| {
        let host = view.host(*id)?.name.to_string();
        Some(proto::HostStanding { host, standing: self::standing(*standing).into() })
    };
    proto::ExplainRouteResponse {
        cluster: view.name.to_string(),
        reason: reason.into(),
        hosts: explained.hosts(),
        waits: account.waits,
        rejection: rejection.to_owned(),
        required_lsn: lsn(required),
        binding: binding.clone(),
        standings: account.standings.iter().filter_map(named).collect(),
        rule: rule.as_deref().unwrap_or_default().to_owned(),
    }
}

pub(super) fn rollout(report: RolloutReport) -> proto::Rollout {
    proto::Rollout {
        database: report.database,
        origin_cluster: report.origin,
        own_cluster: report.own,
        use_own: report.state.use_own,
        reuse_primary: report.state.reuse_primary,
        percentage: f64::from(report.state.percentage.hundredths()) / 100.0,
    }
}

fn standing(standing: Standing) -> proto::Standing {
    match standing {
        Standing::Takes => proto::Standing::Takes,
        Standing::NotNeeded => proto::Standing::NotNeeded,
        Standing::NotUp => proto::Standing::NotUp,
        Standing::Drained => proto::Standing::Drained,
        Standing::NotPrimary => proto::Standing::NotPrimary,
        Standing::OtherHistory => proto::Standing::OtherHistory,
        Standing::Behind => proto::Standing::Behind,
        Standing::Stale => proto::Standing::Stale,
        Standing::OtherPrimary => proto::Standing::OtherPrimary,
    }
}

fn role(role: Option<Role>) -> proto::HostRole {
    match role {
        None => proto::HostRole::Unspecified,
        Some(Role::Primary) => proto::HostRole::Primary,
        Some(Role::Replica) => proto::HostRole::Replica,
    }
}

fn lsn(lsn: Option<Lsn>) -> String {
    lsn.map(|lsn| lsn.to_string()).unwrap_or_default()
}

fn left(until: Instant, now: Instant) -> Option<prost_types::Duration> {
    let left = until.saturating_duration_since(now);
    (left > Duration::ZERO).then(|| left.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_one_kind_have_their_sum_within_one_limit() {
        let pool = |kind, in_use| PoolGauges { kind, size: in_use + 1, idle: 1, in_use, waiting: 2, limit: 10 };
        let kinds = by_kind(&[pool("read", 1), pool("write", 5), pool("read", 3)]);
        let sum = |kind: &str, open, in_use, waiting| {
            let kind = kind.to_owned();
            proto::PoolState { kind, open, in_use, waiting, limit: 10 }
        };
        assert_eq!(kinds, [sum("read", 6, 4, 4), sum("write", 6, 5, 2)]);
    }
}
