//! What the monitor makes of a cluster whose hosts follow another cluster's primary, without any server.

use std::time::{Duration, Instant};

use super::{
    ClusterMembers, ClusterSpec, HostNews, HostSpec, Roster,
    cluster::ClusterState,
    cluster_tests::{SETTINGS, SYSTEM, checkpoint, identity, replica, target, timeline},
};
use crate::{
    clock,
    model::{ClusterView, Histories, HistoryPoint, HostHealth, HostId, Lsn, Required},
    postgres::Reading,
};

const OTHER: u64 = 8_000;

/// A cluster of one host, `main`, and one of two that follow it.
struct Pair {
    leader: ClusterState,
    follower: ClusterState,
    histories: Histories,
    now: Instant,
}

fn spec(name: &str, hosts: &[&str], follows: Option<&str>) -> ClusterSpec {
    let host = |name: &&str| HostSpec {
        name: (*name).to_owned(),
        target: target(),
        configured_primary: false,
        place: Default::default(),
    };
    ClusterSpec { name: name.into(), follows: follows.map(str::to_owned), hosts: hosts.iter().map(host).collect() }
}

fn primary(insert: u64, on: u32) -> Reading {
    let insert = Lsn::new(insert);
    Reading::Primary { insert, flush: insert, promoted_at: None, timeline: timeline(on) }
}

impl Pair {
    /// Nothing is known of either.
    fn new() -> Pair {
        let now = clock::now();
        let mut histories = Histories::default();
        // The one that follows may be given first.
        let mut made = Roster::default()
            .assign(vec![spec("own", &["a", "b"], Some("main")), spec("main", &["p"], None)])
            .into_iter()
            .map(|ClusterMembers { id, name, follows, hosts }| {
                let mut state = ClusterState::new(id, &name, SETTINGS);
                state.set_follows(follows);
                state.set_members(&hosts, &mut histories, now);
                state
            });
        let (follower, leader) = (made.next().expect("own"), made.next().expect("main"));
        drop(made);
        assert_eq!((follower.follows(), leader.follows()), (Some(leader.id), None));
        Pair { leader, follower, histories, now }
    }

    /// Both run: the primary at 1000 on timeline 1, and its followers there.
    fn running() -> Pair {
        let mut pair = Pair::new();
        pair.identified(true, 0, SYSTEM, 1);
        pair.identified(false, 0, SYSTEM, 2);
        pair.identified(false, 1, SYSTEM, 3);
        pair.read(false, 0, replica(1000, 1));
        pair.read(false, 1, replica(1000, 1));
        pair.read(true, 0, primary(1000, 1));
        pair
    }

    fn identified(&mut self, leader: bool, host: u16, system_identifier: u64, started_us: u64) {
        self.news(leader, host, HostNews::Identified { identity: identity(system_identifier, started_us) });
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
    let mut pair = Pair::new();
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

/// Two primaries of one timeline are one number, and not one history.
#[test]
fn a_timeline_that_forked_at_the_primary_they_follow_proves_no_further_host() {
    let mut pair = Pair::running();
    assert_eq!(pair.fit().0, [true, true]);
    // A host of the leader's that claims the same timeline: what was proved before goes on to count.
    let members = Roster::default().assign(vec![spec("main", &["p", "q"], None)]).remove(0).hosts;
    pair.leader.set_members(&members, &mut pair.histories, pair.now);
    pair.identified(true, 1, SYSTEM, 4);
    pair.read(true, 1, replica(1000, 1));
    pair.read(true, 1, primary(1500, 1));
    assert!(pair.leader.view().conflict && !pair.view().conflict, "the conflict is the other cluster's");
    assert_eq!(pair.leader.view().primary, None);
    pair.read(true, 1, replica(1500, 1));
    pair.read(true, 0, primary(2000, 1));
    assert_eq!(pair.leader.view().primary, Some(HostId::new(0)));
    assert_eq!(pair.fit().0, [true, true]);
    // One that comes back may have followed either.
    pair.identified(false, 0, SYSTEM, 12);
    pair.read(false, 0, replica(2000, 1));
    pair.read(false, 0, replica(2000, 1));
    let (fit, why) = pair.fit();
    assert!(fit == [false, true] && why.contains("a: main had several primaries on timeline 1"), "{fit:?} {why}");
    // A checkpoint that the primary has written since says which.
    for (leader, lsn) in [(true, 1900), (true, 2000), (false, 2000)] {
        let (checkpoint, sent_at) = (checkpoint(lsn), pair.now);
        pair.news(leader, 0, HostNews::Checkpoint { checkpoint, sent_at });
    }
    assert_eq!(pair.fit(), ([true, true], String::new()));
}

/// A host that follows the leader's rival is no replica of the leader, as soon as the rival is heard.
#[test]
fn a_claim_at_the_primary_they_follow_ends_what_was_proved_since_the_claimant_was_a_standby() {
    let mut pair = Pair::running();
    let members = Roster::default().assign(vec![spec("main", &["p", "q"], None)]).remove(0).hosts;
    pair.leader.set_members(&members, &mut pair.histories, pair.now);
    pair.identified(true, 1, SYSTEM, 4);
    pair.read(true, 1, replica(1000, 1));
    pair.identified(false, 0, SYSTEM, 12);
    pair.read(false, 0, replica(1000, 1));
    assert_eq!(pair.fit().0, [true, true]);
    pair.read(true, 1, primary(1500, 1));
    let (fit, why) = pair.fit();
    assert!(fit == [false, true] && why.contains("a: main had several primaries on timeline 1"), "{fit:?} {why}");
}

#[test]
fn its_hosts_come_and_go_and_a_promotion_is_remembered_whoever_leaves() {
    let mut pair = Pair::running();
    pair.read(false, 0, primary(1000, 2));
    assert!(pair.fit().1.contains("a is a primary"));
    let mut roster = Roster::default();
    let specs = |hosts: &[&str]| vec![spec("main", &["p"], None), spec("own", hosts, Some("main"))];
    roster.assign(specs(&["a", "b"]));
    let members = roster.assign(specs(&["b", "c"])).remove(1).hosts;
    pair.follower.set_members(&members, &mut pair.histories, pair.now);
    let view = pair.view();
    assert_eq!(view.hosts.iter().map(|host| &*host.name).collect::<Vec<_>>(), ["b", "c"]);
    assert!(view.refused.is_some_and(|why| why.contains("a is a primary")));
    assert!(view.hosts.iter().all(|host| host.health == HostHealth::Down));
}

/// A move with `reuse_primary` is ended by promoting a host and taking that key away, in a reload.
#[test]
fn hosts_that_follow_no_more_find_a_primary_of_their_own_and_owe_nothing_to_the_old_one() {
    let mut pair = Pair::running();
    let before = pair.view();
    pair.read(false, 0, primary(1000, 2));
    let epochs = pair.view().hosts.iter().map(|host| host.epoch).collect::<Vec<_>>();
    let effects = pair.follower.set_follows(None);
    assert_eq!((effects.system_identifier, effects.epochs.len()), (Some(0), 2));
    assert_eq!(pair.follower.view().primary, None, "until it is elected");
    assert_eq!((pair.follower.view().history, pair.follower.view().follows), (None, None));
    pair.read(false, 0, primary(1000, 2));
    pair.read(false, 1, replica(1000, 2));
    let view = pair.follower.view();
    assert_eq!((view.primary, view.refused.as_deref()), (Some(HostId::new(0)), None));
    assert!(view.history.is_some() && view.history != before.history);
    assert!(matches!(view.floor, crate::model::Floor::At { .. }), "sessions read what is there at least");
    assert!(view.hosts.iter().zip(epochs).all(|(host, epoch)| host.epoch > epoch), "no connection outlives it");
    let point = HistoryPoint::Known { history: before.history.expect("a history"), lsn: Lsn::new(1000) };
    assert!(!matches!(pair.histories.require(view.id, point), Required::At(_)), "of another cluster");
    // And back again: what it said of itself is forgotten, but that one of them is a primary is seen at once.
    pair.follower.set_follows(Some(pair.leader.id));
    assert!(pair.fit().1.contains("a is a primary"));
}
