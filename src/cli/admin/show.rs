//! What a broker tells operators, for programs and for people.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_client::proto::{
    ClusterState, ExplainRouteResponse, FloorState, HostHealth, HostRole, HostState, Standing, Topology,
};

pub(super) fn topology_json(topology: &Topology) -> Value {
    json!({ "clusters": topology.clusters.iter().map(cluster_json).collect::<Vec<_>>() })
}

pub(super) fn cluster_json(cluster: &ClusterState) -> Value {
    json!({
        "name": cluster.name,
        "primary": some(&cluster.primary),
        "lease_seconds": seconds(cluster.lease),
        "conflict": cluster.conflict,
        // As text: it has more digits than JSON's numbers are sure to keep.
        "system_identifier": cluster.system_identifier.to_string(),
        "timeline": cluster.timeline,
        "insert_lsn": some(&cluster.insert_lsn),
        "floor": match cluster.floor() {
            FloorState::Unspecified => Value::Null,
            FloorState::Unknown => "unknown".into(),
            FloorState::Binds => "binds".into(),
            FloorState::Past => "past".into(),
        },
        "hosts": cluster.hosts.iter().map(host_json).collect::<Vec<_>>(),
    })
}

pub(super) fn host_json(host: &HostState) -> Value {
    let pools = host.pools.iter().map(|pool| {
        json!({
            "kind": pool.kind,
            "open": pool.open,
            "in_use": pool.in_use,
            "waiting": pool.waiting,
            "limit": pool.limit,
        })
    });
    json!({
        "name": host.name,
        "role": role(host),
        "health": health(host),
        "quarantine_seconds": seconds(host.quarantine_left),
        "share_percent": host.share_percent,
        "lag_seconds": seconds(host.lag),
        "lag_bytes": host.lag_bytes,
        "lsn": some(&host.lsn),
        "timeline": host.timeline,
        "drained": host.drained,
        "refused": some(&host.refused),
        "pools": pools.collect::<Vec<_>>(),
    })
}

pub(super) fn route_json(route: &ExplainRouteResponse) -> Value {
    let standings = route.standings.iter().map(|it| json!({ "host": it.host, "standing": standing(it.standing()) }));
    json!({
        "cluster": route.cluster,
        "reason": route.rejection.is_empty().then(|| reason(route)),
        "hosts": route.hosts,
        "waits": route.waits,
        "rejection": some(&route.rejection),
        "required_lsn": some(&route.required_lsn),
        "binding": route.binding,
        "standings": standings.collect::<Vec<_>>(),
    })
}

pub(super) fn topology_text(topology: &Topology) -> String {
    topology.clusters.iter().map(cluster_text).collect::<Vec<_>>().join("\n\n")
}

fn cluster_text(cluster: &ClusterState) -> String {
    let primary = match (cluster.conflict.as_slice(), cluster.primary.as_str()) {
        ([], "") => "no primary".to_owned(),
        ([], primary) => format!("primary {primary}, timeline {}, at {}", cluster.timeline, cluster.insert_lsn),
        (claimants, _) => format!("CONFLICT: {} claim to be the primary", claimants.join(", ")),
    };
    let head = ["host", "role", "health", "lag", "bytes", "LSN", "in use", ""].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(cluster.hosts.iter().map(|host| {
        let lag = seconds(host.lag).map(|lag| format!("{lag:.1}s")).unwrap_or_default();
        let bytes = host.lag_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        let role = role(host).to_owned();
        [
            host.name.clone(),
            role,
            health(host).to_owned(),
            lag,
            bytes,
            host.lsn.clone(),
            in_use(host).to_string(),
            remarks(host),
        ]
    }));
    format!("cluster {}: {primary}\n{}", cluster.name, aligned(&rows))
}

/// What is unusual about a host.
fn remarks(host: &HostState) -> String {
    let mut remarks = Vec::new();
    if host.drained {
        remarks.push("drained".to_owned());
    }
    if let Some(left) = seconds(host.quarantine_left) {
        remarks.push(format!("quarantined for {left:.0}s"));
    }
    if host.share_percent < 100 {
        remarks.push(format!("{} % of its share", host.share_percent));
    }
    if host.role() == HostRole::Replica && host.timeline == 0 {
        remarks.push("its history is not proved".to_owned());
    }
    if !host.refused.is_empty() {
        remarks.push(format!("takes no part: {}", host.refused));
    }
    remarks.join(", ")
}

pub(super) fn route_text(route: &ExplainRouteResponse) -> String {
    let mut lines = vec![format!("cluster    {}", route.cluster)];
    lines.push(match route.rejection.as_str() {
        "" => format!("goes to    {} ({})", route.hosts.join(" or "), reason(route)),
        rejection => format!("fails      {rejection}"),
    });
    if route.waits {
        lines.push("but first  it waits for a replica".to_owned());
    }
    lines.push(format!("bound by   {}", route.binding));
    let rows: Vec<_> =
        route.standings.iter().map(|it| ["".to_owned(), it.host.clone(), in_words(it.standing()).to_owned()]).collect();
    lines.push(aligned(&rows));
    lines.join("\n")
}

/// Columns padded to their widest.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let line = |row: &[String; N]| {
        let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn in_use(host: &HostState) -> u32 {
    host.pools.iter().map(|pool| pool.in_use).sum()
}

pub(super) fn health(host: &HostState) -> &'static str {
    match host.health() {
        HostHealth::Unspecified | HostHealth::Unknown => "unknown",
        HostHealth::Up => "up",
        HostHealth::Suspect => "suspect",
        HostHealth::Down => "down",
        HostHealth::Quarantined => "quarantined",
    }
}

fn role(host: &HostState) -> &'static str {
    match host.role() {
        HostRole::Unspecified => "unknown",
        HostRole::Primary => "primary",
        HostRole::Replica => "replica",
    }
}

fn reason(route: &ExplainRouteResponse) -> &'static str {
    route.reason().as_str_name().trim_start_matches("ROUTE_REASON_")
}

fn standing(standing: Standing) -> &'static str {
    standing.as_str_name().trim_start_matches("STANDING_")
}

fn in_words(standing: Standing) -> &'static str {
    match standing {
        Standing::Unspecified => "",
        Standing::Takes => "may take it",
        Standing::NotNeeded => "others come first",
        Standing::NotUp => "is not up",
        Standing::Drained => "is drained",
        Standing::NotPrimary => "is not the primary",
        Standing::OtherHistory => "is not proved to be on the primary's history",
        Standing::Behind => "has yet to replay the required position",
        Standing::Stale => "is too far behind",
        Standing::OtherPrimary => "says it is a primary, and is not the cluster's",
    }
}

fn seconds(duration: Option<prost_types::Duration>) -> Option<f64> {
    duration.and_then(|given| Duration::try_from(given).ok()).map(|given| given.as_secs_f64())
}

/// Nothing instead of an empty text.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
