//! The verdict as a table with the findings behind it, and as JSON.

use serde_json::{Value, json};

use super::{
    init::Initialised,
    verdict::{ClusterVerdict, Finding, HostVerdict},
};
use crate::{config::ConfiguredRole, model::Timeline, postgres::Reading};

const HEAD: [&str; 9] =
    ["cluster", "host", "configured", "actual", "version", "timeline", "system", "lag", "pg_monitor"];

/// The table, then every problem and warning, then the sum.
pub(super) fn text(clusters: &[ClusterVerdict]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for cluster in clusters {
        rows.extend(cluster.hosts.iter().map(|host| row(&cluster.name, host)));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    lines.extend(clusters.iter().flat_map(pooler_lines));
    let findings: Vec<String> = clusters.iter().flat_map(finding_lines).collect();
    if !findings.is_empty() {
        lines.push(String::new());
        lines.extend(findings);
    }
    let well = clusters.iter().all(ClusterVerdict::is_well);
    lines.extend([String::new(), if well { "all is well" } else { "not well" }.to_owned()]);
    lines.join("\n")
}

fn line(row: &[String], widths: &[usize]) -> String {
    let padded = |(cell, width): (&String, &usize)| format!("{cell:width$}", width = *width);
    let cells: Vec<String> = row.iter().zip(widths).map(padded).collect();
    cells.join("  ").trim_end().to_owned()
}

fn row(cluster: &str, host: &HostVerdict) -> [String; 9] {
    let examined = &host.examined;
    let unknown = || "-".to_owned();
    let answer = examined.answer.as_ref().ok();
    [
        cluster.to_owned(),
        examined.name.clone(),
        configured(examined.configured).to_owned(),
        answer.map_or_else(|| "unreachable".to_owned(), |answer| actual(&answer.reading).to_owned()),
        answer.map_or_else(unknown, |answer| short_version(&answer.identity.version)),
        answer.and_then(|answer| timeline(&answer.reading)).map_or_else(unknown, |timeline| timeline.to_string()),
        host.is_of_cluster.map_or_else(unknown, |same| if same { "same" } else { "OTHER" }.to_owned()),
        host.lag_bytes.map_or_else(unknown, |bytes| format!("{bytes} B")),
        answer.map_or_else(unknown, |answer| if answer.identity.is_monitor { "yes" } else { "NO" }.to_owned()),
    ]
}

/// `15.14 (Debian 15.14-0+deb12u1)` is 15.14.
fn short_version(version: &str) -> String {
    version.split_whitespace().next().unwrap_or(version).to_owned()
}

/// Where a host's pooler leads, if it has one; what is wrong with one that cannot be used is among the findings.
fn pooler_lines(cluster: &ClusterVerdict) -> Vec<String> {
    let line = |host: &HostVerdict| {
        let facts = host.examined.pooler.as_ref()?.as_ref().ok()?;
        let role = if facts.in_recovery { "a replica" } else { "a primary" };
        let system = facts.system_identifier;
        Some(format!("{}/{}: its pooler leads to {role} of system {system}", cluster.name, host.examined.name))
    };
    cluster.hosts.iter().filter_map(line).collect()
}

fn finding_lines(cluster: &ClusterVerdict) -> Vec<String> {
    let line = |place: &str, finding: &Finding| {
        let kind = if finding.is_warning { "warning" } else { "problem" };
        format!("{kind}: {place}: {}: {}", finding.name, finding.message)
    };
    let mut lines = Vec::new();
    for host in &cluster.hosts {
        let place = format!("{}/{}", cluster.name, host.examined.name);
        lines.extend(host.findings.iter().map(|finding| line(&place, finding)));
    }
    lines.extend(cluster.findings.iter().map(|finding| line(&cluster.name, finding)));
    lines
}

/// One document.
pub(super) fn json(clusters: &[ClusterVerdict], tables: &[Initialised]) -> String {
    let cluster = |cluster: &ClusterVerdict| {
        let hosts: Vec<Value> = cluster.hosts.iter().map(host_json).collect();
        json!({ "name": cluster.name, "hosts": hosts, "findings": findings_json(&cluster.findings) })
    };
    let all: Vec<Value> = clusters.iter().map(cluster).collect();
    let well = clusters.iter().all(ClusterVerdict::is_well) && tables.iter().all(Initialised::is_well);
    let tables: Vec<Value> = tables.iter().map(Initialised::json).collect();
    json!({ "ok": well, "clusters": all, "databases": tables }).to_string()
}

fn host_json(host: &HostVerdict) -> Value {
    let examined = &host.examined;
    let answer = examined.answer.as_ref().ok();
    json!({
        "name": examined.name,
        "configured_role": configured(examined.configured),
        "actual_role": answer.map(|answer| actual(&answer.reading)),
        "version": answer.map(|answer| &answer.identity.version),
        "timeline": answer.and_then(|answer| timeline(&answer.reading)).map(Timeline::get),
        // As text: more than a JSON number holds everywhere.
        "system_identifier": answer.map(|answer| answer.identity.system_identifier.to_string()),
        "same_system": host.is_of_cluster,
        "lag_bytes": host.lag_bytes,
        "pg_monitor": answer.map(|answer| answer.identity.is_monitor),
        "pooler": examined.pooler.as_ref().map(|pooler| match pooler {
            Ok(facts) => json!({ "system_identifier": facts.system_identifier.to_string(), "in_recovery": facts.in_recovery }),
            Err(why) => json!({ "error": why }),
        }),
        "connections_allowed": answer.map(|answer| answer.connections_allowed),
        "findings": findings_json(&host.findings),
    })
}

fn findings_json(findings: &[Finding]) -> Vec<Value> {
    let one = |it: &Finding| json!({ "name": it.name, "message": it.message, "warning": it.is_warning });
    findings.iter().map(one).collect()
}

fn configured(role: ConfiguredRole) -> &'static str {
    match role {
        ConfiguredRole::Primary => "primary",
        ConfiguredRole::Replica => "replica",
        ConfiguredRole::Unstated => "not said",
    }
}

fn actual(reading: &Reading) -> &'static str {
    match reading {
        Reading::Primary { .. } => "primary",
        Reading::Replica { .. } => "replica",
    }
}

fn timeline(reading: &Reading) -> Option<Timeline> {
    match reading {
        Reading::Primary { timeline, .. } => Some(*timeline),
        Reading::Replica { timeline, .. } => *timeline,
    }
}
