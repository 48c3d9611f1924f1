//! The checker on small bad inputs: a check that cannot fail is worth nothing.

use super::*;

#[track_caller]
fn finds(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found} does not say {expected}");
    }
}

#[test]
fn files_say_what_they_own_and_stay_small() {
    finds(&check_text("src/model/a.rs", "use std::fmt;\n"), &["src/model/a.rs:1: open the file with `//!`"]);
    finds(&check_text("src/model/a.rs", "//! Owns a.\nfn a() {}\n"), &[]);
    let long = format!("//! Long.\n{}", "// line\n".repeat(FILE_LINES_MAX));
    finds(&check_text("a.rs", &long), &["has 401 lines"]);
    let function = |lines: usize| format!("//! A.\n\nfn long() {{\n{}}}\n", "    a();\n".repeat(lines));
    finds(&check_text("a.rs", &function(70)), &[]);
    finds(&check_text("a.rs", &function(71)), &["a.rs:3: `long` has 71 lines"]);
}

#[test]
fn functions_are_found_with_their_bodies() {
    let source = r##"
        trait T { fn signature(&self, a: [u8; 2]) -> u8; }
        // fn comment() { }
        const S: &str = "fn text() { {";
        fn one() {
            let _ = ('{', '\'', b'"', r#"} " {"#, /* } */ "}");

            // not code
        }
        fn two<'a>(x: &'a str) -> &'a str where u8: Copy { x }
        let pointer: fn (u8) = f;
    "##;
    let found = scan::functions(&scan::code_only(source));
    let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.body_lines)).collect();
    assert_eq!(found, [("one", 5, 1), ("two", 10, 1)]);
}

#[test]
fn dependencies_point_one_way() {
    let check = |file, source: &str| check_dependencies(file, source);
    finds(&check("src/broker/read.rs", "use crate::{model::Lsn, topology::Snapshot};"), &[]);
    finds(
        &check("src/topology/monitor.rs", "\nuse crate::broker::Read;"),
        &["src/topology/monitor.rs:2: `topology` must not"],
    );
    finds(
        &check("src/broker/read.rs", "use crate::{\n  model::Lsn,\n  proto::Value, config::{A, B}};"),
        &["proto", "config"],
    );
    finds(&check("src/model/lsn.rs", "fn a() { crate::sql::parse() }"), &["`crate::sql`"]);
    finds(&check("src/broker/read.rs", "// crate::grpc\nconst A: &str = \"crate::grpc\";"), &[]);
    finds(&check("src/broker/read.rs", "#[cfg(test)]\nmod tests { use crate::dev::Cluster; }"), &[]);
    finds(&check("src/broker/read.rs", "#[cfg(test)]\nmod tests;\nuse crate::dev::Cluster;"), &["read.rs:3"]);
    finds(&check("src/strange/mod.rs", ""), &["no place in MAY_NAME"]);
    finds(&check("src/lib.rs", "pub use crate::app::run;"), &[]);
}

#[test]
fn crates_stay_at_home() {
    finds(
        &check_dependencies("src/broker/a.rs", "use tokio_postgres::Row;\nuse bb8::Pool;"),
        &["a.rs:1: only `postgres`", "a.rs:2"],
    );
    finds(&check_dependencies("src/postgres/a.rs", "use tokio_postgres::Row;"), &[]);
    finds(&check_dependencies("src/broker/a.rs", "const A: &str = \"tokio_postgres\"; struct Mybb8;"), &[]);
    finds(
        &check_dependencies("src/model/a.rs", "use std::fmt;\nuse serde::Serialize;"),
        &["a.rs:2: `model` imports only std"],
    );
    finds(&check_dependencies("src/model/mod.rs", "mod lsn;\npub use lsn::Lsn;"), &[]);
}

#[test]
fn the_pure_modules_are_pure() {
    finds(&check_dependencies("src/sql/a.rs", "async fn a() {}"), &["`sql` is pure"]);
    finds(&check_dependencies("src/codec/a.rs", "fn a() { tracing::info!(\"\") }"), &["`codec` is pure"]);
    finds(
        &check_dependencies(
            "src/model/a.rs",
            "fn a(now: Instant) {}\nfn b() { std::time::Instant::now(); }\nuse std::{fmt, fs};",
        ),
        &["a.rs:2", "no std::fs"],
    );
    finds(&check_dependencies("src/model/a.rs", "use std::time::Duration;\n/// An Instant.\nfn a() {}"), &[]);
}

#[test]
fn nothing_is_global() {
    finds(&check_globals("a.rs", "pub static POOLS: Mutex<u8> = Mutex::new(0);"), &["no global state"]);
    finds(&check_globals("a.rs", "thread_local! { }"), &["no global state"]);
    finds(&check_globals("a.rs", "fn a(x: &'static str) where T: 'static {} // static"), &[]);
}

#[test]
fn no_machines_paths_and_no_dead_links() {
    let place = concat!("/wo", "rk/main");
    finds(&check_places("a.md", &format!("one\nsee `{place}`")), &["a.md:2"]);
    finds(&check_places("a.md", &format!("https://example.org{place}")), &[]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    finds(&check_links(root, "tests/a.md", "[a](tidy.rs) [b](tidy.rs#c) [c](https://x.org) [d](#e)"), &[]);
    finds(&check_links(root, "tests/a.md", "[a](missing.md) and [b](../nowhere)"), &["missing.md", "../nowhere"]);
}
