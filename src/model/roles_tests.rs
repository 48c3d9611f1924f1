//! The election: table tests of the rule, and what no sequence of events may bring about.

use super::test_support::{at, timeline};
use super::{Election, HostId, HostSet, Said, Verdict};
use proptest::prelude::*;

const A: HostId = HostId::new(0);
const B: HostId = HostId::new(1);

fn primary(on: u32) -> Said {
    Said::Primary { timeline: timeline(on), until: at(1000) }
}

fn chosen(host: HostId) -> Verdict {
    Verdict::Primary { host, until: at(1000) }
}

/// The verdicts after each of these, at 0 ms.
fn verdicts(said: &[[Said; 2]]) -> Vec<Verdict> {
    let mut election = Election::default();
    said.iter().map(|said| election.decide(said, at(0))).collect()
}

#[test]
fn the_newest_timeline_wins_and_nobody_goes_back() {
    use Said::{Nothing, Replica};
    let said = [
        [Nothing, Nothing],
        [primary(1), Replica],
        [Nothing, Replica],
        [primary(1), Replica],
        [primary(1), primary(2)],
        [primary(1), Nothing],
        [primary(1), Replica],
        [primary(3), primary(2)],
    ];
    use Verdict::Vacant;
    assert_eq!(verdicts(&said), [Vacant, chosen(A), Vacant, chosen(A), chosen(B), Vacant, Vacant, chosen(A)]);
}

#[test]
fn a_role_that_is_not_confirmed_within_its_lease_is_vacant() {
    let mut election = Election::default();
    assert_eq!(election.decide(&[primary(1)], at(999)), chosen(A));
    assert_eq!(election.decide(&[primary(1)], at(1000)), Verdict::Vacant);
    assert_eq!(election.claimants(), HostSet::EMPTY.with(A), "it holds the role all the same: nobody else may");
}

#[test]
fn a_conflict_stays_until_it_is_settled() {
    use Said::{NoPart, Nothing, Replica};
    for (then, expected) in [
        ([Nothing, primary(2)], Verdict::Conflict),
        ([primary(2), Nothing], Verdict::Conflict),
        ([Nothing, Nothing], Verdict::Conflict),
        ([Replica, primary(2)], chosen(B)),
        ([primary(2), Replica], chosen(A)),
        ([NoPart, primary(2)], chosen(B)),
        ([NoPart, Nothing], Verdict::Vacant),
        ([primary(1), primary(2)], chosen(B)),
        ([primary(3), primary(2)], chosen(A)),
        ([primary(3), primary(3)], Verdict::Conflict),
    ] {
        assert_eq!(verdicts(&[[primary(2), primary(2)], then])[1], expected, "{then:?}");
        // Also when they were never seen at the same moment: two standbys promoted one after the other.
        assert_eq!(verdicts(&[[primary(2), Nothing], [Nothing, primary(2)], then])[1..], [Verdict::Conflict, expected]);
    }
}

#[test]
fn an_operator_decides_for_one_claimant_and_the_others_stay_out_until_they_are_something_else() {
    let mut election = Election::default();
    assert!(!election.settle(A), "nobody claims anything");
    let both = [primary(2), primary(2)];
    assert_eq!(election.decide(&both, at(0)), Verdict::Conflict);
    assert!(!election.settle(HostId::new(2)), "no claimant");
    assert_eq!(election.decide(&both, at(0)), Verdict::Conflict);
    assert!(election.settle(B));
    assert_eq!(election.decide(&both, at(0)), chosen(B));
    assert_eq!(election.decide(&[primary(2), Said::Nothing], at(0)), Verdict::Vacant);
    assert_eq!(election.decide(&[Said::Nothing, primary(2)], at(0)), chosen(B));
    assert_eq!(election.decide(&both, at(0)), chosen(B));
    // Rebuilt as a replica, and promoted to the same timeline once more: a new claim.
    assert_eq!(election.decide(&[Said::Replica, primary(2)], at(0)), chosen(B));
    assert_eq!(election.decide(&both, at(0)), Verdict::Conflict);
}

fn any_said() -> impl Strategy<Value = Said> {
    let primary =
        (1u32..4, 0u64..100).prop_map(|(on, until)| Said::Primary { timeline: timeline(on), until: at(until) });
    prop_oneof![2 => primary, 1 => Just(Said::Nothing), 1 => Just(Said::Replica), 1 => Just(Said::NoPart)]
}

proptest! {
    #[test]
    fn only_a_fresh_and_undisputed_claim_on_the_newest_timeline_is_chosen(
        rounds in prop::collection::vec((prop::collection::vec(any_said(), 3), prop::option::of(0u16..3)), 1..30),
    ) {
        let mut election = Election::default();
        let mut newest = None;
        for (ms, (said, settled)) in (0..).step_by(10).zip(rounds) {
            if let Some(host) = settled {
                election.settle(HostId::new(host));
            }
            let before = election.clone();
            let verdict = election.decide(&said, at(ms));
            newest = newest.max(said.iter().filter_map(|said| match said {
                Said::Primary { timeline, .. } => Some(*timeline),
                _ => None,
            }).max());
            prop_assert_eq!(election.timeline(), newest);
            if let Verdict::Primary { host, until } = verdict {
                prop_assert!(until > at(ms));
                prop_assert_eq!(Some(said[host.index()]), newest.map(|timeline| Said::Primary { timeline, until }));
                // Whoever else claimed this timeline has since been seen as something else, or an operator decided.
                for other in before.claimants().without(host).iter() {
                    let is_silent = matches!(said[other.index()], Said::Nothing);
                    prop_assert!(!is_silent || before.timeline() < newest);
                }
            }
        }
    }
}
