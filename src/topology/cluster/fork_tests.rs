//! What proves a replica where a timeline's number does not: which checkpoints count, and from when on.

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::topology::{
    HostNews,
    cluster_tests::{Rig, SYSTEM, checkpoint, identity, primary, replica},
};

const A: HostId = HostId::new(0);
const B: HostId = HostId::new(1);

impl Rig {
    fn checkpointed(&mut self, host: u16, lsn: u64) {
        let sent_at = self.now;
        self.news(host, HostNews::Checkpoint { checkpoint: checkpoint(lsn), sent_at });
    }

    fn decide_for(&mut self, host: u16) {
        let told = self.news(host, HostNews::Settled { answer: oneshot::channel().0 }).told;
        assert!(told.is_some_and(|told| told.done));
    }

    fn restarted(&mut self, host: u16, started_us: u64) {
        self.news(host, HostNews::Identified { identity: identity(SYSTEM, started_us) });
    }

    /// Whether the third host is proved to be on the present history.
    fn third_is_proved(&self) -> bool {
        let view = self.view();
        view.history.is_some() && view.hosts[2].history == view.history
    }
}

/// Host 1 claims the role beside host 0, and an operator decides for it; host 2 is a replica of one of both.
fn decided() -> Rig {
    let mut rig = Rig::running();
    assert!(!rig.state.is_forked());
    rig.read(1, replica(1000, 1));
    // What it said first shows most: it was on that timeline before there was another primary.
    rig.read(2, replica(1000, 1));
    rig.read(1, primary(1100, None, 1));
    assert!(rig.view().conflict && rig.state.is_forked() && rig.third_is_proved(), "it was proved before");
    rig.decide_for(1);
    rig.read(1, primary(1200, None, 1));
    rig.read(2, replica(1200, 1));
    assert!(rig.view().primary == Some(B) && !rig.third_is_proved());
    rig
}

#[test]
fn a_replica_is_proved_by_a_checkpoint_that_the_primary_has_written_since_it_was_decided() {
    let mut rig = decided();
    rig.checkpointed(2, 1050);
    assert!(!rig.third_is_proved());
    rig.checkpointed(1, 1050);
    rig.checkpointed(1, 1050);
    assert!(!rig.third_is_proved(), "of before the branches parted, for all that is known");
    rig.checkpointed(1, 1300);
    rig.checkpointed(1, 1400);
    assert!(!rig.third_is_proved());
    let other = Checkpoint { next_xid: "0:1".into(), ..checkpoint(1300) };
    let sent_at = rig.now;
    rig.news(2, HostNews::Checkpoint { checkpoint: other, sent_at });
    assert!(!rig.third_is_proved(), "one at the same place is another one");
    rig.checkpointed(2, 1300);
    assert!(rig.third_is_proved(), "not the last one, and one of its own");
    rig.read(2, replica(1500, 1));
    assert!(rig.third_is_proved());
    // Its server has restarted: what it says counts anew, and what it said before does not.
    rig.restarted(2, 900);
    rig.read(2, replica(1500, 1));
    assert!(!rig.third_is_proved());
    rig.checkpointed(2, 1400);
    assert!(rig.third_is_proved());
    // The primary has restarted: it is the same branch.
    rig.restarted(1, 901);
    rig.read(1, primary(1600, None, 1));
    assert!(rig.third_is_proved());
    // A newer number is unique.
    rig.read(1, primary(1700, None, 2));
    rig.restarted(2, 902);
    rig.read(2, replica(1700, 2));
    assert!(rig.third_is_proved() && !rig.state.is_forked());
}

#[test]
fn what_was_asked_before_the_branches_were_known_is_no_beginning() {
    let mut rig = Rig::running();
    let early = rig.now;
    rig.read(1, primary(1100, None, 1));
    rig.decide_for(1);
    rig.read(1, primary(1200, None, 1));
    rig.read(2, replica(1200, 1));
    rig.news(1, HostNews::Checkpoint { checkpoint: checkpoint(1050), sent_at: early });
    rig.checkpointed(1, 1150);
    rig.checkpointed(2, 1150);
    assert!(!rig.third_is_proved(), "it may have been written before the other one was copied");
    rig.checkpointed(1, 1250);
    rig.checkpointed(2, 1250);
    assert!(rig.third_is_proved());
}

#[test]
fn another_branch_makes_what_was_written_before_it_no_proof() {
    let mut rig = decided();
    rig.checkpointed(1, 1050);
    rig.checkpointed(1, 1300);
    // The one decided against comes back with another server: a copy, perhaps, as of a moment ago.
    rig.restarted(0, 500);
    rig.read(0, primary(1310, None, 1));
    assert_eq!(rig.view().primary, Some(B), "an operator has decided");
    rig.checkpointed(2, 1300);
    assert!(!rig.third_is_proved());
    // It says so again, which is nothing new.
    rig.checkpointed(1, 1300);
    rig.read(0, primary(1320, None, 1));
    rig.checkpointed(1, 1400);
    rig.checkpointed(2, 1400);
    assert!(rig.third_is_proved());
}

#[test]
fn nothing_is_proved_in_a_conflict_and_what_only_a_former_primary_wrote_is_no_proof() {
    let mut rig = decided();
    rig.checkpointed(1, 1050);
    rig.checkpointed(1, 1300);
    // The other one's server again, on a place of its own: a third claim.
    rig.restarted(0, 600);
    rig.read(0, replica(1000, 1));
    rig.restarted(0, 601);
    rig.read(0, primary(1310, None, 1));
    assert!(rig.view().conflict);
    rig.checkpointed(1, 1500);
    rig.checkpointed(0, 1500);
    rig.checkpointed(2, 1500);
    assert!(!rig.third_is_proved());
    rig.decide_for(0);
    rig.read(0, primary(1600, None, 1));
    assert_eq!(rig.view().primary, Some(A));
    assert!(!rig.third_is_proved());
    rig.checkpointed(0, 1500);
    rig.checkpointed(0, 1700);
    rig.checkpointed(2, 1700);
    assert!(rig.third_is_proved());
}

#[test]
fn a_proof_that_is_younger_than_the_rivals_last_word_as_a_standby_ends_with_its_claim() {
    // The second was asked before the third was: it may have been promoted in between, and the third have followed it.
    let mut rig = Rig::running();
    assert!(rig.third_is_proved(), "nobody has heard of it");
    rig.read(1, primary(1100, None, 1));
    assert!(rig.view().conflict && !rig.third_is_proved());
    rig.read(2, replica(1200, 1));
    assert!(!rig.third_is_proved(), "the number says nothing any more");
    // Nor for ever: it was the first one's all the time.
    rig.decide_for(0);
    rig.read(0, primary(1300, None, 1));
    for (host, lsn) in [(0, 1250), (0, 1350), (2, 1350)] {
        assert!(!rig.third_is_proved());
        rig.checkpointed(host, lsn);
    }
    assert!(rig.third_is_proved());
}

#[test]
fn nothing_is_known_of_when_a_rival_began_whose_server_was_never_seen_in_recovery() {
    let mut rig = Rig::running();
    rig.read(1, replica(1000, 1));
    rig.restarted(1, 500);
    assert!(rig.third_is_proved());
    rig.read(1, primary(1100, None, 1));
    assert!(rig.view().conflict && !rig.third_is_proved());
}

#[test]
fn the_present_primary_is_no_rival_of_its_own_replicas() {
    let mut rig = Rig::running();
    rig.read(1, replica(1000, 1));
    rig.read(1, primary(1100, None, 1));
    rig.restarted(0, 500);
    rig.read(0, primary(1100, None, 1));
    assert!(rig.view().conflict && rig.third_is_proved());
}

#[test]
fn a_later_claim_that_nobody_can_date_ends_what_checkpoints_had_proved_and_new_ones_prove_it_again() {
    let mut rig = decided();
    for (host, lsn) in [(1, 1050), (1, 1300), (2, 1300)] {
        rig.checkpointed(host, lsn);
    }
    assert!(rig.third_is_proved());
    // A copy of the primary, perhaps, that the third has followed since.
    rig.restarted(0, 500);
    rig.read(0, primary(1310, None, 1));
    assert!(rig.view().primary == Some(B) && !rig.third_is_proved());
    for (host, lsn) in [(1, 1300), (1, 1400), (2, 1400)] {
        assert!(!rig.third_is_proved());
        rig.checkpointed(host, lsn);
    }
    assert!(rig.third_is_proved());
    rig.read(0, primary(1320, None, 1));
    rig.read(2, replica(1500, 1));
    assert!(rig.third_is_proved(), "it says so again, which is nothing new");
}

#[test]
fn a_restarted_primary_may_be_a_copy_and_its_earlier_checkpoints_are_no_proof() {
    let mut rig = decided();
    rig.checkpointed(1, 1050);
    rig.checkpointed(1, 1300);
    rig.restarted(1, 500);
    rig.read(1, primary(1310, None, 1));
    rig.checkpointed(2, 1300);
    assert!(rig.view().primary == Some(B) && !rig.third_is_proved(), "of the server that it was copied from");
    rig.checkpointed(1, 1310);
    rig.checkpointed(1, 1400);
    rig.checkpointed(2, 1400);
    assert!(rig.third_is_proved());
}

/// What happens, and what of it is heard.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// That host is asked.
    Ask(u16),
    /// The second is promoted, unseen.
    Promote,
    /// The third starts anew as a replica of the first, or of the second once that is promoted, unseen until it is asked.
    Follow { the_second: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u16..3).prop_map(Step::Ask),
        1 => Just(Step::Promote),
        2 => any::<bool>().prop_map(|the_second| Step::Follow { the_second }),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn once_both_are_heard_no_replica_of_the_second_passes_for_one_of_the_first(steps in steps()) {
        let mut rig = Rig::running();
        let (mut is_promoted, mut follows_the_second, mut restarts, mut known) = (false, false, 0_u64, 0_u64);
        // Since when the third is proved, for all that anybody knows, and whether the second was a standby after that.
        let (mut is_sure, mut is_seen) = (false, true);
        for step in steps {
            match step {
                Step::Promote => is_promoted = true,
                Step::Follow { the_second } => {
                    (follows_the_second, restarts) = (the_second && is_promoted, restarts + 1);
                }
                Step::Ask(2) => {
                    if known != restarts {
                        (known, is_seen, is_sure) = (restarts, false, false);
                        rig.restarted(2, 500 + restarts);
                    }
                    rig.read(2, replica(1000, 1));
                    is_seen |= !rig.view().conflict;
                }
                Step::Ask(1) if is_promoted => drop(rig.read(1, primary(1000, None, 1))),
                Step::Ask(1) => {
                    is_sure |= is_seen;
                    rig.read(1, replica(1000, 1));
                }
                Step::Ask(host) => drop(rig.read(host, primary(1000, None, 1))),
            }
            if rig.view().conflict {
                prop_assert!(!(rig.third_is_proved() && known == restarts && follows_the_second));
                prop_assert_eq!(rig.third_is_proved(), is_sure, "what was proved before it was promoted stays");
            }
        }
    }
}
