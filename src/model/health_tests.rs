//! The health machine: transitions by table, its promises by random events.

use super::test_support::at;
use super::{Health, HealthEvent, HealthSettings, HostHealth, HostHealth::*};
use HealthEvent::{Doubted, Failed, Gone, Pardoned};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const OK: HealthEvent = HealthEvent::Answered { as_primary: false };
const OK_PRIMARY: HealthEvent = HealthEvent::Answered { as_primary: true };

fn after(events: &[HealthEvent]) -> HostHealth {
    let (mut health, settings) = (Health::default(), HealthSettings::default());
    for (ms, event) in (0..).step_by(10).zip(events) {
        health.on(*event, at(ms), &settings);
    }
    health.now()
}

#[test]
fn transitions() {
    let cases: &[(&[HealthEvent], HostHealth)] = &[
        (&[], Unknown),
        (&[OK], Up),
        (&[Failed], Down),
        (&[Doubted, Doubted, Doubted], Unknown),
        (&[OK, Failed], Suspect),
        (&[OK, Failed, OK], Up),
        (&[OK, Failed, OK, Failed], Suspect),
        (&[OK, Failed, Failed], Down),
        (&[OK, Gone], Down),
        (&[OK, Failed, Gone], Down),
        (&[OK, Doubted], Up),
        (&[OK, Doubted, OK, Doubted], Up),
        (&[OK, Doubted, Doubted], Suspect),
        (&[OK, Doubted, Doubted, Doubted, Doubted], Suspect),
        (&[OK, Doubted, Doubted, Failed], Suspect),
        (&[OK, Doubted, Doubted, OK], Up),
        (&[OK, Gone, OK], Down),
        (&[OK, Gone, OK, Failed, OK], Down),
        (&[OK, Gone, OK, OK], Up),
        (&[Failed, OK, OK], Up),
        (&[OK, Gone, OK_PRIMARY], Up),
        (&[OK, Gone, OK, OK, Gone, OK, OK], Quarantined),
        (&[OK, Gone, OK, OK, Gone, OK, OK, OK], Quarantined),
        (&[OK, Gone, OK, OK, Gone, OK, OK, Failed], Down),
        (&[OK, Gone, OK, OK, Gone, OK, OK, OK_PRIMARY], Up),
        (&[OK, Gone, OK, OK, Gone, OK, OK, Pardoned], Up),
        (&[OK, Gone, OK, OK, Gone, OK_PRIMARY], Up),
        (&[Pardoned], Unknown),
        (&[OK, Gone, Pardoned], Down),
    ];
    for (events, expected) in cases {
        assert_eq!(after(events), *expected, "{events:?}");
    }
}

#[test]
fn to_be_excluded_is_no_loss() {
    let (mut health, settings) = (Health::default(), HealthSettings::default());
    for ms in [0, 100, 200, 300] {
        health.on(OK, at(ms), &settings);
        health.on(OK, at(ms + 1), &settings);
        assert_eq!(health.now(), Up);
        assert_eq!(health.exclude().map(|change| change.to), Some(Down));
        assert_eq!(health.exclude(), None);
    }
}

#[test]
fn a_host_comes_back_slowly_and_starts_at_once() {
    let (mut health, settings) = (Health::default(), HealthSettings::default());
    health.on(OK, at(0), &settings);
    assert_eq!(health.ramp(), None, "what was never lost has its whole share");
    health.on(Failed, at(10), &settings);
    health.on(OK, at(20), &settings);
    assert_eq!(health.ramp(), None, "nor has what was only suspect to wait for it");
    health.on(Gone, at(30), &settings);
    health.on(OK, at(40), &settings);
    health.on(OK, at(1000), &settings);
    let ramp = health.ramp().unwrap();
    let percents = [0, 1000, 1200, 6000, 10_999, 11_000, 60_000].map(|ms| ramp.percent(at(ms)));
    assert_eq!(percents, [1, 1, 2, 50, 99, 100, 100]);
    let none = super::health::Ramp { from: at(0), until: at(0) };
    assert_eq!(none.percent(at(0)), 100, "no slow start");
}

/// Loses the host and brings it back; answers the length of the quarantine.
fn lose(health: &mut Health, now: &mut Instant, settings: &HealthSettings) -> Option<Duration> {
    health.on(Gone, *now, settings);
    assert_eq!(health.now(), Down);
    for _ in 0..settings.successes {
        *now += Duration::from_millis(10);
        health.on(OK, *now, settings);
    }
    let until = health.quarantined_until()?;
    assert_eq!(health.now(), Quarantined);
    let length = until - *now;
    health.on(OK, until - Duration::from_millis(1), settings);
    assert_eq!(health.now(), Quarantined, "it is served in full");
    *now = until;
    health.on(OK, *now, settings);
    assert_eq!(health.now(), Up);
    Some(length)
}

#[test]
fn quarantine_grows_to_its_limit_and_is_forgiven() {
    let (mut health, settings) = (Health::default(), HealthSettings::default());
    let mut now = at(0);
    health.on(OK, now, &settings);
    let mut lengths = || lose(&mut health, &mut now, &settings).map_or(0, |length| length.as_secs());
    let grown: Vec<_> = (0..10).map(|_| lengths()).collect();
    assert_eq!(grown, [0, 5, 10, 20, 40, 80, 160, 300, 300, 300]);
    now += settings.quarantine_max;
    assert_eq!(lose(&mut health, &mut now, &settings), None, "forgiven");
    assert_eq!(lose(&mut health, &mut now, &settings), Some(settings.quarantine), "and counted anew");
}

#[test]
fn no_quarantine_can_be_configured() {
    let settings = HealthSettings { quarantine: Duration::ZERO, ..HealthSettings::default() };
    let (mut health, mut now) = (Health::default(), at(0));
    health.on(OK, now, &settings);
    assert_eq!([(); 4].map(|()| lose(&mut health, &mut now, &settings)), [None; 4]);
}

fn any_event() -> impl Strategy<Value = HealthEvent> {
    let certain = prop_oneof![Just(Failed), Just(Gone), Just(Doubted), Just(Pardoned)];
    prop_oneof![4 => Just(OK), 1 => Just(OK_PRIMARY), 3 => certain]
}

proptest! {
    #[test]
    fn promises(
        events in prop::collection::vec((any_event(), 0u64..20_000), 0..200),
        failures in 1u32..4,
        successes in 1u32..4,
    ) {
        let settings = HealthSettings { failures, successes, ..HealthSettings::default() };
        let (mut health, mut ms) = (Health::default(), 0);
        let (mut answers, mut failed_in_a_row, mut heard) = (0, 0, false);
        for (event, pause) in events {
            ms += pause;
            let before = health.clone();
            let change = health.on(event, at(ms), &settings);
            prop_assert_eq!(change.is_some(), before.now() != health.now());
            match event {
                HealthEvent::Answered { .. } => { answers += 1; failed_in_a_row = 0; heard = true; }
                Failed | Gone => { answers = 0; failed_in_a_row += 1; heard = true; }
                Doubted | Pardoned => {}
            }
            prop_assert_eq!(health.now() == Unknown, !heard);
            if change.is_some_and(|change| change.to == Up) {
                // Never up without a good probe: this one, or, for a pardon, those before the quarantine.
                prop_assert!(answers > 0, "{:?} by {:?}", change, event);
                if before.now() == Down && event == OK {
                    prop_assert!(answers >= successes);
                }
            }
            if failed_in_a_row >= failures {
                prop_assert!(!matches!(health.now(), Up | Suspect));
            }
            if event == Gone {
                prop_assert_eq!(health.now(), Down);
            }
            if let Some(until) = health.quarantined_until() {
                let left = until - at(ms);
                prop_assert!(left <= settings.quarantine_max);
                prop_assert!(before.now() == Quarantined || left >= settings.quarantine);
            }
            if before.now() == Quarantined && event == OK && health.now() == Up {
                prop_assert!(before.quarantined_until().is_some_and(|until| until <= at(ms)));
            }
        }
    }
}
