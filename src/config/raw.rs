//! The configuration as written: file, environment and flags merged by key, each value with where it came from.
//! Nothing is judged here except what has no place: unknown keys and unreadable files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{KEYS, Problems, ServeFlags, keys, rollout};

/// A value and where it was written.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) value: Value,
    /// `--flag` or `TIDEGATE_…`; None: the file.
    pub(super) origin: Option<String>,
}

/// What was written, by key. Holds secrets, hence no Debug.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) scalars: BTreeMap<&'static str, Written>,
    pub(super) clusters: Vec<Table>,
    pub(super) databases: Vec<Table>,
    pub(super) rules: Vec<Table>,
    /// Variables that override a database's `use_own`.
    pub(super) overrides: BTreeMap<String, String>,
}

/// Merges what is written: the file, then the environment over it, then the flags. None if there is a file that
/// cannot be read: all that it says would seem to be missing.
pub(super) fn merge(
    flags: &ServeFlags,
    env: &BTreeMap<String, String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
    problems: &mut Problems,
) -> Option<Raw> {
    let mut raw = Raw::default();
    let named =
        flags.config.clone().or_else(|| env.get("TIDEGATE_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from));
    if let Some(path) = named {
        match read_file(&path) {
            Ok(text) => add_file(&mut raw, &text, problems)?,
            Err(error) => {
                problems.add("config", format!("cannot read {}: {error}", path.display()));
                return None;
            }
        }
    }
    add_environment(&mut raw, env, problems);
    for (flag, key, value) in flags.given() {
        raw.scalars.insert(key, Written { value, origin: Some(flag.to_owned()) });
    }
    Some(raw)
}

fn add_file(raw: &mut Raw, text: &str, problems: &mut Problems) -> Option<()> {
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            // The error's Display quotes the line, which may hold a password: only its message and line number.
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            problems.add("config", format!("line {line} is not TOML: {}", error.message()));
            return None;
        }
    };
    let sections: BTreeSet<&str> = KEYS.iter().filter_map(|key| Some(key.name.split_once('.')?.0)).collect();
    for (name, value) in table {
        match (name.as_str(), value) {
            ("cluster", value) => raw.clusters = tables("cluster", value, problems),
            ("database", value) => raw.databases = tables("database", value, problems),
            ("rule", value) => raw.rules = tables("rule", value, problems),
            (section, Value::Table(keys)) if sections.contains(section) => {
                for (key, value) in keys {
                    add_scalar(raw, &format!("{section}.{key}"), value, problems);
                }
            }
            (section, _) if sections.contains(section) => {
                problems.add(section, format!("is a section; write [{section}] and its keys below"));
            }
            (_, value) => add_scalar(raw, &name, value, problems),
        }
    }
    Some(())
}

fn add_scalar(raw: &mut Raw, name: &str, value: Value, problems: &mut Problems) {
    match KEYS.iter().find(|key| key.name == name) {
        Some(key) => {
            raw.scalars.insert(key.name, Written { value, origin: None });
        }
        None => problems.add(name, unknown(name)),
    }
}

/// What to say of a key that does not exist.
fn unknown(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let same_name = KEYS.iter().find(|key| key.name != name && key.name.rsplit('.').next() == Some(last));
    match same_name {
        Some(key) => format!("no such key; did you mean `{}`?", key.name),
        None => "no such key; remove it or correct its name".to_owned(),
    }
}

fn tables(name: &str, value: Value, problems: &mut Problems) -> Vec<Table> {
    let Value::Array(items) = value else {
        problems.add(name, format!("is a list; write [[{name}]], in double brackets"));
        return Vec::new();
    };
    let count = items.len();
    let tables: Vec<Table> = items.into_iter().filter_map(|item| item.try_into().ok()).collect();
    if tables.len() < count {
        problems.add(name, format!("is a list of tables; write [[{name}]], in double brackets"));
    }
    tables
}

/// An empty variable counts as not set: that is what `NAME=` in a service file or a compose file means.
fn add_environment(raw: &mut Raw, env: &BTreeMap<String, String>, problems: &mut Problems) {
    for (variable, text) in env {
        if !variable.starts_with("TIDEGATE_") || keys::is_foreign_variable(variable) || text.is_empty() {
            continue;
        }
        if rollout::is_override(variable) {
            raw.overrides.insert(variable.clone(), text.clone());
            continue;
        }
        match keys::of_variable(variable) {
            Some(key) => {
                let written = Written { value: Value::String(text.clone()), origin: Some(variable.clone()) };
                raw.scalars.insert(key, written);
            }
            None => problems.add(variable, "no such variable; unset it or correct its name (TIDEGATE_SECTION_KEY)"),
        }
    }
}
