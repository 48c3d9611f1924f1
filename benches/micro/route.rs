//! The choice of a host, against the number of a cluster's replicas.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use tidegate::{
    clock,
    model::{
        Balance, BalancePolicy, Binding, ClusterId, ClusterView, Consistency, Decision, Floor, Histories, HostHealth,
        HostId, HostSet, HostView, Lsn, Role, RouteReason, RouteRequest, Sample, SwitchPoint, Timeline, WalGeometry,
        route,
    },
};

const SYSTEM: u64 = 7_000_000_000_000_000_001;
const INSERT: Lsn = Lsn::new(0x3000_0000);
/// Replicas: with the primary, the last is as many hosts as a cluster may have.
const REPLICAS: [u16; 4] = [1, 4, 16, HostSet::CAPACITY as u16 - 1];

/// A cluster whose replicas have replayed all that was written.
fn view(replicas: u16, now: Instant) -> ClusterView {
    let cluster = ClusterId::new(0);
    let mut histories = Histories::default();
    let timeline = Timeline::new(1).expect("a timeline");
    histories.begin(cluster, SYSTEM, timeline, SwitchPoint::exactly(Lsn::new(0x0100_0000)));
    let history = histories.current(cluster);
    let host = |place: u16| HostView {
        role: Some(if place == 0 { Role::Primary } else { Role::Replica }),
        health: HostHealth::Up,
        history,
        replay: Some(INSERT),
        measured_at: Some(now),
        passed_sample_at: Some(now),
        passed_last_sample: true,
        ..HostView::unknown(HostId::new(place), Arc::from(format!("host-{place}")))
    };
    let hosts = (0..=replicas).map(host).collect();
    ClusterView {
        system_identifier: Some(SYSTEM),
        history,
        timeline: Some(timeline),
        primary: Some(HostId::new(0)),
        primary_reachable: true,
        lease_until: Some(now + Duration::from_secs(3600)),
        newest_sample: Some(Sample { sent_at: now, insert: INSERT }),
        floor: Floor::NotNeeded,
        ..ClusterView::unknown(cluster, Arc::from("main"), WalGeometry::default(), hosts)
    }
}

/// One kind of read.
struct Case {
    name: &'static str,
    policy: BalancePolicy,
    binding: Binding,
    /// What comes of it.
    reason: RouteReason,
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let at = |lsn: Lsn| Binding::At { lsn, may_be_lost: false };
    let cases = [
        Case {
            name: "route/unbound",
            policy: BalancePolicy::RoundRobin,
            binding: Binding::NoPosition,
            reason: RouteReason::NoPosition,
        },
        Case {
            name: "route/caught_up",
            policy: BalancePolicy::RoundRobin,
            binding: at(INSERT),
            reason: RouteReason::CaughtUp,
        },
        Case {
            name: "route/caught_up_least_loaded",
            policy: BalancePolicy::LeastLoaded,
            binding: at(INSERT),
            reason: RouteReason::CaughtUp,
        },
        // Every replica is asked, and none will do.
        Case {
            name: "route/behind",
            policy: BalancePolicy::RoundRobin,
            binding: at(Lsn::new(INSERT.get() + 1)),
            reason: RouteReason::Behind,
        },
    ];
    let now = clock::now();
    for case in cases {
        let mut group = criterion.benchmark_group(case.name);
        for replicas in REPLICAS {
            let (view, balance) = (view(replicas, now), Balance::new(case.policy));
            let request = RouteRequest {
                consistency: &Consistency::Session,
                binding: case.binding,
                exclude: HostSet::EMPTY,
                balance: &balance,
                now,
                max_lag: Duration::from_secs(20),
                max_lag_bytes: Some(64 << 20),
                wait_until: None,
            };
            let decided = route(&view, &request);
            assert!(matches!(decided, Decision::Send { reason, .. } if reason == case.reason), "{decided:?}");
            group.bench_function(BenchmarkId::from_parameter(replicas), |bencher| {
                bencher.iter(|| route(black_box(&view), black_box(&request)));
            });
        }
        group.finish();
    }
}
