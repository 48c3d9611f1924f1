//! Owns what the model's tests share: times from one base, and small views.

use super::*;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// One moment for the whole test process: all times of tests are counted from it.
pub(crate) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    #[allow(clippy::disallowed_methods)]
    *ORIGIN.get_or_init(|| Instant::now() + Duration::from_secs(86_400))
}

/// `ms` milliseconds after the origin.
pub(crate) fn at(ms: u64) -> Instant {
    origin() + Duration::from_millis(ms)
}

pub(crate) fn sample(ms: u64, insert: u64) -> Sample {
    Sample { sent_at: at(ms), insert: Lsn::new(insert) }
}

pub(crate) fn timeline(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0);
pub(crate) const SYSTEM: u64 = 7_000_000_000;

/// Histories in which [`CLUSTER`] went through timelines 1, 2, …, each beginning at one of `starts`.
pub(crate) fn histories(starts: &[u64]) -> Histories {
    let mut histories = Histories::default();
    for (n, start) in (1..).zip(starts) {
        histories.begin(CLUSTER, SYSTEM, timeline(n), SwitchPoint::exactly(Lsn::new(*start)));
    }
    histories
}

/// A replica that is up, at `replay`, and was seen to pass a sample at `passed_ms`.
pub(crate) fn replica(index: u16, history: HistoryId, replay: u64, passed_ms: u64) -> HostView {
    HostView {
        role: Some(Role::Replica),
        health: HostHealth::Up,
        history: Some(history),
        replay: Some(Lsn::new(replay)),
        measured_at: Some(at(passed_ms)),
        passed_sample_at: Some(at(passed_ms)),
        passed_last_sample: true,
        ..HostView::unknown(HostId::new(index), Arc::from(format!("host-{index}")))
    }
}

/// A cluster whose host 0 is its primary, followed by `replicas`; its newest sample is of 0 ms.
pub(crate) fn view(histories: &Histories, insert: u64, replicas: Vec<HostView>) -> ClusterView {
    let history = histories.current(CLUSTER);
    let mut hosts = vec![HostView {
        role: Some(Role::Primary),
        health: HostHealth::Up,
        history,
        replay: Some(Lsn::new(insert)),
        ..HostView::unknown(HostId::new(0), Arc::from("primary"))
    }];
    hosts.extend(replicas);
    ClusterView {
        system_identifier: Some(SYSTEM),
        history,
        timeline: history.and_then(|id| histories.timeline(id)),
        primary: Some(HostId::new(0)),
        primary_reachable: true,
        newest_sample: Some(sample(0, insert)),
        floor: Floor::NotNeeded,
        ..ClusterView::unknown(CLUSTER, Arc::from("main"), WalGeometry::default(), hosts)
    }
}
