//! What a run says at its end: violations with the steps that explain them, and one line of JSON.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    checker::Violation,
    history::{History, What},
    recorder::Recorder,
    run::Options,
};

/// Violations that are explained; the rest is counted.
const EXPLAINED: usize = 20;

/// Prints each violation with the steps that explain it.
pub fn explain(violations: &[Violation], history: &History) {
    for violation in violations.iter().take(EXPLAINED) {
        println!("VIOLATION {:?}: {}", violation.rule, violation.says);
        let mut steps = violation.steps.clone();
        steps.sort_unstable();
        steps.dedup();
        for at in steps {
            let step = &history.steps[at];
            println!(
                "    #{at} session {} on broker {} from {} to {} us: {}",
                step.session,
                step.broker,
                step.invoked,
                step.answered,
                what(&step.what)
            );
        }
    }
    println!("{} violations", violations.len());
}

fn what(what: &What) -> String {
    match what {
        What::Write(write) => format!("{write:?}"),
        What::Read(read) => {
            let rows: Vec<String> = read.saw.rows.iter().map(|(number, count)| format!("{number}x{count}")).collect();
            let (register, shared) = (read.saw.register, read.saw.shared);
            format!(
                "{:?} read of session {} by {}: writes {}, register {register}, shared {shared:?}",
                read.promise,
                read.of,
                read.route,
                rows.join(" ")
            )
        }
    }
}

/// What the last line says.
pub struct Summary<'a> {
    pub options: Options,
    pub recorder: &'a Recorder,
    pub faults: u64,
    pub violations: &'a [Violation],
    pub causal: bool,
    pub reload: bool,
}

impl Summary<'_> {
    pub fn line(&self) -> String {
        let (all, calm) = self.recorder.routes();
        let mut rules: BTreeMap<String, u64> = BTreeMap::new();
        for violation in self.violations {
            *rules.entry(format!("{:?}", violation.rule)).or_default() += 1;
        }
        json!({
            "seconds": self.options.seconds,
            "seed": self.options.seed,
            "operations": self.recorder.calls(),
            "faults": self.faults,
            "replica_reads_pct": all.replica_pct(),
            "replica_reads_pct_calm": calm.replica_pct(),
            "violations": self.violations.len(),
            "violations_by_rule": rules,
            "calm_reads": calm.replica + calm.primary,
            "calm_primary_reads_by_reason": calm.why,
            "primary_reads_by_reason": all.why,
            "causal": self.causal,
            "reload": self.reload,
            "recorder_late_ms": self.recorder.lateness_ms(),
            "answers": self.recorder.counts(),
        })
        .to_string()
    }
}
