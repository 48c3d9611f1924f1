//! What the tour prints, step by step, and what it keeps for the JSON document.

use serde_json::{Value, json};
use tidegate_client::Receipt;

use crate::cli::{
    receipt::{receipt_json, receipt_text},
    say,
};

/// The account of a tour.
pub(super) struct Report {
    json: bool,
    steps: Vec<Step>,
}

struct Step {
    title: String,
    calls: Vec<Value>,
}

impl Report {
    pub(super) fn new(json: bool) -> Report {
        Report { json, steps: Vec::new() }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, title: &str) {
        self.steps.push(Step { title: title.to_owned(), calls: Vec::new() });
        self.note(&format!("\n{}. {title}", self.steps.len()));
    }

    /// The number of the present step; 0 before the first.
    pub(super) fn number(&self) -> usize {
        self.steps.len()
    }

    /// A call that was answered, with its receipt.
    pub(super) fn call(&mut self, what: &str, receipt: &Receipt) {
        self.note(&format!("   {what}\n     {}", receipt_text(receipt)));
        self.keep(json!({ "call": what, "receipt": receipt_json(receipt) }));
    }

    /// What many calls added up to.
    pub(super) fn sum(&mut self, what: &str, numbers: Value) {
        self.note(&format!("   {what}"));
        self.keep(json!({ "sum": what, "numbers": numbers }));
    }

    /// A line for people only.
    pub(super) fn note(&self, line: &str) {
        if !self.json {
            say(line);
        }
    }

    /// The steps, as JSON.
    pub(super) fn steps(&self) -> Value {
        self.steps.iter().map(|step| json!({ "title": step.title, "calls": step.calls })).collect()
    }

    fn keep(&mut self, call: Value) {
        if let Some(step) = self.steps.last_mut() {
            step.calls.push(call);
        }
    }
}
