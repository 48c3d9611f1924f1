//! What docs/errors.md says of failures, held against those that the tests see.

use tidegate_client::{Failure, Outcome};
use tonic::Code;

const DOCUMENT: &str = include_str!("../../docs/errors.md");

/// Fails unless the row of the failure's reason allows its outcome, and the rows its code.
pub fn check(failure: &Failure) {
    let row = row("Reasons", &failure.reason)
        .unwrap_or_else(|| panic!("docs/errors.md, table \"Reasons\": add a row for {}", failure.reason));
    let outcome = failure.outcome.as_str_name().trim_start_matches("OUTCOME_");
    let allowed = row[2].split(", ").any(|allowed| allowed == outcome);
    assert!(allowed, "docs/errors.md: add the outcome {outcome} to the row of {}: {failure:?}", failure.reason);
    let sqlstate = failure.postgres.as_ref().map_or("", |postgres| &postgres.sqlstate);
    let expected = match failure.reason.as_str() {
        "POSTGRES_ERROR" => code_of(sqlstate),
        _ => row[1].clone(),
    };
    let retried = ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"].contains(&expected.as_str());
    let may_be_kept = matches!(failure.outcome, Outcome::Unknown | Outcome::Committed);
    let expected = if retried && may_be_kept { "UNKNOWN" } else { &expected };
    assert_eq!(name(failure.code), expected, "the code of docs/errors.md: {failure:?}");
}

fn code_of(sqlstate: &str) -> String {
    let heading = "SQLSTATE to gRPC code";
    row(heading, sqlstate).or_else(|| row(heading, &sqlstate[..2])).map_or("UNKNOWN".into(), |row| row[2].clone())
}

fn row(heading: &str, first: &str) -> Option<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n"))?;
    let section = section.split("\n## ").next()?;
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let mut rows = section.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.find(|row: &Vec<String>| row[0] == first)
}

/// `InvalidArgument` → `INVALID_ARGUMENT`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}
