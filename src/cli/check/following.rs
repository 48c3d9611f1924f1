//! A cluster whose hosts are to follow another cluster's primary (`reuse_primary`): it needs no primary, and must have none.

use super::verdict::{ClusterVerdict, Finding, HostVerdict};
use crate::{app, config::Config, model::Timeline, postgres::Reading};

/// Judges every such cluster again, by the one that it follows.
pub(super) fn judge(config: &Config, clusters: &mut [ClusterVerdict]) {
    for index in 0..clusters.len() {
        let Some(leader) = app::leader(config, &clusters[index].name) else { continue };
        let Some(followed) = clusters.iter().find(|cluster| cluster.name == leader) else { continue };
        let primary = followed.hosts.iter().find_map(as_primary);
        let cluster = &mut clusters[index];
        cluster.findings.retain(|finding| finding.name != "no-primary");
        for host in &mut cluster.hosts {
            // By a host that was promoted, which is not what counts.
            host.findings.retain(|finding| finding.name != "other-timeline");
            host.findings.extend(finding(host, leader, primary));
        }
    }
}

fn as_primary(host: &HostVerdict) -> Option<(u64, Timeline)> {
    let answer = host.examined.answer.as_ref().ok()?;
    match answer.reading {
        Reading::Primary { timeline, .. } => Some((answer.identity.system_identifier, timeline)),
        Reading::Replica { .. } => None,
    }
}

fn finding(host: &HostVerdict, leader: &str, primary: Option<(u64, Timeline)>) -> Option<Finding> {
    let answer = host.examined.answer.as_ref().ok()?;
    let message = match (&answer.reading, primary) {
        (Reading::Primary { .. }, _) => format!(
            "it is a primary, and cannot follow that of {leader}: take reuse_primary away if the database was moved here, \
             or rebuild it as a replica"
        ),
        (_, Some((system, _))) if system != answer.identity.system_identifier => {
            format!("its system identifier is {}, that of {leader} is {system}", answer.identity.system_identifier)
        }
        (Reading::Replica { timeline: Some(own), .. }, Some((_, timeline))) if *own != timeline => {
            format!("it is on timeline {own}, the primary of {leader} on {timeline}; let it follow, or rebuild it")
        }
        _ => return None,
    };
    Some(Finding { name: "does-not-follow", message, is_warning: false })
}
