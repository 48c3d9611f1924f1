//! What must hold when all is over: every acknowledged write is there once and whole, nothing else is, and nothing is held.

use std::collections::BTreeMap;

use super::{
    checker::{Facts, Rule, Violation, judge_order},
    history::{End, SHARED, State, Verdict},
};

/// Judges the end.
pub(super) fn judge(end: &End, facts: &Facts, found: &mut Vec<Violation>) {
    let mut added = [0_i64; SHARED];
    for (&session, writes) in facts {
        for fact in writes.values() {
            let count = end.rows.get(&(session, fact.write.number)).copied().unwrap_or(0);
            if let (Some(register), true) = (fact.write.adds_to, count > 0) {
                added[register] += 1;
            }
            let (is, makes) = (format!("{count} rows of write {}", fact.write.number), fact.write.rows);
            let (rule, says) = match (count, fact.verdict) {
                (0, Verdict::Done) => (Rule::AcknowledgedLost, "it was acknowledged".to_owned()),
                (0, _) => continue,
                (_, Verdict::Nothing) => (Rule::NeverKept, "nothing was to be kept of it".to_owned()),
                (count, _) if count > makes => (Rule::AppliedTwice, format!("it makes {makes}")),
                (count, _) if count < makes => (Rule::Torn, format!("it makes {makes}")),
                _ => continue,
            };
            let says = format!("at the end there are {is} of session {session}: {says}");
            found.push(Violation { rule, says, steps: vec![fact.step] });
        }
        let rows = end.rows.range((session, 0)..=(session, u32::MAX)).map(|(&(_, number), &count)| (number, count));
        let rows: BTreeMap<u32, u32> = rows.collect();
        for number in rows.keys().filter(|number| !writes.contains_key(number)) {
            let says = format!("at the end there is write {number} of session {session}, which nobody made");
            found.push(Violation { rule: Rule::NeverKept, says, steps: vec![] });
        }
        let register = end.registers.get(&session).copied().unwrap_or(0);
        let mut raised =
            writes.values().filter(|fact| fact.write.raises_register && rows.contains_key(&fact.write.number));
        if let Some(last) = raised.next_back().filter(|last| register != i64::from(last.write.number)) {
            let says = format!(
                "at the end session {session}'s register is {register}, and the last write that is there raised it to {}",
                last.write.number
            );
            found.push(Violation { rule: Rule::AcknowledgedLost, says, steps: vec![last.step] });
        }
        let state = State { rows, register, shared: end.shared };
        judge_order(&state, writes, None, session, found);
    }
    // An addition and its row are one transaction: as many additions as rows.
    for (register, (&is, should)) in end.shared.iter().zip(added).enumerate() {
        let rule = match is.cmp(&should) {
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Less => Rule::AcknowledgedLost,
            std::cmp::Ordering::Greater => Rule::AppliedTwice,
        };
        let says =
            format!("at the end shared register {register} is {is}; the writes that are there add up to {should}");
        found.push(Violation { rule, says, steps: vec![] });
    }
    for (rule, lines) in [(Rule::LeftBehind, &end.left_behind), (Rule::Unhealed, &end.unhealed)] {
        found.extend(lines.iter().map(|says| Violation { rule, says: says.clone(), steps: vec![] }));
    }
}
