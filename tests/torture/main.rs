//! Many sessions read and write through two brokers while a nemesis does to servers and brokers what a seed decides; then a
//! checker judges all that was recorded. A target of its own, without a harness, so that it can show its progress and say at
//! the end what it saw, as one line of JSON. The checker's own tests are in `tests/torture_checker.rs`.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

mod brokers;
mod checker;
mod dice;
mod ending;
mod history;
mod nemesis;
mod plan;
mod recorder;
mod report;
mod run;
mod session;
mod store;
mod writing;

use std::process::ExitCode;

use self::run::Options;

/// What `make test` runs.
const SECONDS: u64 = 30;
const SEED: u64 = 1;
const TESTS: [&str; 2] = ["torture::a_broker_that_ignores_positions_is_caught", "torture::every_promise_is_kept"];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &&str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let wanted: Vec<&str> = TESTS.into_iter().filter(is_wanted).collect();
    let options = Options { seconds: number("TORTURE_SECONDS", SECONDS), seed: number("TORTURE_SEED", SEED) };
    let (mut passed, mut line) = (0, None);
    for name in &wanted {
        println!("test {name} ...");
        let is_ok = if *name == TESTS[0] {
            run::blind(options.seed).await
        } else {
            let (is_ok, summary) = run::torture(options).await;
            line = Some(summary);
            is_ok
        };
        passed += usize::from(is_ok);
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
    }
    let failed = wanted.len() - passed;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let filtered = TESTS.len() - wanted.len();
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out");
    if let Some(line) = line {
        println!("{line}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A number out of the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        _ => otherwise,
    }
}
