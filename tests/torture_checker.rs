//! The tests of the torture's checker and plan: a history that keeps every promise has no violation, and each kind of
//! violation, made by changing such a history in one place, is found. Without servers.

#![allow(unreachable_pub, dead_code, reason = "a test binary exports nothing, and uses a part of the torture")]

#[path = "torture/checker.rs"]
mod checker;
#[path = "torture/dice.rs"]
mod dice;
#[path = "torture/ending.rs"]
mod ending;
#[path = "torture/history.rs"]
mod history;
#[path = "torture/plan.rs"]
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use checker::{GRACE, Rule, judge};
use dice::Dice;
use history::{Answer, End, History, Promise, Read, SHARED, State, Step, Verdict, What, Write};
use plan::{FAULTS, Fault, plan};

const SESSIONS: u32 = 4;

/// A store that keeps every promise, one write after another; each version of it can still be read, as on a replica that
/// is behind.
#[derive(Clone, Default)]
struct Store {
    rows: BTreeMap<(u32, u32), u32>,
    registers: BTreeMap<u32, i64>,
    shared: [i64; SHARED],
}

impl Store {
    fn state(&self, session: u32) -> State {
        let of_session = self.rows.range((session, 0)..=(session, u32::MAX));
        State {
            rows: of_session.map(|(&(_, number), &count)| (number, count)).collect(),
            register: self.registers.get(&session).copied().unwrap_or(0),
            shared: self.shared,
        }
    }

    fn apply(&mut self, session: u32, write: &Write) -> Option<i64> {
        self.rows.insert((session, write.number), write.rows);
        if write.raises_register {
            self.registers.insert(session, write.number.into());
        }
        let register = write.adds_to?;
        self.shared[register] += 1;
        Some(self.shared[register])
    }
}

/// A history that keeps every promise and uses all the freedom that they leave: reads of old versions, writes of which
/// nobody knows, failures.
fn good(seed: u64, length: usize) -> History {
    let mut dice = Dice::of(seed, 99);
    let mut versions = vec![Store::default()];
    // For each session: the number of its last write, and the version that it must see.
    let mut last = [(0_u32, 0_usize); SESSIONS as usize];
    let mut steps = vec![];
    for at in 0..length as u64 {
        let session = dice.below(SESSIONS.into()) as u32;
        let (number, floor) = &mut last[session as usize];
        // The first session is a causal one.
        let promise = if session == 0 { Promise::Causal } else { Promise::Session };
        let what = if dice.percent(40) {
            *number += 1;
            let (verdict, happens) = match dice.below(10) {
                0 => (Verdict::Nothing, false),
                1 => (Verdict::Maybe, false),
                2 => (Verdict::Maybe, true),
                _ => (Verdict::Done, true),
            };
            let mut write = Write {
                number: *number,
                rows: 1 + dice.below(2) as u32,
                raises_register: dice.percent(50),
                adds_to: dice.percent(50).then(|| dice.below(SHARED as u64) as usize),
                came_to: None,
                verdict,
                has_key: false,
                how: String::new(),
            };
            if happens {
                let mut store = versions.last().expect("there is one").clone();
                let came_to = store.apply(session, &write);
                versions.push(store);
                if verdict == Verdict::Done {
                    (write.came_to, *floor) = (came_to, versions.len() - 1);
                }
            }
            What::Write(write)
        } else {
            let version = dice.between(*floor as u64, versions.len() as u64 - 1) as usize;
            if promise == Promise::Causal {
                *floor = version;
            }
            let of = if dice.percent(60) { session } else { dice.below(SESSIONS.into()) as u32 };
            What::Read(Read { of, promise, saw: versions[version].state(of), route: String::new() })
        };
        steps.push(Step { session, broker: 0, invoked: at * 10, answered: at * 10 + 5, what });
    }
    let store = versions.pop().expect("there is one");
    let end = End { rows: store.rows, registers: store.registers, shared: store.shared, ..End::default() };
    History { steps, late: vec![], end: Some(end) }
}

fn rules(history: &History) -> BTreeSet<Rule> {
    judge(history).into_iter().map(|violation| violation.rule).collect()
}

fn read_of(step: &mut Step) -> Option<&mut Read> {
    if let What::Read(read) = &mut step.what { Some(read) } else { None }
}

fn write_of(step: &Step) -> Option<&Write> {
    if let What::Write(write) = &step.what { Some(write) } else { None }
}

fn is_done(step: &Step) -> bool {
    write_of(step).is_some_and(|write| write.verdict == Verdict::Done)
}

/// The last read that fulfils a condition, to be falsified.
fn last_read(history: &mut History, wanted: impl Fn(&Step, &Read) -> bool) -> Option<&mut Read> {
    let is_wanted = |step: &&mut Step| matches!(&step.what, What::Read(read) if wanted(step, read));
    history.steps.iter_mut().rev().find(is_wanted).and_then(read_of)
}

fn end(history: &mut History) -> &mut End {
    history.end.as_mut().expect("the history has an end")
}

/// A change that violates one rule. None if the history has no place for it.
type Mutation = fn(&mut History) -> Option<()>;

const MUTATIONS: &[(&str, Rule, Mutation)] = &[
    ("an own write is not read", Rule::ReadYourWrites, |history| {
        let done: BTreeSet<(u32, u32)> = history
            .steps
            .iter()
            .filter(|step| is_done(step))
            .filter_map(|step| Some((step.session, write_of(step)?.number)))
            .collect();
        let own = |step: &Step, read: &Read| {
            step.session == read.of && read.saw.rows.keys().any(|number| done.contains(&(read.of, *number)))
        };
        let read = last_read(history, own)?;
        let number = *read.saw.rows.keys().rev().find(|number| done.contains(&(read.of, **number)))?;
        read.saw.rows.remove(&number).map(drop)
    }),
    ("an own register is not read", Rule::ReadYourWrites, |history| {
        let raised =
            |step: &Step| write_of(step).is_some_and(|write| write.verdict == Verdict::Done && write.raises_register);
        let at = history.steps.iter().position(raised)?;
        let session = history.steps[at].session;
        let later = history.steps[at..].iter_mut().filter(|step| step.session == session);
        later.filter_map(read_of).find(|read| read.of == session)?.saw.register = 0;
        Some(())
    }),
    ("an own addition is not read", Rule::ReadYourWrites, |history| {
        let added = |step: &Step| write_of(step).is_some_and(|write| write.came_to.is_some());
        let at = history.steps.iter().position(added)?;
        let (session, write) = (history.steps[at].session, write_of(&history.steps[at])?.clone());
        let mut later = history.steps[at..].iter_mut().filter(|step| step.session == session).filter_map(read_of);
        later.next()?.saw.shared[write.adds_to?] = write.came_to? - 1;
        Some(())
    }),
    ("a causal session goes back", Rule::MonotonicReads, |history| {
        let causal = |read: &Read| read.promise == Promise::Causal;
        let mut reads = history.steps.iter_mut().filter_map(read_of).filter(|read| causal(read));
        let first = reads.find(|read| read.saw.shared[0] > 0)?.saw.shared[0];
        reads.next()?.saw.shared[0] = first - 1;
        Some(())
    }),
    ("a causal session misses a row of another", Rule::MonotonicReads, |history| {
        let others = |step: &Step, read: &Read| {
            step.session == 0 && read.promise == Promise::Causal && read.of == 1 && !read.saw.rows.is_empty()
        };
        let at = history.steps.iter().position(|step| matches!(&step.what, What::Read(read) if others(step, read)))?;
        let later = history.steps[at + 1..]
            .iter_mut()
            .find(|step| matches!(&step.what, What::Read(read) if others(step, read)))?;
        read_of(later)?.saw.rows.clear();
        Some(())
    }),
    ("a later write is there without an earlier one", Rule::MonotonicWrites, |history| {
        let done: BTreeSet<(u32, u32)> = history
            .steps
            .iter()
            .filter(|step| is_done(step))
            .filter_map(|step| Some((step.session, write_of(step)?.number)))
            .collect();
        let of_others = |step: &Step, read: &Read| {
            let (last, of) = (read.saw.rows.keys().last().copied(), read.of);
            step.session != of && read.saw.rows.keys().any(|it| Some(*it) != last && done.contains(&(of, *it)))
        };
        let read = last_read(history, of_others)?;
        let number = *read.saw.rows.keys().find(|number| done.contains(&(read.of, **number)))?;
        read.saw.rows.remove(&number).map(drop)
    }),
    ("a write is there without what its session had read", Rule::WritesFollowReads, |history| {
        // Of a session that had read something of a register before it wrote, somebody reads the write.
        let mut had_read = [[0_i64; SHARED]; SESSIONS as usize];
        let mut depends = BTreeMap::new();
        for step in &history.steps {
            match &step.what {
                What::Read(read) => {
                    for (known, version) in had_read[step.session as usize].iter_mut().zip(read.saw.shared) {
                        *known = version.max(*known);
                    }
                }
                What::Write(write) => {
                    let register = (0..SHARED).find(|at| had_read[step.session as usize][*at] > 0);
                    depends.extend(register.map(|register| ((step.session, write.number), register)));
                }
            }
        }
        let newest = |read: &Read| Some((read.of, *read.saw.rows.keys().last()?));
        let read = last_read(history, |step, read| {
            step.session != read.of && newest(read).is_some_and(|newest| depends.contains_key(&newest))
        })?;
        let register = depends[&newest(read)?];
        read.saw.shared[register] = 0;
        Some(())
    }),
    ("an acknowledged write is missing", Rule::AcknowledgedLost, |history| {
        let step = history.steps.iter().find(|step| is_done(step))?;
        let key = (step.session, write_of(step)?.number);
        end(history).rows.remove(&key).map(drop)
    }),
    ("two writes were told the same version", Rule::AcknowledgedLost, |history| {
        let mut added = history.steps.iter_mut().filter_map(|step| match &mut step.what {
            What::Write(write) if write.came_to.is_some() => Some(write),
            _ => None,
        });
        let first = added.next()?.clone();
        let other = added.find(|write| write.adds_to == first.adds_to)?;
        other.came_to = first.came_to;
        Some(())
    }),
    ("an addition is lost at the end", Rule::AcknowledgedLost, |history| {
        end(history).shared.iter_mut().find(|version| **version > 0).map(|version| *version -= 1)
    }),
    ("a register fell back", Rule::AcknowledgedLost, |history| {
        end(history).registers.values_mut().find(|version| **version > 0).map(|version| *version -= 1)
    }),
    ("a write is there twice", Rule::AppliedTwice, |history| {
        end(history).rows.values_mut().next().map(|count| *count *= 2)
    }),
    ("a write is read twice", Rule::AppliedTwice, |history| {
        let read = last_read(history, |_, read| !read.saw.rows.is_empty())?;
        read.saw.rows.values_mut().next().map(|count| *count += 1)
    }),
    ("an addition was made twice", Rule::AppliedTwice, |history| {
        end(history).shared[0] += 1;
        Some(())
    }),
    ("a write is there in parts", Rule::Torn, |history| {
        end(history).rows.values_mut().find(|count| **count == 2).map(|count| *count = 1)
    }),
    ("a write is read in parts", Rule::Torn, |history| {
        let read = last_read(history, |_, read| read.saw.rows.values().any(|count| *count == 2))?;
        read.saw.rows.values_mut().find(|count| **count == 2).map(|count| *count = 1)
    }),
    ("what was not kept is there", Rule::NeverKept, |history| {
        let is_nothing = |step: &&Step| write_of(step).is_some_and(|write| write.verdict == Verdict::Nothing);
        let step = history.steps.iter().find(is_nothing)?;
        let (key, rows) = ((step.session, write_of(step)?.number), write_of(step)?.rows);
        end(history).rows.insert(key, rows);
        Some(())
    }),
    ("what nobody wrote is read", Rule::NeverKept, |history| {
        last_read(history, |_, _| true)?.saw.rows.insert(9999, 1);
        Some(())
    }),
    ("what is written later is read", Rule::NeverKept, |history| {
        let last = history.steps.iter().rev().find(|step| is_done(step))?;
        let (session, write) = (last.session, write_of(last)?.clone());
        let first = history.steps.iter_mut().filter_map(read_of).find(|read| read.of == session)?;
        first.saw.rows.insert(write.number, write.rows);
        Some(())
    }),
    ("something is still held", Rule::LeftBehind, |history| {
        end(history).left_behind.push("a connection".into());
        Some(())
    }),
    ("something did not come back", Rule::Unhealed, |history| {
        end(history).unhealed.push("a host".into());
        Some(())
    }),
    ("no answer ever", Rule::Unanswered, |history| {
        history.late.push(answer(None, 0));
        Some(())
    }),
    ("an answer too late", Rule::Unanswered, |history| {
        history.late.push(answer(Some(100 + GRACE + 1), 0));
        Some(())
    }),
];

fn answer(answered: Option<u64>, starved: u64) -> Answer {
    Answer { session: 0, broker: 0, kind: "read", invoked: 0, answered, deadline: 100, starved }
}

#[test]
fn a_history_that_keeps_every_promise_has_no_violation() {
    for seed in 0..60 {
        let history = good(seed, 100);
        assert_eq!(judge(&history), [], "seed {seed}");
    }
}

#[test]
fn each_kind_of_violation_is_found() {
    for (name, rule, mutation) in MUTATIONS {
        let mut made = 0;
        for seed in 0..20 {
            let mut history = good(seed, 100);
            if mutation(&mut history).is_some() {
                made += 1;
                assert!(rules(&history).contains(rule), "{name}: seed {seed} finds {:?}", judge(&history));
            }
        }
        assert!(made > 4, "{name}: only {made} histories had a place for it");
    }
    let found: BTreeSet<Rule> = MUTATIONS.iter().map(|(_, rule, _)| *rule).collect();
    assert_eq!(found.len(), 11, "a rule has no mutation: {found:?}");
}

#[test]
fn an_answer_is_not_late_while_the_recorder_itself_was() {
    let mut history = good(1, 10);
    history.late = vec![answer(Some(100 + GRACE), 0), answer(Some(100 + GRACE + 30), 10)];
    assert_eq!(judge(&history), []);
    history.late = vec![answer(Some(100 + GRACE + 31), 10)];
    assert_eq!(rules(&history), BTreeSet::from([Rule::Unanswered]));
}

#[test]
fn a_repeated_write_is_one_write() {
    let write = |verdict| {
        let how = String::new();
        let (adds_to, came_to, raises_register, has_key) = (None, None, false, true);
        Write { number: 1, rows: 1, raises_register, adds_to, came_to, verdict, has_key, how }
    };
    let run = |verdicts: &[Verdict], count: u32| {
        let step = |(at, verdict): (usize, &Verdict)| {
            let (invoked, answered) = (at as u64 * 10, at as u64 * 10 + 5);
            Step { session: 0, broker: 0, invoked, answered, what: What::Write(write(*verdict)) }
        };
        let rows = (count > 0).then_some(((0, 1), count)).into_iter().collect();
        let end = Some(End { rows, ..End::default() });
        rules(&History { steps: verdicts.iter().enumerate().map(step).collect(), late: vec![], end })
    };
    use Verdict::{Done, Maybe, Nothing};
    let none = BTreeSet::new();
    // What nobody knows may be there, even if a later attempt says that it did nothing; what one acknowledged must be.
    assert_eq!(run(&[Maybe, Nothing], 0), none);
    assert_eq!(run(&[Maybe, Nothing], 1), none);
    assert_eq!(run(&[Maybe, Done], 1), none);
    assert_eq!(run(&[Maybe, Done], 0), BTreeSet::from([Rule::AcknowledgedLost]));
    assert_eq!(run(&[Maybe, Done], 2), BTreeSet::from([Rule::AppliedTwice]));
    assert_eq!(run(&[Nothing, Nothing], 0), none);
    assert_eq!(run(&[Nothing, Nothing], 1), BTreeSet::from([Rule::NeverKept]));
}

#[test]
fn a_plan_is_its_seed_s_and_leaves_out_nothing() {
    let steps = |seed| plan(seed, |_| true).take(2 * FAULTS.len()).collect::<Vec<_>>();
    assert_eq!(steps(7), steps(7));
    assert_ne!(steps(7), steps(8));
    for round in steps(7).chunks(FAULTS.len()) {
        let faults: BTreeSet<Fault> = round.iter().map(|step| step.fault).collect();
        assert_eq!(faults.len(), FAULTS.len(), "a fault is missing: {round:?}");
    }
    let without = plan(7, |fault| fault != Fault::Reload).take(100);
    assert!(without.into_iter().all(|step| step.fault != Fault::Reload));
}
