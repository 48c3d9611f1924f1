//! What the hosts of a cluster said → what is wrong with them, by name. Pure.

use super::examine::{Answer, Examined};
use crate::{
    config::ConfiguredRole,
    model::{Lsn, Timeline},
    postgres::Reading,
};

/// Something that is wrong, or may become so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// For programs; stable.
    pub(super) name: &'static str,
    /// What it is and what to do.
    pub(super) message: String,
    /// Whether the broker works in spite of it.
    pub(super) is_warning: bool,
}

/// A cluster, with what was found.
pub(super) struct ClusterVerdict {
    pub(super) name: String,
    pub(super) hosts: Vec<HostVerdict>,
    /// What concerns no single host.
    pub(super) findings: Vec<Finding>,
}

/// A host, with what was found.
pub(super) struct HostVerdict {
    pub(super) examined: Examined,
    /// Whether it has the system identifier of the cluster's primary; None: nobody can say.
    pub(super) is_of_cluster: Option<bool>,
    /// Bytes of WAL that a replica has still to replay.
    pub(super) lag_bytes: Option<u64>,
    pub(super) findings: Vec<Finding>,
}

impl ClusterVerdict {
    /// Whether there is nothing worse than warnings.
    pub(super) fn is_well(&self) -> bool {
        self.hosts.iter().flat_map(|host| &host.findings).chain(&self.findings).all(|finding| finding.is_warning)
    }
}

fn problem(name: &'static str, message: impl Into<String>) -> Finding {
    Finding { name, message: message.into(), is_warning: false }
}

fn warning(name: &'static str, message: impl Into<String>) -> Finding {
    Finding { is_warning: true, ..problem(name, message) }
}

/// What the others are measured by: the cluster's one primary.
struct Primary {
    timeline: Timeline,
    end: Lsn,
}

pub(super) fn cluster(name: &str, hosts: Vec<Examined>, connections_per_host: u32) -> ClusterVerdict {
    let primaries: Vec<usize> = (0..hosts.len()).filter(|&index| as_primary(&hosts[index]).is_some()).collect();
    let only = match primaries.as_slice() {
        [one] => as_primary(&hosts[*one]),
        _ => None,
    };
    // Without a primary the first server that answered stands for the cluster.
    let reference = primaries.first().copied().or_else(|| hosts.iter().position(|host| host.answer.is_ok()));
    let expected =
        reference.and_then(|index| hosts[index].answer.as_ref().ok()).map(|it| it.identity.system_identifier);
    let mut cluster = ClusterVerdict { name: name.to_owned(), hosts: Vec::new(), findings: Vec::new() };
    if primaries.is_empty() {
        cluster.findings.push(problem("no-primary", "no host that answers is a primary: there will be no writes"));
    }
    let servers = |index: &usize| hosts[*index].answer.as_ref().ok().map(Answer::server);
    if primaries.iter().filter_map(servers).collect::<std::collections::BTreeSet<_>>().len() > 1 {
        let names: Vec<_> = primaries.iter().map(|&index| hosts[index].name.as_str()).collect();
        let message =
            format!("{} are primaries; stop all but one, and rebuild the others from it", names.join(" and "));
        cluster.findings.push(problem("several-primaries", message));
    }
    for examined in hosts {
        let host = judge(examined, expected, only.as_ref(), &cluster.hosts, connections_per_host);
        cluster.hosts.push(host);
    }
    cluster
}

fn as_primary(host: &Examined) -> Option<Primary> {
    let answer = host.answer.as_ref().ok()?;
    match answer.reading {
        Reading::Primary { insert, timeline, .. } => {
            Some(Primary { timeline, end: insert.without_page_header(answer.identity.geometry) })
        }
        Reading::Replica { .. } => None,
    }
}

impl Answer {
    /// Tells servers apart.
    fn server(&self) -> (u64, u64) {
        (self.identity.system_identifier, self.identity.started_us)
    }
}

fn judge(
    examined: Examined,
    expected: Option<u64>,
    primary: Option<&Primary>,
    others: &[HostVerdict],
    connections_per_host: u32,
) -> HostVerdict {
    let mut host = HostVerdict { is_of_cluster: None, lag_bytes: None, findings: Vec::new(), examined };
    host.findings.extend(pooler_finding(&host.examined));
    let answer = match &host.examined.answer {
        Err(why) => {
            host.findings.push(problem("unreachable", why));
            return host;
        }
        Ok(answer) => answer,
    };
    let found = &mut host.findings;
    found.extend(role_finding(host.examined.configured, &answer.reading));
    let own = answer.identity.system_identifier;
    host.is_of_cluster = expected.map(|expected| expected == own);
    if let Some(expected) = expected.filter(|expected| *expected != own) {
        let message = format!("its system identifier is {own}, the cluster's is {expected}");
        found.push(problem("wrong-system-identifier", message));
    }
    let is_twin = |other: &&HostVerdict| other.examined.answer.as_ref().is_ok_and(|it| it.server() == answer.server());
    if let Some(twin) = others.iter().find(is_twin) {
        let message = format!("it is the server that {} leads to; give each server once", twin.examined.name);
        found.push(problem("same-server-twice", message));
    }
    if !answer.identity.is_monitor {
        let role = host.examined.user.replace('"', "\"\"");
        let message = format!("the login role cannot see a replica's timeline; run: GRANT pg_monitor TO \"{role}\";");
        found.push(problem("not-in-pg-monitor", message));
    }
    if let (Reading::Replica { replay, timeline, paused, .. }, Some(true)) = (&answer.reading, host.is_of_cluster) {
        host.lag_bytes = primary.zip(*replay).map(|(primary, replay)| primary.end.saturating_sub(replay));
        found.extend(primary.and_then(|primary| timeline_finding(*timeline, primary.timeline)));
        if *paused {
            found.push(warning("replay-paused", "its replay is paused (pg_wal_replay_resume() goes on)"));
        }
    }
    if answer.connections_allowed < connections_per_host {
        let message = format!(
            "the server lets ordinary roles have {} connections, pool.connections_per_host is {connections_per_host}; \
             lower it, or raise the server's max_connections",
            answer.connections_allowed
        );
        found.push(warning("few-connections", message));
    }
    host
}

/// Calls go through the pooler: it must lead to this very server.
fn pooler_finding(examined: &Examined) -> Option<Finding> {
    let facts = match examined.pooler.as_ref()? {
        Ok(facts) => facts,
        Err(why) => return Some(problem("pooler-unreachable", format!("its pooler cannot be used: {why}"))),
    };
    let answer = examined.answer.as_ref().ok()?;
    let same = (facts.system_identifier, facts.started_us) == answer.server();
    let message = "its pooler leads to another server than its url: every call would be refused; correct one of them";
    (!same).then(|| problem("pooler-leads-elsewhere", message))
}

fn role_finding(configured: ConfiguredRole, reading: &Reading) -> Option<Finding> {
    match (configured, reading) {
        (ConfiguredRole::Primary, Reading::Replica { .. }) => {
            Some(problem("wrong-role", "it is configured as the primary, and is in recovery: a replica"))
        }
        (ConfiguredRole::Replica, Reading::Primary { .. }) => {
            Some(problem("wrong-role", "it is configured as a replica, and takes writes: a primary"))
        }
        _ => None,
    }
}

fn timeline_finding(own: Option<Timeline>, primary: Timeline) -> Option<Finding> {
    match own {
        Some(own) if own == primary => None,
        Some(own) => {
            let message = format!("it is on timeline {own}, the primary on {primary}; let it follow, or rebuild it");
            Some(problem("other-timeline", message))
        }
        None => {
            Some(problem("timeline-unproved", "no evidence of its timeline: it takes no reads that need a position"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ConfiguredRole::{Primary as AsPrimary, Replica as AsReplica, Unstated},
        model::WalGeometry,
        postgres::Identity,
    };

    fn answer(reading: Reading, started_us: u64) -> Answer {
        let identity = Identity {
            system_identifier: 7,
            started_us,
            geometry: WalGeometry::default(),
            version: "15.1".into(),
            is_monitor: true,
        };
        Answer { identity, reading, connections_allowed: 97 }
    }

    fn primary(started_us: u64) -> Answer {
        let at = Lsn::new(1000);
        let timeline = Timeline::new(1).expect("a timeline");
        answer(Reading::Primary { insert: at, flush: at, promoted_at: None, timeline }, started_us)
    }

    fn replica(started_us: u64, timeline: Option<u32>) -> Answer {
        let replay = Some(Lsn::new(900));
        let timeline = timeline.and_then(Timeline::new);
        answer(Reading::Replica { replay, receive: replay, timeline, paused: false }, started_us)
    }

    fn host(name: &str, configured: ConfiguredRole, answer: Answer) -> Examined {
        Examined { name: name.into(), configured, user: "o\"neil".into(), answer: Ok(answer), pooler: None }
    }

    fn names(cluster: &ClusterVerdict) -> Vec<&str> {
        let all = cluster.hosts.iter().flat_map(|host| &host.findings).chain(&cluster.findings);
        all.map(|finding| finding.name).collect()
    }

    fn judged(hosts: Vec<Examined>) -> ClusterVerdict {
        cluster("main", hosts, 20)
    }

    #[test]
    fn a_good_cluster_has_no_findings() {
        let hosts = vec![host("a", AsPrimary, primary(1)), host("b", Unstated, replica(2, Some(1)))];
        let cluster = judged(hosts);
        assert_eq!(names(&cluster), [""; 0]);
        assert!(cluster.is_well());
        assert_eq!(cluster.hosts[1].lag_bytes, Some(100));
    }

    #[test]
    fn each_fault_has_its_name() {
        let mut stranger = replica(3, Some(1));
        stranger.identity.system_identifier = 8;
        let mut outsider = replica(3, Some(1));
        outsider.identity.is_monitor = false;
        let cases = [
            (host("b", Unstated, primary(1)), vec!["same-server-twice"]),
            (host("b", AsPrimary, replica(2, Some(1))), vec!["wrong-role"]),
            (host("b", AsReplica, replica(2, Some(2))), vec!["other-timeline"]),
            (host("b", AsReplica, replica(2, None)), vec!["timeline-unproved"]),
            (host("b", AsReplica, stranger), vec!["wrong-system-identifier"]),
            (host("b", AsReplica, outsider), vec!["not-in-pg-monitor"]),
            (host("b", AsReplica, primary(2)), vec!["wrong-role", "several-primaries"]),
        ];
        for (second, expected) in cases {
            let cluster = judged(vec![host("a", AsPrimary, primary(1)), second]);
            assert_eq!(names(&cluster), expected);
            assert!(!cluster.is_well());
        }
    }

    #[test]
    fn a_cluster_without_a_primary_is_not_well() {
        let away = Examined {
            name: "a".into(),
            configured: AsPrimary,
            user: "u".into(),
            answer: Err("away".into()),
            pooler: None,
        };
        let cluster = judged(vec![away, host("b", AsReplica, replica(2, Some(1)))]);
        assert_eq!(names(&cluster), ["unreachable", "no-primary"]);
    }

    #[test]
    fn too_few_connections_are_a_warning_and_the_grant_is_quoted() {
        let mut few = replica(2, Some(1));
        few.connections_allowed = 5;
        few.identity.is_monitor = false;
        let cluster = judged(vec![host("a", AsPrimary, primary(1)), host("b", AsReplica, few)]);
        let findings = &cluster.hosts[1].findings;
        assert!(findings[0].message.contains(r#"GRANT pg_monitor TO "o""neil";"#), "{}", findings[0].message);
        assert!(findings[1].is_warning, "{findings:?}");
    }
}
