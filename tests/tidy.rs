//! The rules of the house, checked on the source tree: what each file owns is said, files and functions stay small,
//! dependencies point one way, nothing is global, links in the texts lead somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

#[path = "tidy/scan.rs"]
mod scan;

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

/// Flat tables that may be longer: (file, function), or (file, "") for the file itself. Logic may not.
const LONG_TABLES: &[(&str, &str)] = &[];

/// What each module of the crate may name. A higher one may name any that is below it.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("proto", &[]),
    ("clock", &[]),
    ("gather", &[]),
    ("telemetry", &[]),
    ("sql", &["model"]),
    ("codec", &["model", "proto"]),
    ("config", &["telemetry"]),
    ("dev", &["model", "telemetry"]),
    ("position", &["model", "telemetry"]),
    ("admission", &["model", "clock", "telemetry"]),
    ("access", &["model", "telemetry"]),
    ("postgres", &["model", "clock", "gather", "sql", "codec", "telemetry"]),
    ("topology", &["model", "clock", "postgres", "telemetry"]),
    (
        "broker",
        &["model", "clock", "sql", "codec", "position", "admission", "access", "postgres", "topology", "telemetry"],
    ),
    (
        "grpc",
        &[
            "model",
            "clock",
            "gather",
            "sql",
            "codec",
            "proto",
            "position",
            "admission",
            "access",
            "topology",
            "broker",
            "telemetry",
        ],
    ),
    ("console", &["model", "access", "topology", "broker", "telemetry"]),
    (
        "app",
        &[
            "model",
            "clock",
            "sql",
            "codec",
            "position",
            "admission",
            "access",
            "postgres",
            "topology",
            "broker",
            "grpc",
            "console",
            "telemetry",
            "config",
        ],
    ),
    ("cli", &["model", "clock", "sql", "postgres", "topology", "app", "config", "dev", "telemetry"]),
];

/// Crates that only one module may name.
const ONLY_IN: &[(&str, &str)] =
    &[("tokio_postgres", "postgres"), ("tokio_postgres_rustls", "postgres"), ("bb8", "postgres"), ("axum", "console")];

/// Modules without I/O, async, clock, randomness or logging, and what would bring these in.
const PURE: &[&str] = &["model", "sql", "codec"];
const IMPURE: &[&str] = &["tokio", "tracing", "rand", "async", "await"];
const CLOCKS: &[&str] = &["Instant", "SystemTime"];
const IMPURE_STD: &[&str] = &["fs", "net", "thread", "process", "env"];

/// One violation: where, and what to do.
fn says(file: &str, line: usize, what: impl std::fmt::Display) -> String {
    format!("{file}:{line}: {what}")
}

fn check_text(file: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !source.starts_with("//!") {
        found.push(says(file, 1, "open the file with `//!`: what it owns, and what it leaves to others"));
    }
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX && !LONG_TABLES.contains(&(file, "")) {
        found.push(says(file, lines, format_args!("has {lines} lines; split it below {FILE_LINES_MAX}")));
    }
    for function in scan::functions(&scan::code_only(source)) {
        let (name, lines) = (&function.name, function.body_lines);
        if lines > FUNCTION_LINES_MAX && !LONG_TABLES.contains(&(file, name)) {
            let what = format!("`{name}` has {lines} lines of code; split it below {FUNCTION_LINES_MAX}");
            found.push(says(file, function.line, what));
        }
    }
    found
}

/// The module of the crate that a file belongs to; None for lib.rs and main.rs, which see everything.
fn module_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (module != "lib" && module != "main").then_some(module)
}

fn check_dependencies(file: &str, source: &str) -> Vec<String> {
    let (Some(module), false) = (module_of(file), is_test_file(file)) else { return Vec::new() };
    let code = scan::without_tests(&scan::code_only(source));
    let mut found = Vec::new();
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        return vec![says(
            file,
            1,
            format_args!("the module `{module}` has no place in MAY_NAME (tests/tidy.rs); give it one"),
        )];
    };
    for (line, named) in scan::named_behind(&code, "crate") {
        let is_module = MAY_NAME.iter().any(|(name, _)| *name == named);
        if is_module && named != module && !allowed.contains(&named.as_str()) {
            let what = format!("`{module}` must not name `crate::{named}`; pass in what it needs, or move the code");
            found.push(says(file, line, what));
        }
    }
    for (name, home) in ONLY_IN.iter().filter(|(_, home)| *home != module) {
        for line in scan::lines_with_word(&code, name) {
            found.push(says(file, line, format_args!("only `{home}` names `{name}`; use what `{home}` offers")));
        }
    }
    if PURE.contains(&module) {
        for line in impure_lines(&code) {
            found.push(says(
                file,
                line,
                format_args!("`{module}` is pure: no I/O, async, clock, randomness or logging"),
            ));
        }
        for (line, named) in scan::named_behind(&code, "std") {
            if IMPURE_STD.contains(&named.as_str()) {
                found.push(says(
                    file,
                    line,
                    format_args!("`{module}` is pure: no std::{named}; take the value as an argument"),
                ));
            }
        }
    }
    if module == "model" {
        for root in use_roots(&code) {
            let is_own = code.contains(&format!("mod {};", root.1));
            if !is_own && !["std", "core", "crate", "super", "self"].contains(&root.1.as_str()) {
                found.push(says(file, root.0, format_args!("`model` imports only std, not `{}`", root.1)));
            }
        }
    }
    found
}

/// Lines that do I/O, wait, log, or read a clock (`now` of a clock's type; the type itself is an argument).
fn impure_lines(code: &str) -> Vec<usize> {
    let now = |clock: &&str| scan::named_behind(code, clock).into_iter().filter(|(_, word)| word == "now");
    let words = IMPURE.iter().flat_map(|word| scan::lines_with_word(code, word));
    words.chain(CLOCKS.iter().flat_map(now).map(|(line, _)| line)).collect()
}

/// Whether a file holds tests only, by its name: these may use what they like.
fn is_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.ends_with("_tests.rs") || file.ends_with("/test_support.rs")
}

/// The first word of each top-level `use`.
fn use_roots(code: &str) -> Vec<(usize, String)> {
    let after_use = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
        line.strip_prefix("use ").map(|rest| rest.trim_start_matches("::").to_owned())
    };
    let lines = code.lines().enumerate().filter_map(|(at, line)| Some((at + 1, after_use(line)?)));
    lines
        .map(|(at, path)| (at, path.split([':', ';', ' ']).next().unwrap_or_default().to_owned()))
        .filter(|(_, root)| {
            // `use Variant::*` and local modules begin otherwise than a crate would.
            root.starts_with(|c: char| c.is_ascii_lowercase())
        })
        .collect()
}

fn check_globals(file: &str, source: &str) -> Vec<String> {
    if is_test_file(file) {
        return Vec::new();
    }
    let code = scan::without_tests(&scan::code_only(source));
    let lines = ["static", "thread_local"].iter().flat_map(|word| scan::lines_with_word(&code, word));
    // Rust takes the program's allocator from a `static` only.
    let is_allocator =
        |line: usize| line >= 2 && code.lines().nth(line - 2).is_some_and(|it| it.trim() == "#[global_allocator]");
    lines
        .filter(|line| !is_allocator(*line))
        .map(|line| says(file, line, "no global state; make it a field and pass it in (constants are `const`)"))
        .collect()
}

/// Paths of the machine that a line was written on have no place in the repository.
fn check_places(file: &str, text: &str) -> Vec<String> {
    let places = [concat!("/wo", "rk/"), concat!("/tmp", "/wt")];
    let starts_path =
        |line: &str, at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/".contains(c));
    let has = |line: &str| places.iter().any(|place| line.match_indices(place).any(|(at, _)| starts_path(line, at)));
    let lines = text.lines().enumerate().filter(|(_, line)| has(line));
    lines
        .map(|(at, _)| says(file, at + 1, "names a path of one machine; write it relative to the repository"))
        .collect()
}

/// Relative links of a Markdown text that lead nowhere.
fn check_links(root: &Path, file: &str, text: &str) -> Vec<String> {
    let folder = root.join(file).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !folder.join(target).exists() {
                found.push(says(file, number + 1, format_args!("the link to {target} leads nowhere; correct it")));
            }
        }
    }
    found
}

/// The files of the repository, relative to its root; build output and installed packages are left out.
fn files(root: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder of the repository").flatten() {
            let path = folder.join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a kind of file");
            if kind.is_dir() && !matches!(name.as_str(), "target" | ".git" | "node_modules" | ".venv" | "__pycache__") {
                folders.push(path);
            } else if kind.is_file() && name != ".git" {
                found.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut rust_files) = (Vec::new(), 0);
    for file in files(root) {
        // Not text: nothing to check.
        let Ok(text) = fs::read_to_string(root.join(&file)) else { continue };
        found.extend(check_places(&file, &text));
        if file.ends_with(".md") {
            found.extend(check_links(root, &file, &text));
        }
        if file.ends_with(".rs") {
            rust_files += 1;
            found.extend(check_text(&file, &text));
            found.extend(check_dependencies(&file, &text));
            let is_product = file.starts_with("src/") || file.starts_with("clients/rust/src/");
            found.extend(if is_product { check_globals(&file, &text) } else { Vec::new() });
        }
    }
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "CONTRIBUTING.md"] {
        found.extend((!root.join(file).exists()).then(|| says(file, 1, "is missing")));
    }
    assert!(rust_files > 20, "only {rust_files} Rust files found: the checker looks in the wrong place");
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[path = "tidy/self_test.rs"]
mod self_test;
