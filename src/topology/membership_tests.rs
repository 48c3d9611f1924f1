//! Ids that stay with those that stay, and what a cluster's state makes of hosts that come and go.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    clock,
    model::{HostHealth, Lsn, Timeline, WalGeometry},
    postgres::{Identity, Reading, Tls},
    topology::{
        HostNews,
        cluster_tests::{SETTINGS, checkpoint},
    },
};

const SYSTEM: u64 = 7_000;

fn spec(name: &str, port: u16, user: &str) -> HostSpec {
    let target = Target {
        ip: None,
        host: "h".into(),
        port,
        user: user.into(),
        password: None,
        dbname: "d".into(),
        tls: Tls::Disable,
        connect_timeout: Duration::from_secs(1),
        application_name: "t".into(),
    };
    HostSpec { name: name.into(), target, configured_primary: name == "a", place: Default::default() }
}

fn cluster(name: &str, hosts: &[(&str, u16)]) -> ClusterSpec {
    let hosts = hosts.iter().map(|(name, port)| spec(name, *port, "u")).collect();
    ClusterSpec { name: name.into(), follows: None, hosts }
}

fn ids(members: &ClusterMembers) -> Vec<HostId> {
    members.hosts.iter().map(|member| member.id).collect()
}

#[test]
fn who_stays_keeps_the_id_and_who_comes_gets_one_that_nobody_had() {
    let mut roster = Roster::default();
    let first = roster.assign(vec![cluster("main", &[("a", 1), ("b", 2)]), cluster("other", &[("a", 1)])]);
    assert_eq!(ids(&first[0]), [HostId::new(0), HostId::new(1)]);
    assert_ne!(first[0].id, first[1].id);
    // The order is of no account; another login is the same host; another address, or name, is another one.
    let mut specs = vec![cluster("main", &[("c", 3), ("b", 2), ("a", 9)])];
    specs[0].hosts[1] = spec("b", 2, "another");
    let second = roster.assign(specs);
    assert_eq!(second[0].id, first[0].id);
    let [c, b, a] = second[0].hosts.as_slice() else { panic!("three hosts") };
    assert_eq!((b.id, b.spec.target.user.as_str()), (HostId::new(1), "another"));
    assert!(Arc::ptr_eq(&b.identity, &first[0].hosts[1].identity));
    assert!(![c.id, a.id].iter().any(|id| ids(&first[0]).contains(id)) && c.id != a.id);
    // A cluster that comes back is the same one; its hosts are not.
    let third = roster.assign(vec![cluster("other", &[("a", 1)]), cluster("new", &[("a", 1)])]);
    assert_eq!(third[0].id, first[1].id);
    assert_ne!(ids(&third[0]), ids(&first[1]));
    assert!(third[1].id != first[0].id && third[1].id != first[1].id);
}

#[test]
fn no_id_is_given_twice_and_places_never_run_out() {
    let mut roster = Roster::default();
    let mut seen = std::collections::BTreeSet::new();
    let mut before = Vec::new();
    for round in 0..1000_u16 {
        let one = format!("h{round}");
        let assigned = roster.assign(vec![cluster("main", &[("stays", 1), (&one, 2 + round)])]).remove(0);
        let [stays, new] = ids(&assigned)[..] else { panic!("two hosts") };
        assert_eq!(stays, HostId::new(0));
        assert!(seen.insert(new), "{new:?} was given twice");
        assert!(new.index() < HostSet::CAPACITY && new.index() != stays.index());
        before.push(new.index());
    }
    // Long before a place is used again, those who had tried its last occupant are gone.
    assert!(before.windows(60).all(|window| window.iter().collect::<std::collections::BTreeSet<_>>().len() == 60));
    // All at once, too.
    let many: Vec<_> = (0..64).map(|n| (format!("x{n}"), n)).collect();
    let many: Vec<_> = many.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    let all = roster.assign(vec![cluster("main", &many)]).remove(0);
    let places: std::collections::BTreeSet<_> = ids(&all).iter().map(|id| id.index()).collect();
    assert_eq!((all.hosts.len(), places.len()), (64, 64));
}

struct Rig {
    roster: Roster,
    state: ClusterState,
    histories: Histories,
}

impl Rig {
    fn new(hosts: &[(&str, u16)]) -> (Rig, Vec<HostId>) {
        let state = ClusterState::new(ClusterId::new(0), "main", SETTINGS);
        let mut rig = Rig { roster: Roster::default(), state, histories: Histories::default() };
        let ids = rig.apply(hosts);
        (rig, ids)
    }

    fn apply(&mut self, hosts: &[(&str, u16)]) -> Vec<HostId> {
        let members = self.roster.assign(vec![cluster("main", hosts)]).remove(0);
        self.state.set_members(&members.hosts, &mut self.histories, clock::now());
        ids(&members)
    }

    fn news(&mut self, host: HostId, news: HostNews) {
        self.state.apply(host, news, &mut self.histories, clock::now());
    }

    fn identified(&mut self, host: HostId, started_us: u64) {
        let identity = Identity {
            system_identifier: SYSTEM,
            started_us,
            geometry: WalGeometry::default(),
            version: "15".into(),
            is_monitor: true,
        };
        self.news(host, HostNews::Identified { identity });
    }

    fn read(&mut self, host: HostId, reading: Reading) {
        let now = clock::now();
        self.news(host, HostNews::Read { reading, sent_at: now, received_at: now });
    }

    fn primary(&mut self, host: HostId, insert: u64) {
        self.primary_on(host, insert, 1);
    }

    fn primary_on(&mut self, host: HostId, insert: u64, timeline: u32) {
        let (lsn, timeline) = (Lsn::new(insert), Timeline::new(timeline).expect("a timeline"));
        self.read(host, Reading::Primary { insert: lsn, flush: lsn, timeline, promoted_at: None });
    }

    fn replica(&mut self, host: HostId, replay: u64) {
        self.replica_on(host, replay, 1);
    }

    fn replica_on(&mut self, host: HostId, replay: u64, timeline: u32) {
        let replay = Some(Lsn::new(replay));
        self.read(host, Reading::Replica { replay, receive: replay, timeline: Timeline::new(timeline), paused: false });
    }
}

#[test]
fn who_stays_keeps_its_state_and_who_left_leaves_nothing_behind() {
    let (mut rig, ids) = Rig::new(&[("a", 1), ("b", 2)]);
    rig.identified(ids[0], 100);
    rig.identified(ids[1], 101);
    rig.primary(ids[0], 5000);
    rig.replica(ids[1], 5000);
    let history = rig.state.view().history;
    assert!(history.is_some());

    let next = rig.apply(&[("c", 3), ("a", 1)]);
    let view = rig.state.view();
    assert_eq!((view.primary, view.history, view.hosts.len()), (Some(ids[0]), history, 2));
    assert_eq!(view.host(ids[0]).map(|host| host.health), Some(HostHealth::Up));
    assert!(view.host(ids[1]).is_none());
    assert_eq!(view.host(next[0]).map(|host| (&*host.name, host.health)), Some(("c", HostHealth::Unknown)));

    rig.identified(next[0], 102);
    rig.replica(next[0], 5000);
    assert!(rig.state.view().host(next[0]).is_some_and(|host| host.is_up_replica()));
}

#[test]
fn what_began_on_a_primary_that_left_may_end_there_until_another_server_is_the_primary() {
    let (mut rig, ids) = Rig::new(&[("a", 1), ("b", 2)]);
    rig.identified(ids[0], 100);
    rig.identified(ids[1], 101);
    rig.primary(ids[0], 5000);
    rig.replica(ids[1], 5000);

    // The same server by another name.
    let renamed = rig.apply(&[("z", 1), ("b", 2)])[0];
    let view = rig.state.view();
    assert_eq!(view.primary, None);
    assert!(
        view.is_primary(ids[0], 100, clock::now())
            && !view.is_primary(ids[0], 99, clock::now())
            && !view.is_primary(ids[1], 101, clock::now())
    );
    rig.identified(renamed, 100);
    rig.primary(renamed, 5100);
    let view = rig.state.view();
    assert_eq!(view.primary, Some(renamed));
    assert!(view.is_primary(ids[0], 100, clock::now()) && view.is_primary(renamed, 100, clock::now()));

    // It has the role under its new name alone, and so for as long as it is confirmed there.
    let until = view.lease_until.expect("a lease");
    assert!(!view.is_primary(ids[0], 100, until));
    rig.state.pass_time(&mut rig.histories, until);
    assert_eq!(rig.state.view().primary, None);
    assert!(!rig.state.view().is_primary(ids[0], 100, clock::now()), "nor when nobody has it any more");
    rig.primary(renamed, 5150);

    // Nobody is the primary after it: what began there may end within the lease that it had.
    let until = rig.state.view().lease_until.expect("a lease");
    rig.apply(&[("b", 2)]);
    let view = rig.state.view();
    assert_eq!((view.primary, view.lease_until), (None, None));
    assert!(view.is_primary(renamed, 100, until - Duration::from_millis(1)) && !view.is_primary(renamed, 100, until));
    rig.state.pass_time(&mut rig.histories, until);
    assert!(!rig.state.view().is_primary(renamed, 100, until));

    // Another server.
    let another = rig.apply(&[("y", 7), ("b", 2)])[0];
    assert!(rig.state.view().is_primary(renamed, 100, clock::now()));
    rig.identified(another, 105);
    rig.primary(another, 5200);
    let view = rig.state.view();
    assert_eq!(view.primary, Some(another));
    assert!(!view.is_primary(renamed, 100, clock::now()) && !view.is_primary(ids[0], 100, clock::now()));
}

#[test]
fn a_second_name_for_a_server_takes_its_part_once_the_first_has_left() {
    let (mut rig, ids) = Rig::new(&[("a", 1), ("b", 2), ("twin", 3)]);
    rig.identified(ids[0], 100);
    rig.primary(ids[0], 5000);
    rig.identified(ids[1], 101);
    rig.replica(ids[1], 5000);
    rig.identified(ids[2], 101);
    rig.replica(ids[2], 5000);
    assert!(rig.state.view().host(ids[2]).is_some_and(|host| !host.is_up_replica()));
    rig.apply(&[("a", 1), ("twin", 3)]);
    for _ in 0..SETTINGS.health.successes {
        rig.replica(ids[2], 5000);
    }
    assert!(rig.state.view().host(ids[2]).is_some_and(|host| host.is_up_replica()));
}

#[test]
fn who_takes_a_place_at_once_has_none_of_its_last_occupants_claims() {
    let names: Vec<_> =
        (0..HostSet::CAPACITY as u16).map(|n| (if n == 0 { "a".into() } else { format!("h{n}") }, n)).collect();
    let mut hosts: Vec<_> = names.iter().map(|(name, port)| (name.as_str(), *port)).collect();
    let (mut rig, ids) = Rig::new(&hosts);
    for host in &ids[1..] {
        rig.news(*host, HostNews::ProbeFailed { why: "gone".into(), certain: true });
    }
    for (host, started_us) in [(ids[0], 100), (ids[1], 101)] {
        rig.identified(host, started_us);
        rig.primary(host, 5000);
    }
    assert!(rig.state.view().conflict);
    // All places are taken, so the new host has that of the one that leaves.
    hosts[0] = ("new", 100);
    let new = rig.apply(&hosts)[0];
    assert_eq!(new, ids[0].next_occupant());
    let view = rig.state.view();
    assert_eq!((view.conflict, view.primary), (false, Some(ids[1])));
}

#[test]
fn a_standby_promoted_beside_a_primary_that_left_has_none_of_its_replicas() {
    let (mut rig, ids) = Rig::new(&[("a", 1), ("b", 2), ("c", 3)]);
    for (host, started_us) in ids.iter().zip(100..) {
        rig.identified(*host, started_us);
    }
    rig.primary(ids[0], 5000);
    rig.replica(ids[1], 5000);
    rig.primary_on(ids[0], 6000, 2);
    rig.replica_on(ids[2], 6000, 2);
    let first = rig.state.view().history;
    assert_eq!(rig.state.view().host(ids[2]).map(|host| host.history), Some(first));

    // The other one never followed it, and is promoted to the same number.
    rig.apply(&[("b", 2), ("c", 3)]);
    rig.primary_on(ids[1], 5100, 2);
    rig.replica_on(ids[2], 6000, 2);
    let view = rig.state.view();
    assert_eq!(view.primary, Some(ids[1]));
    assert_ne!(view.history, first);
    assert_eq!(view.host(ids[2]).map(|host| (host.history, host.passed_sample_at)), Some((None, None)));
}

#[test]
fn another_server_in_the_place_of_a_primary_that_may_live_on_has_none_of_its_replicas_until_a_checkpoint_proves_them() {
    let (mut rig, ids) = Rig::new(&[("a", 1), ("c", 3)]);
    rig.identified(ids[0], 100);
    rig.identified(ids[1], 102);
    rig.primary(ids[0], 5000);
    rig.replica(ids[1], 5000);
    let is_proved = |rig: &Rig, history| rig.state.view().host(ids[1]).is_some_and(|host| host.history == history);
    let first = rig.state.view().history;
    assert!(first.is_some() && is_proved(&rig, first));

    // The same server by another name goes on, and so does one that starts anew under its name.
    let renamed = rig.apply(&[("z", 1), ("c", 3)])[0];
    rig.identified(renamed, 100);
    rig.primary(renamed, 5100);
    rig.identified(renamed, 110);
    rig.primary(renamed, 5200);
    rig.replica(ids[1], 5200);
    assert!(rig.state.view().history == first && is_proved(&rig, first) && !rig.state.is_forked());

    // A copy of it, or the disk itself on another machine: nobody can tell, and nobody saw that it was a standby.
    let other = rig.apply(&[("b", 2), ("c", 3)])[0];
    rig.identified(other, 105);
    rig.primary(other, 5100);
    rig.replica(ids[1], 6000);
    let view = rig.state.view();
    assert!(view.primary == Some(other) && view.history != first && !view.conflict);
    assert_eq!(view.host(ids[1]).map(|host| (host.history, host.passed_last_sample)), Some((None, false)));
    for (host, lsn) in [(other, 5150), (other, 5300), (ids[1], 5300)] {
        assert!(!is_proved(&rig, view.history));
        let sent_at = clock::now();
        rig.news(host, HostNews::Checkpoint { checkpoint: checkpoint(lsn), sent_at });
    }
    assert!(is_proved(&rig, view.history));

    // A promotion, to a number that is unique, takes no checkpoint: also of one that nobody saw as a standby.
    let promoted = rig.apply(&[("d", 4), ("c", 3)])[0];
    rig.identified(promoted, 120);
    rig.primary_on(promoted, 7000, 2);
    rig.replica_on(ids[1], 7000, 2);
    assert!(is_proved(&rig, rig.state.view().history) && !rig.state.is_forked());
}

#[test]
fn a_host_stays_drained_while_it_stays_and_a_primary_is_never_drained() {
    let (mut rig, ids) = Rig::new(&[("a", 1), ("b", 2)]);
    rig.identified(ids[0], 100);
    rig.primary(ids[0], 5000);
    assert!(!rig.state.set_drained(ids[0], true), "it is the primary");
    assert!(rig.state.set_drained(ids[0], false), "nothing is to be done");
    // Before it is known, too: a host may come back in the middle of its maintenance.
    assert!(rig.state.set_drained(ids[1], true));
    rig.identified(ids[1], 101);
    rig.replica(ids[1], 5000);
    let drained = |rig: &Rig, id| {
        let view = rig.state.view();
        let host = view.host(id).expect("it is there");
        assert_eq!(host.is_up_replica(), !host.drained, "{host:?}");
        host.drained
    };
    assert!(drained(&rig, ids[1]));
    rig.apply(&[("c", 3), ("b", 2), ("a", 1)]);
    rig.identified(ids[1], 102);
    rig.replica(ids[1], 5000);
    assert!(drained(&rig, ids[1]), "the server behind it may be another one");
    rig.apply(&[("a", 1)]);
    let again = rig.apply(&[("a", 1), ("b", 2)])[1];
    rig.identified(again, 102);
    rig.replica(again, 5000);
    assert!(!drained(&rig, again), "it left, and with it what was decided of it");
    assert!(rig.state.set_drained(again, true) && drained(&rig, again));
    assert!(rig.state.set_drained(again, false) && !drained(&rig, again));
    // One that says that it is a primary has no substitute, whoever is elected.
    rig.primary(again, 5000);
    assert!(!rig.state.set_drained(again, true));
}
