//! What the monitor makes of a cluster whose hosts follow another cluster's primary, without any server.

use std::time::{Duration, Instant};

use super::{ClusterSpec, HostNews, cluster::ClusterState};
use crate::{
    clock,
    model::{ClusterId, ClusterView, Histories, HostHealth, HostId, Lsn, Timeline, WalGeometry},
    postgres::{Identity, Reading, Target, Tls},
};

const SYSTEM: u64 = 7_000;
const OTHER: u64 = 8_000;

/// A cluster of one host, `main`, and one of two that follow it.
struct Pair {
    leader: ClusterState,
    follower: ClusterState,
    histories: Histories,
    now: Instant,
}

fn cluster(index: u16, name: &str, hosts: &[&str], follows: Option<ClusterId>) -> ClusterState {
    let target = Target {
        host: "h".into(),
        port: 1,
        user: "u".into(),
        password: None,
        dbname: "d".into(),
        tls: Tls::Disable,
        connect_timeout: Duration::from_secs(1),
        application_name: "t".into(),
    };
    let hosts = hosts.iter().map(|name| ((*name).to_owned(), target.clone())).collect();
    let spec = ClusterSpec { name: name.into(), hosts, places: Vec::new(), configured_primary: None, follows };
    ClusterState::new(ClusterId::new(index), &spec, Duration::from_secs(30))
}

fn primary(insert: u64, on: u32) -> Reading {
    let (insert, timeline) = (Lsn::new(insert), Timeline::new(on).expect("a timeline"));
    Reading::Primary { insert, flush: insert, promoted_at: None, timeline }
}

fn replica(replay: u64, on: u32) -> Reading {
    Reading::Replica { replay: Some(Lsn::new(replay)), receive: None, timeline: Timeline::new(on), paused: false }
}

impl Pair {
    /// Both run: the primary at 1000 on timeline 1, and its followers there.
    fn running() -> Pair {
        let mut pair = Pair {
            leader: cluster(0, "main", &["p"], None),
            follower: cluster(1, "own", &["a", "b"], Some(ClusterId::new(0))),
            histories: Histories::default(),
            now: clock::now(),
        };
        pair.identified(true, 0, SYSTEM, 1);
        pair.identified(false, 0, SYSTEM, 2);
        pair.identified(false, 1, SYSTEM, 3);
        pair.read(false, 0, replica(1000, 1));
        pair.read(false, 1, replica(1000, 1));
        pair.read(true, 0, primary(1000, 1));
        pair
    }

    fn identified(&mut self, leader: bool, host: u16, system_identifier: u64, started_us: u64) {
        let (geometry, version) = (WalGeometry::default(), "17.1".to_owned());
        let identity = Identity { system_identifier, started_us, geometry, version, is_monitor: true };
        self.news(leader, host, HostNews::Identified { identity });
    }

    fn read(&mut self, leader: bool, host: u16, reading: Reading) {
        let sent_at = self.now;
        self.news(leader, host, HostNews::Read { reading, sent_at, received_at: sent_at });
    }

    fn news(&mut self, leader: bool, host: u16, news: HostNews) {
        self.now += Duration::from_millis(10);
        let state = if leader { &mut self.leader } else { &mut self.follower };
        state.apply(HostId::new(host), news, &mut self.histories, self.now);
    }

    fn view(&mut self) -> ClusterView {
        self.follower.adopt(&self.leader);
        self.follower.view_following(&self.leader)
    }

    /// Which of the followers are judged fit for reads, and what is said of the others.
    fn fit(&mut self) -> ([bool; 2], String) {
        let view = self.view();
        let is_fit = |host: &crate::model::HostView| {
            host.health == HostHealth::Up && host.history.is_some() && host.passed_sample_at.is_some()
        };
        assert_eq!(view.primary, None, "it has no primary of its own");
        ([0, 1].map(|index| is_fit(&view.hosts[index])), view.refused.map(|why| why.to_string()).unwrap_or_default())
    }
}

#[test]
fn followers_are_judged_by_the_primary_that_they_follow() {
    let mut pair = Pair::running();
    let view = pair.view();
    assert_eq!(view.history, pair.leader.view().history);
    assert!(view.primary_reachable && view.history.is_some() && view.system_identifier == Some(SYSTEM));
    assert_eq!(pair.fit(), ([true, true], String::new()));
    pair.read(true, 0, primary(2000, 1));
    assert!(!pair.view().hosts[0].passed_last_sample, "the primary has gone on");
    pair.read(false, 0, replica(2000, 1));
    assert!(pair.view().hosts[0].passed_last_sample);
}

#[test]
fn without_the_primary_they_follow_nobody_knows_yet() {
    let mut pair = Pair::running();
    pair.leader = cluster(0, "main", &["p"], None);
    pair.follower = cluster(1, "own", &["a", "b"], Some(ClusterId::new(0)));
    pair.identified(false, 0, SYSTEM, 2);
    pair.read(false, 0, replica(1000, 1));
    assert_eq!(pair.fit(), ([false, false], String::new()));
}

#[test]
fn a_host_of_another_system_or_timeline_is_refused_with_the_reason() {
    let mut pair = Pair::running();
    pair.view();
    pair.identified(false, 0, OTHER, 9);
    pair.read(false, 0, replica(1000, 1));
    let (fit, why) = pair.fit();
    assert!(fit == [false, true] && why.contains("a: its system identifier is 8000"), "{fit:?} {why}");
    pair.identified(false, 0, SYSTEM, 10);
    pair.read(false, 0, replica(1000, 2));
    let (fit, why) = pair.fit();
    assert!(fit == [false, true] && why.contains("a: it is on timeline 2, the primary of main on 1"), "{fit:?} {why}");
    // The primary was promoted, and the other host has yet to follow.
    pair.read(true, 0, primary(3000, 2));
    pair.read(false, 0, replica(3000, 2));
    let (fit, why) = pair.fit();
    assert!(fit == [true, false] && why.contains("b: it is on timeline 1"), "{fit:?} {why}");
}

/// The branch of a promoted host may get the number that the primary's own next timeline has.
#[test]
fn once_a_host_was_promoted_none_is_trusted_even_on_the_same_timeline() {
    let mut pair = Pair::running();
    pair.read(false, 0, primary(1000, 2));
    let (fit, why) = pair.fit();
    assert!(fit == [false, false] && why.contains("a is a primary"), "{fit:?} {why}");
    assert_eq!(pair.leader.view().primary, Some(HostId::new(0)), "no rival of the other cluster's primary");
    pair.read(true, 0, primary(3000, 2));
    pair.read(false, 0, replica(5000, 2));
    pair.read(false, 1, replica(5000, 2));
    assert_eq!(pair.fit().0, [false, false]);
}
