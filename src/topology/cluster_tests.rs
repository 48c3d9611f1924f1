//! What the monitor makes of events, without any server.

use std::time::{Duration, Instant};

use super::{
    ClusterSpec, HostNews, HostSpec, ProbeSettings, Roster,
    cluster::{ClusterState, Effects},
};
use crate::{
    clock,
    model::{
        ClusterView, Floor, HealthSettings, Histories, HistoryPoint, HostHealth, HostId, Lsn, Required, Timeline,
        WalGeometry,
    },
    postgres::{Checkpoint, Facts, Identity, Reading, Target, Tls},
};

const STICK: Duration = Duration::from_secs(30);
pub(super) const SYSTEM: u64 = 7_000;

pub(super) const SETTINGS: ProbeSettings = ProbeSettings {
    interval: Duration::from_secs(1),
    fast_interval: Duration::from_millis(5),
    timeout: Duration::from_secs(2),
    stick_timeout: STICK,
    lease: Duration::from_secs(5),
    health: HealthSettings {
        failures: 2,
        successes: 2,
        quarantine: Duration::from_secs(5),
        quarantine_max: Duration::from_secs(300),
        slow_start: Duration::from_secs(10),
    },
};

/// A cluster of three hosts that are all identified, and the clock that its events go by.
pub(super) struct Rig {
    pub(super) state: ClusterState,
    pub(super) histories: Histories,
    pub(super) now: Instant,
}

pub(super) fn timeline(number: u32) -> Timeline {
    Timeline::new(number).expect("a timeline")
}

pub(super) fn identity(system_identifier: u64, started_us: u64) -> Identity {
    let version = "17.1".to_owned();
    Identity { system_identifier, started_us, geometry: WalGeometry::default(), version, is_monitor: true }
}

pub(super) fn primary(insert: u64, promoted_at: Option<u64>, on: u32) -> Reading {
    let insert = Lsn::new(insert);
    Reading::Primary { insert, flush: insert, promoted_at: promoted_at.map(Lsn::new), timeline: timeline(on) }
}

pub(super) fn replica(replay: u64, on: u32) -> Reading {
    let replay = Some(Lsn::new(replay));
    Reading::Replica { replay, receive: replay, timeline: Some(timeline(on)), paused: false }
}

pub(super) fn checkpoint(lsn: u64) -> Checkpoint {
    let next_xid = format!("0:{lsn}");
    Checkpoint { lsn: Lsn::new(lsn), redo: Lsn::new(lsn - 50), timeline: 1, next_xid, next_oid: 16_384, time_s: 1000 }
}

pub(super) fn target() -> Target {
    Target {
        ip: None,
        host: "h".into(),
        port: 1,
        user: "u".into(),
        password: None,
        dbname: "d".into(),
        tls: Tls::Disable,
        connect_timeout: STICK,
        application_name: "t".into(),
    }
}

impl Rig {
    fn unidentified() -> Rig {
        let target = target();
        let hosts = ["a", "b", "c"].map(|name| HostSpec {
            name: name.to_owned(),
            target: target.clone(),
            configured_primary: name == "a",
            place: Default::default(),
        });
        let specs = vec![ClusterSpec { name: "main".into(), follows: None, hosts: hosts.to_vec() }];
        let members = Roster::default().assign(specs).remove(0);
        let mut rig = Rig {
            state: ClusterState::new(members.id, &members.name, SETTINGS),
            histories: Histories::default(),
            now: clock::now(),
        };
        rig.state.set_members(&members.hosts, &mut rig.histories, rig.now);
        rig
    }

    pub(super) fn new() -> Rig {
        let mut rig = Rig::unidentified();
        for host in 0..3 {
            rig.news(host, HostNews::Identified { identity: identity(SYSTEM, 100 + u64::from(host)) });
        }
        rig
    }

    /// A cluster whose primary is host 0, at 1000 on timeline 1, with two replicas that have caught up.
    pub(super) fn running() -> Rig {
        let mut rig = Rig::new();
        rig.read(0, primary(1000, None, 1));
        rig.read(1, replica(1000, 1));
        rig.read(2, replica(1000, 1));
        rig
    }

    pub(super) fn news(&mut self, host: u16, news: HostNews) -> Effects {
        self.now += Duration::from_millis(10);
        self.state.apply(HostId::new(host), news, &mut self.histories, self.now)
    }

    pub(super) fn read(&mut self, host: u16, reading: Reading) -> Effects {
        let sent_at = self.now;
        self.news(host, HostNews::Read { reading, sent_at, received_at: sent_at + Duration::from_millis(1) })
    }

    pub(super) fn view(&self) -> ClusterView {
        self.state.view()
    }

    fn facts(&self, started_us: u64, lsn: u64) -> Facts {
        Facts {
            asked_at: self.now,
            backend_pid: 1,
            system_identifier: SYSTEM,
            backend_started_us: 0,
            started_us,
            in_recovery: true,
            lsn: Some(Lsn::new(lsn)),
            timeline: None,
            search_path: "".into(),
        }
    }
}

#[test]
fn a_cluster_is_found_by_asking_and_its_floor_is_the_first_insert_position() {
    let rig = Rig::running();
    let view = rig.view();
    assert_eq!(view.primary, Some(HostId::new(0)));
    assert!(view.primary_reachable);
    assert!(matches!(view.floor, Floor::At { lsn, .. } if lsn == Lsn::new(1000)));
    for host in &view.hosts[1..] {
        assert_eq!((host.health, host.history), (HostHealth::Up, view.history));
        assert!(host.passed_last_sample);
    }
}

#[test]
fn a_replica_that_is_not_proved_on_the_primarys_timeline_has_no_history() {
    let mut rig = Rig::running();
    rig.read(1, Reading::Replica { replay: Some(Lsn::new(1000)), receive: None, timeline: None, paused: false });
    assert_eq!(rig.view().hosts[1].history, None);
    rig.read(1, replica(1000, 2));
    assert_eq!(rig.view().hosts[1].history, None);
}

#[test]
fn a_promotion_begins_a_history_at_the_switch_point_and_shuts_the_old_primary_out() {
    let mut rig = Rig::running();
    let old = rig.view().history.expect("a history");
    rig.news(0, HostNews::ProbeFailed { why: "killed".into(), certain: true });
    assert!(!rig.view().primary_reachable);
    let effects = rig.read(1, primary(1200, Some(900), 2));
    assert!(effects.new_history);
    assert_eq!(effects.epochs.len(), 1, "connections made to the replica are not handed out as the primary's");
    let view = rig.view();
    assert_eq!((view.primary, view.timeline), (Some(HostId::new(1)), Some(timeline(2))));
    let point = |lsn: u64| HistoryPoint::Known { history: old, lsn: Lsn::new(lsn) };
    assert_eq!(rig.histories.require(view.id, point(800)), Required::At(Lsn::new(800)));
    assert_eq!(rig.histories.require(view.id, point(1000)), Required::MayBeLost(Lsn::new(900)));
    // The old primary comes back as if nothing had happened.
    rig.news(0, HostNews::Identified { identity: identity(SYSTEM, 500) });
    rig.read(0, primary(5000, None, 1));
    let view = rig.view();
    assert_eq!(view.primary, Some(HostId::new(1)));
    assert_eq!(view.hosts[0].history, None);
}

#[test]
fn a_connection_that_reads_less_than_the_cached_position_invalidates_it() {
    let mut rig = Rig::running();
    let facts = rig.facts(101, 400);
    let effects = rig.news(1, HostNews::Connected { facts });
    assert!(effects.probe_now);
    assert_eq!(rig.view().hosts[1].replay, None);
    rig.read(1, replica(450, 1));
    assert_eq!(rig.view().hosts[1].replay, Some(Lsn::new(450)));
}

#[test]
fn a_connection_that_was_asked_before_the_position_was_measured_contradicts_nothing() {
    let mut rig = Rig::running();
    let facts = rig.facts(101, 1000);
    rig.read(1, replica(2000, 1));
    rig.news(1, HostNews::Connected { facts });
    assert_eq!(rig.view().hosts[1].replay, Some(Lsn::new(2000)));
}

#[test]
fn a_connection_to_another_server_behind_the_same_name_invalidates_the_position() {
    let mut rig = Rig::running();
    let facts = rig.facts(999, 5000);
    assert!(rig.news(2, HostNews::Connected { facts }).probe_now);
    assert_eq!(rig.view().hosts[2].replay, None);
}

#[test]
fn losing_the_probe_connection_makes_the_position_unknown() {
    let mut rig = Rig::running();
    rig.news(1, HostNews::ProbeFailed { why: "reset".into(), certain: false });
    assert_eq!(rig.view().hosts[1].health, HostHealth::Suspect);
    rig.news(1, HostNews::Identified { identity: identity(SYSTEM, 101) });
    assert_eq!(rig.view().hosts[1].replay, None);
}

#[test]
fn a_server_of_another_cluster_and_a_second_name_for_one_server_take_no_part() {
    let mut rig = Rig::running();
    rig.news(1, HostNews::Identified { identity: identity(8_000, 300) });
    rig.read(1, replica(9000, 1));
    assert_eq!(rig.view().hosts[1].health, HostHealth::Down);
    rig.news(2, HostNews::Identified { identity: identity(SYSTEM, 100) });
    rig.read(2, primary(1000, None, 1));
    let view = rig.view();
    assert_eq!(view.hosts[2].health, HostHealth::Down);
    assert_eq!(view.primary, Some(HostId::new(0)));
}

#[test]
fn a_restarted_server_gets_a_new_epoch_and_incarnation() {
    let mut rig = Rig::running();
    let before = rig.view().hosts[1].clone();
    let effects = rig.news(1, HostNews::Identified { identity: identity(SYSTEM, 777) });
    assert_eq!(effects.epochs, [(HostId::new(1), before.epoch + 1)]);
    assert_eq!(rig.view().hosts[1].incarnation, 777);
}

#[test]
fn the_configured_primary_decides_which_cluster_this_is() {
    let mut rig = Rig::unidentified();
    // Another cluster's primary, behind a wrong name, is the first to answer.
    rig.news(1, HostNews::Identified { identity: identity(8_000, 300) });
    rig.read(1, primary(9000, None, 1));
    assert_eq!(rig.view().primary, None);
    rig.news(0, HostNews::Identified { identity: identity(SYSTEM, 100) });
    rig.read(0, primary(1000, None, 1));
    rig.news(2, HostNews::ProbeFailed { why: "away".into(), certain: true });
    let view = rig.view();
    assert_eq!((view.system_identifier, view.primary), (Some(SYSTEM), Some(HostId::new(0))));
    assert_eq!(view.hosts[1].health, HostHealth::Down);
}

#[test]
fn without_the_configured_primary_the_first_primary_that_answers_decides() {
    let mut rig = Rig::unidentified();
    rig.news(0, HostNews::ProbeFailed { why: "away".into(), certain: true });
    rig.news(1, HostNews::Identified { identity: identity(SYSTEM, 101) });
    rig.read(1, primary(1000, None, 2));
    assert_eq!(rig.view().primary, None, "one host was not heard yet");
    rig.news(2, HostNews::ProbeFailed { why: "away".into(), certain: true });
    assert_eq!(rig.view().primary, Some(HostId::new(1)));
}

#[test]
fn a_second_name_takes_no_part_whichever_name_answered_first_and_takes_over_when_the_first_fails() {
    let mut rig = Rig::unidentified();
    rig.news(0, HostNews::Identified { identity: identity(SYSTEM, 100) });
    rig.read(0, primary(1000, None, 1));
    rig.news(2, HostNews::Identified { identity: identity(SYSTEM, 101) });
    rig.read(2, replica(1000, 1));
    rig.news(1, HostNews::ProbeFailed { why: "not yet".into(), certain: true });
    assert!(rig.view().hosts[2].is_up_replica());
    rig.news(1, HostNews::Identified { identity: identity(SYSTEM, 101) });
    rig.read(1, replica(1000, 1));
    rig.read(1, replica(1000, 1));
    rig.read(2, replica(1000, 1));
    let up = |rig: &Rig| rig.view().hosts.iter().map(|host| host.is_up_replica()).collect::<Vec<_>>();
    assert_eq!(up(&rig), [false, true, false]);
    rig.news(1, HostNews::ProbeFailed { why: "the name is gone".into(), certain: true });
    rig.read(2, replica(1000, 1));
    rig.read(2, replica(1000, 1));
    assert_eq!(up(&rig), [false, false, true]);
}

#[test]
fn a_promotion_while_the_probe_was_cut_off_still_changes_the_epoch() {
    let mut rig = Rig::running();
    let before = rig.view().hosts[1].epoch;
    rig.news(1, HostNews::ProbeFailed { why: "reset".into(), certain: true });
    rig.news(1, HostNews::Identified { identity: identity(SYSTEM, 101) });
    rig.read(1, primary(1200, Some(900), 2));
    assert_eq!(rig.view().hosts[1].epoch, before + 1);
}

#[test]
fn a_primary_that_was_left_behind_is_not_chosen_because_it_answers_first() {
    let mut rig = Rig::new();
    rig.read(0, primary(5000, None, 1));
    assert_eq!(rig.view().primary, None);
    rig.read(1, primary(1200, Some(900), 2));
    rig.read(2, replica(1200, 2));
    assert_eq!(rig.view().primary, Some(HostId::new(1)));
}

#[test]
fn connections_to_an_outvoted_primary_are_not_handed_out_again() {
    let mut rig = Rig::running();
    let before = rig.view().hosts[0].epoch;
    // The old primary goes on as if nothing had happened.
    let effects = rig.read(1, primary(1200, Some(900), 2));
    assert!(effects.epochs.contains(&(HostId::new(0), before + 1)), "{effects:?}");
    let effects = rig.read(0, primary(1001, None, 1));
    assert!(effects.epochs.is_empty(), "once is enough: {effects:?}");
}

#[test]
fn a_failover_while_the_floor_binds_renews_it() {
    let mut rig = Rig::running();
    rig.read(1, primary(1500, Some(900), 2));
    let view = rig.view();
    assert!(
        matches!(view.floor, Floor::At { history, lsn, .. } if Some(history) == view.history && lsn == Lsn::new(1500))
    );
}

#[test]
fn one_connect_that_failed_only_asks_the_prober() {
    let mut rig = Rig::running();
    assert!(rig.news(1, HostNews::ConnectFailed { why: "refused".into(), counts: true }).probe_now);
    assert!(rig.view().hosts[1].is_up_replica());
    rig.news(1, HostNews::ConnectFailed { why: "it is a standby".into(), counts: false });
    assert!(rig.view().hosts[1].is_up_replica());
    rig.news(1, HostNews::ConnectFailed { why: "reset".into(), counts: true });
    assert_eq!(rig.view().hosts[1].health, HostHealth::Suspect, "several are more than one");
    rig.read(1, replica(1000, 1));
    assert!(rig.view().hosts[1].is_up_replica());
}
