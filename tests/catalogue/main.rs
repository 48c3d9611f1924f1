//! Walks the running server's catalogue of types: several values of each go through the broker, as results and as
//! parameters, and are compared with what the server itself says of them. A target of its own, without a harness, so that
//! it can say how much it compared: cargo hides what passing tests print.

#![allow(unreachable_pub, dead_code, reason = "a test binary exports nothing, and shares its harness with another")]
#![allow(clippy::print_stdout, reason = "what it prints is its result")]

#[path = "../it/asking.rs"]
mod asking;
#[path = "../it/documented.rs"]
mod documented;
#[path = "../it/harness.rs"]
mod harness;

mod ask;
mod compare;
mod specials;
mod types;
mod values;

use std::process::ExitCode;

use tidegate::dev::USER;

use self::{
    ask::Broker,
    asking::primary_alone,
    compare::{Tally, check},
    harness::Bed,
    types::Catalogue,
};

const NAME: &str = "catalogue";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    if !filters.is_empty() && !filters.iter().any(|filter| NAME.contains(filter.as_str())) {
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out");
        return ExitCode::SUCCESS;
    }
    let passed = walk().await;
    let (word, passes) = if passed { ("ok", 1) } else { ("FAILED", 0) };
    println!("test result: {word}. {passes} passed; {} failed; 0 ignored; 0 measured; 0 filtered out", 1 - passes);
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Compares everything; true if nothing differs.
async fn walk() -> bool {
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let skipped = prepare(&bed).await;
    let mut broker = Broker::of(&bed).await;
    let catalogue = Catalogue::load(&mut broker).await;
    let mut tally = Tally::default();
    for type_ in &catalogue.types {
        // Pseudo-types have no values of their own; the few that results can have are looked at one by one.
        if type_.class != "p" && catalogue.made_of(type_, &skipped).is_none() {
            check(&mut broker, &catalogue, type_, &mut tally).await;
        }
    }
    specials::check(&mut broker, &mut tally).await;
    for difference in &tally.differences {
        println!("{difference}");
    }
    let Tally { types, values, exceptions, differences } = &tally;
    println!(
        "catalogue: {types} types, {values} values compared, {} differences; {exceptions} exceptions refused",
        differences.len()
    );
    if !skipped.is_empty() {
        println!("catalogue: this installation lacks {}", skipped.join(", "));
    }
    differences.is_empty()
}

/// Makes the test's own types; names what this installation cannot have.
async fn prepare(bed: &Bed) -> Vec<&'static str> {
    let primary = bed.cluster.primary();
    let sql = |text: String| async move { primary.sql(&text).await.expect("the server does as it is told") };
    // Superuser: the rows of PostgreSQL's own tables are compared, too.
    sql(format!("ALTER ROLE {USER} SUPERUSER")).await;
    sql(include_str!("schema.sql").to_owned()).await;
    let mut skipped = vec![];
    let installed = "SELECT count(*) FROM pg_available_extensions WHERE name IN ('citext', 'cube', 'hstore', 'ltree')";
    if sql(installed.to_owned()).await == "4" {
        sql(include_str!("extensions.sql").to_owned()).await;
    } else {
        // Some installations from elsewhere are without; the one that the machine is set up with is not.
        let is_chosen = std::env::var_os("TIDEGATE_PG_BIN").is_some();
        assert!(is_chosen, "the extensions citext, cube, hstore and ltree are missing: install postgresql-contrib");
        skipped.extend(["citext", "cube", "hstore", "ltree"]);
    }
    if primary.sql("SELECT '<a/>'::xml").await.is_err() {
        skipped.push("xml");
    }
    skipped
}
