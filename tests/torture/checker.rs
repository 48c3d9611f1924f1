//! The judge: takes a history and finds what must not be in it. Pure; no clock, no broker. A violation names the steps that
//! explain it. What the end must look like is in `ending`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ending,
    history::{Answer, History, Promise, Read, SHARED, State, Step, Verdict, Versions, What, Write},
};

/// How long after its deadline a call may be answered, in microseconds.
pub const GRACE: u64 = 1_000_000;
/// An answer waits for three that share the machine: the recorder, which measures by how much it is starved, the broker, and
/// the server that it must cancel. Each of them is starved as much.
const STARVED: u64 = 3;

/// What may be violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A session did not see what it had written.
    ReadYourWrites,
    /// A causal session saw less than before.
    MonotonicReads,
    /// A later write of a session was there without an earlier one.
    MonotonicWrites,
    /// A write was there without what its session had read before it.
    WritesFollowReads,
    /// An acknowledged write is missing at the end, or was overwritten.
    AcknowledgedLost,
    /// A write is there more often than once.
    AppliedTwice,
    /// A write is there in parts.
    Torn,
    /// A write is there of which it was said that nothing was kept, or that nobody made yet.
    NeverKept,
    /// No answer by the deadline and its grace.
    Unanswered,
    /// Something was still held at the end.
    LeftBehind,
    /// Something did not come back by itself after a fault had ended.
    Unhealed,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub says: String,
    /// The steps of the history that explain it, by their index.
    pub steps: Vec<usize>,
}

/// A write with all that its attempts came to.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    pub(super) write: Write,
    pub(super) verdict: Verdict,
    pub(super) invoked: u64,
    /// When it was acknowledged.
    pub(super) done: Option<u64>,
    /// What the session had seen of the shared registers before.
    pub(super) depends_on: Versions,
    /// The read that saw the most of each.
    pub(super) seen_in: [Option<usize>; SHARED],
    pub(super) step: usize,
}

/// All writes, by session and number.
pub(super) type Facts = BTreeMap<u32, BTreeMap<u32, Fact>>;

/// Everything that is wrong with a history, in the order of its steps.
pub fn judge(history: &History) -> Vec<Violation> {
    let facts = collect(history);
    let mut found = lost_updates(&facts);
    let mut sessions: BTreeMap<u32, Seen> = BTreeMap::new();
    for (at, step) in history.steps.iter().enumerate() {
        let seen = sessions.entry(step.session).or_default();
        match &step.what {
            What::Write(write) => seen.wrote(at, write),
            What::Read(read) => Reading { facts: &facts, at, step, read }.judge(seen, &mut found),
        }
    }
    found.extend(history.late.iter().filter(|answer| is_late(answer)).map(unanswered));
    if let Some(end) = &history.end {
        ending::judge(end, &facts, &mut found);
    }
    found
}

fn is_late(answer: &Answer) -> bool {
    answer.answered.is_none_or(|at| at > answer.deadline + GRACE + STARVED * answer.starved)
}

fn unanswered(answer: &Answer) -> Violation {
    let took = answer.answered.map_or("never".to_owned(), |at| format!("after {} ms", (at - answer.invoked) / 1000));
    let due = (answer.deadline - answer.invoked) / 1000;
    let says = format!(
        "{} of session {} on broker {}, asked at {} ms, was answered {took}; due after {due} ms; the recorder was starved \
         for {} ms",
        answer.kind,
        answer.session,
        answer.broker,
        answer.invoked / 1000,
        answer.starved / 1000
    );
    Violation { rule: Rule::Unanswered, says, steps: vec![] }
}

/// Makes one fact of all attempts at a write, and notes what its session had read before the first.
fn collect(history: &History) -> Facts {
    let mut facts = Facts::new();
    let mut read: BTreeMap<u32, (Versions, [Option<usize>; SHARED])> = BTreeMap::new();
    for (at, step) in history.steps.iter().enumerate() {
        let (versions, seen_in) = read.entry(step.session).or_default();
        match &step.what {
            What::Read(read) => {
                for register in 0..SHARED {
                    if read.saw.shared[register] > versions[register] {
                        (versions[register], seen_in[register]) = (read.saw.shared[register], Some(at));
                    }
                }
            }
            What::Write(write) => {
                let of_session = facts.entry(step.session).or_default();
                let fact = of_session.entry(write.number).or_insert_with(|| Fact {
                    write: write.clone(),
                    verdict: write.verdict,
                    invoked: step.invoked,
                    done: None,
                    depends_on: *versions,
                    seen_in: *seen_in,
                    step: at,
                });
                fact.take(write, step, at);
            }
        }
    }
    facts
}

impl Fact {
    /// One attempt more: what one acknowledged is done; only if all said "nothing" there is nothing.
    fn take(&mut self, write: &Write, step: &Step, at: usize) {
        self.verdict = match (self.verdict, write.verdict) {
            (Verdict::Done, _) | (_, Verdict::Done) => Verdict::Done,
            (Verdict::Nothing, Verdict::Nothing) => Verdict::Nothing,
            _ => Verdict::Maybe,
        };
        self.write.came_to = self.write.came_to.or(write.came_to);
        if write.verdict == Verdict::Done && self.done.is_none() {
            (self.done, self.step) = (Some(step.answered), at);
        }
    }
}

/// Two acknowledged additions that came to the same version: one of them was lost.
fn lost_updates(facts: &Facts) -> Vec<Violation> {
    let mut first: BTreeMap<(usize, i64), &Fact> = BTreeMap::new();
    let mut found = vec![];
    let done = facts.values().flat_map(BTreeMap::values).filter(|fact| fact.verdict == Verdict::Done);
    for fact in done {
        let (Some(register), Some(version)) = (fact.write.adds_to, fact.write.came_to) else { continue };
        if let Some(other) = first.insert((register, version), fact) {
            let says = format!("two writes were told that they made version {version} of shared register {register}");
            found.push(Violation { rule: Rule::AcknowledgedLost, says, steps: vec![other.step, fact.step] });
        }
    }
    found
}

/// What a session knows of its own past while its history is walked through.
#[derive(Default)]
struct Seen {
    /// The numbers of its acknowledged writes, with the highest that raised its register.
    done: BTreeSet<u32>,
    register: u32,
    /// Shared versions that it was told it made, and the steps.
    made: [(i64, usize); SHARED],
    /// What causal reads saw: shared versions, and of each session the rows and the register.
    causal_shared: [(i64, usize); SHARED],
    causal_rows: BTreeMap<u32, BTreeMap<u32, usize>>,
    causal_register: BTreeMap<u32, (i64, usize)>,
}

impl Seen {
    fn wrote(&mut self, at: usize, write: &Write) {
        if write.verdict != Verdict::Done {
            return;
        }
        self.done.insert(write.number);
        if write.raises_register {
            self.register = write.number;
        }
        if let (Some(register), Some(version)) = (write.adds_to, write.came_to) {
            self.made[register] = self.made[register].max((version, at));
        }
    }
}

/// One read, to be judged.
struct Reading<'a> {
    facts: &'a Facts,
    at: usize,
    step: &'a Step,
    read: &'a Read,
}

impl Reading<'_> {
    fn judge(&self, seen: &mut Seen, found: &mut Vec<Violation>) {
        let none = BTreeMap::new();
        let of_session = self.facts.get(&self.read.of).unwrap_or(&none);
        self.sees_own_writes(of_session, seen, found);
        for (&number, &count) in &self.read.saw.rows {
            self.is_whole(of_session.get(&number), number, count, found);
        }
        judge_order(&self.read.saw, of_session, Some(self.at), self.read.of, found);
        if self.read.promise == Promise::Causal {
            self.goes_on(seen, found);
        }
    }

    fn violation(&self, rule: Rule, says: String, because: &[usize]) -> Violation {
        let steps = because.iter().copied().chain([self.at]).collect();
        Violation { rule, says: format!("session {}: {says}", self.step.session), steps }
    }

    fn sees_own_writes(&self, of_session: &BTreeMap<u32, Fact>, seen: &Seen, found: &mut Vec<Violation>) {
        let saw = &self.read.saw;
        for (register, &(version, made)) in seen.made.iter().enumerate().filter(|(_, made)| made.0 > 0) {
            if saw.shared[register] < version {
                let says = format!(
                    "it had made version {version} of shared register {register}, and read {}",
                    saw.shared[register]
                );
                found.push(self.violation(Rule::ReadYourWrites, says, &[made]));
            }
        }
        if self.read.of != self.step.session {
            return;
        }
        let missing = seen.done.iter().filter(|number| !saw.rows.contains_key(number));
        let because: Vec<usize> = missing.filter_map(|number| Some(of_session.get(number)?.step)).collect();
        if !because.is_empty() {
            let says = format!("{} of its acknowledged writes are not in what it read", because.len());
            // One explains enough: the last, which is nearest to the read.
            found.push(self.violation(Rule::ReadYourWrites, says, &because[because.len() - 1..]));
        }
        if saw.register < i64::from(seen.register) {
            let says = format!("it had raised its register to {}, and read {}", seen.register, saw.register);
            let because = of_session.get(&seen.register).map(|fact| fact.step);
            found.push(self.violation(Rule::ReadYourWrites, says, because.as_slice()));
        }
    }

    fn is_whole(&self, fact: Option<&Fact>, number: u32, count: u32, found: &mut Vec<Violation>) {
        let of = self.read.of;
        let Some(fact) = fact.filter(|fact| fact.invoked <= self.step.answered) else {
            let says = format!("it read write {number} of session {of}, which nobody had made yet");
            return found.push(self.violation(Rule::NeverKept, says, &[]));
        };
        if fact.verdict == Verdict::Nothing {
            let says = format!("it read write {number} of session {of}, of which nothing was kept");
            found.push(self.violation(Rule::NeverKept, says, &[fact.step]));
        }
        let rule = match count.cmp(&fact.write.rows) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Less => Rule::Torn,
            std::cmp::Ordering::Greater => Rule::AppliedTwice,
        };
        let says = format!("it read {count} rows of write {number} of session {of}, which makes {}", fact.write.rows);
        found.push(self.violation(rule, says, &[fact.step]));
    }

    /// Monotonic reads: nothing that an earlier causal read of this session saw may be missing.
    fn goes_on(&self, seen: &mut Seen, found: &mut Vec<Violation>) {
        let (saw, of) = (&self.read.saw, self.read.of);
        for (register, &(version, earlier)) in seen.causal_shared.iter().enumerate() {
            if saw.shared[register] < version {
                let says = format!(
                    "it had read version {version} of shared register {register}, and now {}",
                    saw.shared[register]
                );
                found.push(self.violation(Rule::MonotonicReads, says, &[earlier]));
            }
        }
        for (register, known) in seen.causal_shared.iter_mut().enumerate() {
            *known = (*known).max((saw.shared[register], self.at));
        }
        let rows = seen.causal_rows.entry(of).or_default();
        if let Some((number, &earlier)) = rows.iter().find(|(number, _)| !saw.rows.contains_key(number)) {
            let says = format!("it had read write {number} of session {of}, and now it is missing");
            found.push(self.violation(Rule::MonotonicReads, says, &[earlier]));
        }
        for number in saw.rows.keys() {
            rows.insert(*number, self.at);
        }
        let register = seen.causal_register.entry(of).or_default();
        if saw.register < register.0 {
            let says = format!("it had read {} in session {of}'s register, and now {}", register.0, saw.register);
            found.push(self.violation(Rule::MonotonicReads, says, &[register.1]));
        }
        *register = (*register).max((saw.register, self.at));
    }
}

/// Monotonic writes and writes follow reads: with the newest write that a state has, it must have all that was
/// acknowledged before that write began, and all that its session had read by then.
pub(super) fn judge_order(
    state: &State,
    of_session: &BTreeMap<u32, Fact>,
    at: Option<usize>,
    session: u32,
    found: &mut Vec<Violation>,
) {
    let newest = state.rows.keys().rev().find_map(|number| of_session.get(number));
    let Some(newest) = newest else { return };
    let steps = |because: usize| std::iter::once(because).chain([newest.step]).chain(at).collect();
    let earlier = of_session.range(..newest.write.number).map(|(_, fact)| fact);
    let mut before = earlier.filter(|fact| fact.done.is_some_and(|done| done <= newest.invoked));
    if let Some(missing) = before.find(|fact| !state.rows.contains_key(&fact.write.number)) {
        let says = format!(
            "write {} of session {session} is there, without write {}, which was acknowledged before it",
            newest.write.number, missing.write.number
        );
        found.push(Violation { rule: Rule::MonotonicWrites, says, steps: steps(missing.step) });
    }
    for register in 0..SHARED {
        let (needed, is) = (newest.depends_on[register], state.shared[register]);
        if is < needed {
            let says = format!(
                "write {} of session {session} is there, which had read version {needed} of shared register {register} \
                 before; that is at {is}",
                newest.write.number
            );
            let because = newest.seen_in[register].unwrap_or(newest.step);
            found.push(Violation { rule: Rule::WritesFollowReads, says, steps: steps(because) });
        }
    }
}
