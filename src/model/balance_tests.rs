//! Owns the tests of how hosts share calls: exact counts where turns are exact, bounds on the deviation elsewhere. Chance is
//! seeded, so every run is the same.

use super::test_support::{at, replica};
use super::*;
use crate::model::Ramp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Replicas of these weights; their ids begin with 0.
fn replicas(weights: &[u16]) -> Vec<HostView> {
    let host = |(index, weight): (u16, &u16)| HostView {
        place: Place { weight: *weight, ..Place::default() },
        ..replica(index, HistoryId::from_raw(1), 1000, 0)
    };
    (0..).zip(weights).map(host).collect()
}

fn set(ids: impl IntoIterator<Item = usize>) -> HostSet {
    ids.into_iter().fold(HostSet::EMPTY, |set, id| set.with(HostId::new(id as u16)))
}

fn pick(balance: &Balance, hosts: &[HostView], eligible: HostSet) -> Option<usize> {
    balance.pick(hosts, at(0), |host| eligible.contains(host.id)).map(HostId::index)
}

#[test]
fn who_has_come_back_gets_a_growing_part_and_those_of_another_priority_wait() {
    let mut hosts = replicas(&[100, 100, 100]);
    hosts[1].ramp = Some(Ramp { from: at(0), until: at(1000) });
    hosts[2].place.priority = 1;
    let balance = Balance::default();
    let counts = |now| {
        let mut counts = [0_u32; 3];
        for _ in 0..1000 {
            let chosen = balance.pick(&hosts, now, |_| true).expect("there is a host");
            counts[chosen.index()] += 1;
        }
        counts
    };
    let near = |counts: [u32; 3], expected: [u32; 3]| {
        assert!(counts.iter().zip(expected).all(|(count, expected)| count.abs_diff(expected) <= 5), "{counts:?}");
    };
    near(counts(at(0)), [990, 10, 0]);
    near(counts(at(500)), [667, 333, 0]);
    near(counts(at(1000)), [500, 500, 0]);
    let only = balance.pick(&hosts, at(0), |host| host.id.index() == 2);
    assert_eq!(only, Some(HostId::new(2)), "the only one that may");
}

/// A seeded sequence of numbers (a linear congruential generator; its upper bits).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// The calls that each host took, by the set of hosts that could have.
#[derive(Default)]
struct Tally(BTreeMap<u64, Vec<u64>>);

impl Tally {
    fn count(&mut self, eligible: HostSet, chosen: usize) {
        self.0.entry(eligible.bits()).or_insert_with(|| vec![0; 64])[chosen] += 1;
    }

    /// Of the calls that one set of hosts could take, none has more or less than its share by more than this.
    fn assert_shared(&self, weights: &[u16], most: f64) {
        for (eligible, counts) in &self.0 {
            let members: Vec<_> = (0..weights.len()).filter(|id| eligible >> id & 1 == 1).collect();
            let total: u64 = counts.iter().sum();
            let weight: f64 = members.iter().map(|id| f64::from(weights[*id])).sum();
            for id in members {
                let expected = total as f64 * f64::from(weights[id]) / weight;
                let off = (counts[id] as f64 - expected).abs();
                assert!(off <= most, "host {id} of {eligible:b} ({weights:?}) is off by {off}: {counts:?}");
            }
        }
    }
}

/// Weights in which nothing is even, for up to 8 hosts.
const UNEVEN: [u16; 8] = [100, 50, 1000, 37, 1, 100, 250, 3];

#[test]
fn whichever_hosts_are_excluded_the_others_share_by_weight() {
    for hosts in 2..=8 {
        for (weights, most) in [([100; 8], 1.0), (UNEVEN, 4.0)] {
            let weights = &weights[..hosts];
            let (balance, replicas) = (Balance::default(), replicas(weights));
            let (mut tally, mut chance) = (Tally::default(), Chance(hosts as u64));
            for _ in 0..20_000 {
                let eligible = set((0..hosts).filter(|_| chance.below(10) < 7));
                match pick(&balance, &replicas, eligible) {
                    Some(chosen) => {
                        assert!(eligible.contains(HostId::new(chosen as u16)));
                        tally.count(eligible, chosen);
                    }
                    None => assert!(eligible.is_empty()),
                }
            }
            tally.assert_shared(weights, most);
        }
    }
}

/// One count for all of them would let some hosts starve: each kind of call would see every second turn only.
#[test]
fn calls_that_alternate_between_sets_of_hosts_starve_none() {
    for weights in [[100; 4], [100, 200, 50, 100]] {
        let (balance, replicas) = (Balance::default(), replicas(&weights));
        let mut tally = Tally::default();
        let kinds = [set(0..4), set([0, 1]), set([2, 3]), set([1, 2, 3])];
        for call in 0..40_000 {
            let eligible = kinds[call % kinds.len()];
            tally.count(eligible, pick(&balance, &replicas, eligible).unwrap());
        }
        tally.assert_shared(&weights, if weights == [100; 4] { 1.0 } else { 3.0 });
    }
}

#[test]
fn second_attempts_are_shared_as_first_ones() {
    let (balance, replicas) = (Balance::default(), replicas(&[100; 3]));
    let mut tally = Tally::default();
    for _ in 0..3000 {
        let first = pick(&balance, &replicas, set(0..3)).unwrap();
        tally.count(set(0..3), first);
        let others = set((0..3).filter(|id| *id != first));
        tally.count(others, pick(&balance, &replicas, others).unwrap());
    }
    tally.assert_shared(&[100; 3], 1.0);
}

/// A cluster of more than 8 hosts has more sets than counts. Two that share one, called in turns, must not disturb each
/// other: by plain turns each would meet the same half of its hosts for ever.
#[test]
fn sets_that_share_a_count_are_fair_all_the_same() {
    let weights = [100; 16];
    let (balance, replicas) = (Balance::default(), replicas(&weights));
    let sets: Vec<_> =
        (0u64..1 << 10).map(|low| set((0..10).filter(|id| low >> id & 1 == 1).chain([12, 15]))).collect();
    let mut tally = Tally::default();
    for pair in sets.chunks(2) {
        // Each of them many times, beside another that may share its count.
        for _ in 0..600 {
            for eligible in pair.iter().chain([&sets[0]]) {
                tally.count(*eligible, pick(&balance, &replicas, *eligible).unwrap());
            }
        }
    }
    // 600 calls in 2 to 12 parts; the first set has 1024 times as many, mixed into all the others.
    let first = tally.0.remove(&sets[0].bits()).unwrap();
    tally.assert_shared(&weights, 12.0);
    Tally(BTreeMap::from([(sets[0].bits(), first)])).assert_shared(&weights, 1500.0);
}

#[test]
fn threads_take_every_turn_once() {
    const THREADS: usize = 8;
    const CALLS: usize = 15_000;
    for (weights, most) in [([100; 5], 0.0), ([100, 10, 1000, 3, 70], 4.0)] {
        let (balance, replicas) = (Arc::new(Balance::default()), replicas(&weights));
        let mut tally = Tally::default();
        std::thread::scope(|scope| {
            let caller = || {
                (0..CALLS).map(|_| pick(&balance, &replicas, set(0..5)).unwrap()).fold([0u64; 5], |mut counts, host| {
                    counts[host] += 1;
                    counts
                })
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(caller)).collect();
            for thread in threads {
                for (host, count) in thread.join().unwrap().into_iter().enumerate() {
                    (0..count).for_each(|_| tally.count(set(0..5), host));
                }
            }
        });
        tally.assert_shared(&weights, most);
    }
}

#[test]
fn the_turns_of_a_heavy_host_lie_apart() {
    let (balance, replicas) = (Balance::default(), replicas(&[100, 300, 100]));
    let turns: Vec<_> = (0..5000).map(|_| pick(&balance, &replicas, set(0..3)).unwrap()).collect();
    // It has three of five: never more than two in a row, nor two others.
    assert!(turns.windows(3).all(|three| three.iter().any(|host| *host != 1)), "three in a row");
    assert!(turns.windows(3).all(|three| three.contains(&1)), "none in three");
}

#[test]
fn the_own_zone_comes_first_and_weight_0_last() {
    let balance = Balance::default();
    let mut hosts = replicas(&[100, 100, 100, 100, 0, 0]);
    (2..=4).for_each(|far| hosts[far].place.is_near = false);
    let counts = |eligible: HostSet| {
        let mut counts = [0; 6];
        (0..60).for_each(|_| counts[pick(&balance, &hosts, eligible).unwrap()] += 1);
        counts
    };
    assert_eq!(counts(set(0..6)), [30, 30, 0, 0, 0, 0]);
    assert_eq!(counts(set(1..6)), [0, 60, 0, 0, 0, 0]);
    assert_eq!(counts(set(2..6)), [0, 0, 30, 30, 0, 0]);
    assert_eq!(counts(set(3..6)), [0, 0, 0, 60, 0, 0]);
    // What is drained stays drained while anything else will do, in whichever zone.
    assert_eq!(counts(set(4..6)), [0, 0, 0, 0, 30, 30]);
    assert_eq!(counts(set([5])), [0, 0, 0, 0, 0, 60]);
    assert_eq!(pick(&balance, &hosts, HostSet::EMPTY), None);
}

/// Calls that end after a time of their own, on hosts that differ in it: `ticks[host]` for each call there. A call begins
/// with each tick. Answers the calls that each host took, and the most that one had in flight.
fn simulate(balance: &Arc<Balance>, hosts: &[HostView], ticks: &[u64], calls: u64) -> (Vec<u64>, u32) {
    let (mut counts, mut most) = (vec![0; hosts.len()], 0);
    let mut open: Vec<(u64, InFlight)> = Vec::new();
    for now in 0..calls {
        open.retain(|(end, _)| *end > now);
        let host = pick(balance, hosts, set(0..hosts.len())).unwrap();
        counts[host] += 1;
        open.push((now + ticks[host], balance.begin(HostId::new(host as u16))));
        most = most.max(balance.in_flight(HostId::new(host as u16)));
    }
    drop(open);
    assert!((0..hosts.len()).all(|host| balance.in_flight(HostId::new(host as u16)) == 0), "a call was never ended");
    (counts, most)
}

#[test]
fn least_loaded_avoids_a_slow_host() {
    let hosts = replicas(&[100; 3]);
    let ticks = [2, 2, 100];
    let (turns, most_by_turns) = simulate(&Arc::new(Balance::default()), &hosts, &ticks, 3000);
    assert_eq!(turns, [1000; 3]);
    let balance = Arc::new(Balance::new(BalancePolicy::LeastLoaded));
    let (counts, most) = simulate(&balance, &hosts, &ticks, 3000);
    assert!(counts[2] < 200 && counts[0] > 1300 && counts[1] > 1300, "{counts:?}");
    assert!(most * 5 < most_by_turns, "{most} at a time instead of {most_by_turns}");
}

#[test]
fn least_loaded_is_round_robin_while_hosts_are_idle() {
    for weights in [[100; 3], [100, 300, 50]] {
        let balance = Arc::new(Balance::new(BalancePolicy::LeastLoaded));
        let (hosts, mut tally) = (replicas(&weights), Tally::default());
        for _ in 0..9000 {
            let host = pick(&balance, &hosts, set(0..3)).unwrap();
            tally.count(set(0..3), host);
            drop(balance.begin(HostId::new(host as u16)));
        }
        tally.assert_shared(&weights, 3.0);
    }
}

#[test]
fn least_loaded_heeds_weights() {
    let balance = Arc::new(Balance::new(BalancePolicy::LeastLoaded));
    // Equally fast, and busy: each has in flight what its weight says.
    let (counts, _) = simulate(&balance, &replicas(&[100, 400]), &[50, 50], 10_000);
    assert!((1500..=2500).contains(&counts[0]), "{counts:?}");
    // One that is busy for its weight gives way, one that is idle does not.
    let hosts = replicas(&[1000, 1]);
    let _heavy: Vec<_> = (0..10).map(|_| balance.begin(HostId::new(0))).collect();
    let light = (0..10_010).filter(|_| pick(&balance, &hosts, set(0..2)) == Some(1)).count();
    assert!((5..=15).contains(&light), "{light} of 10010 for 1 of 1001 shares");
}

/// Two choices never take the busier of the two, whatever is in flight.
#[test]
fn least_loaded_never_takes_the_busiest_of_all() {
    let mut chance = Chance(7);
    for _ in 0..200 {
        let balance = Arc::new(Balance::new(BalancePolicy::LeastLoaded));
        let hosts = replicas(&[100; 6]);
        let loads: Vec<u32> = (0..6).map(|id| (id * 2 + chance.below(2)) as u32).collect();
        let open = loads.iter().enumerate().flat_map(|(id, load)| (0..*load).map(move |_| id));
        let _open: Vec<_> = open.map(|id| balance.begin(HostId::new(id as u16))).collect();
        for _ in 0..50 {
            let chosen = pick(&balance, &hosts, set(0..6)).unwrap();
            assert!(loads[chosen] < loads[5], "the busiest of {loads:?}");
        }
    }
}
