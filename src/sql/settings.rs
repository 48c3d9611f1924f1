//! Settings for the length of one transaction: which may be set, and the SQL that sets them. What a value means is
//! PostgreSQL's to judge.

use std::{collections::BTreeMap, fmt::Write as _};

use thiserror::Error;

/// The most settings that one caller may have.
const COUNT_MAX: usize = 32;
/// The longest name, in bytes.
const NAME_MAX: usize = 128;
/// The longest value, in bytes.
const VALUE_MAX: usize = 8 << 10;

/// PostgreSQL's own settings that a caller may choose. Not among them: `role`, `session_authorization` and whatever makes
/// a transaction writable; what the text forms of values rest on (`DateStyle`, `TimeZone`, `extra_float_digits`, …);
/// `search_path`, since a statement is prepared once for all callers of a connection, before their settings are made; and
/// the planner's switches and costs, since a plan made under them could be kept for the next caller.
const ALLOWED: &[&str] = &[
    "application_name",
    "client_min_messages",
    "default_text_search_config",
    "hash_mem_multiplier",
    "lock_timeout",
    "maintenance_work_mem",
    "plan_cache_mode",
    "statement_timeout",
    "synchronous_commit",
    "work_mem",
];

/// Settings that were found acceptable, as the SQL that makes them: `SELECT pg_catalog.set_config(…, true), …`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalSettings {
    sql: String,
}

/// Why a setting is not accepted; all but the first name it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// There are more than the limit.
    #[error("context.settings has {count} settings; {COUNT_MAX} at most are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A name that may not be set, or that none can have.
    #[error(
        "{shown:?} may not be set; allowed are names of your own with a point in them, such as \"app.tenant\" (each part of \
         letters, digits, _ and $, not beginning with a digit; {NAME_MAX} bytes in all), and: {}",
        ALLOWED.join(", ")
    )]
    Name {
        /// As much of it as is fit to show.
        shown: String,
    },
    /// A value that cannot be sent.
    #[error("the value of {name:?} {why}")]
    Value {
        /// The setting.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

impl SettingError {
    /// The field of the request that is at fault.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::TooMany { .. } => "context.settings".into(),
            Self::Name { shown: name } | Self::Value { name, .. } => format!("context.settings[{name:?}]"),
        }
    }
}

impl LocalSettings {
    /// Judges settings by their names and sizes.
    ///
    /// # Errors
    /// [`SettingError`], of the first one in the order of names that is not acceptable.
    pub fn new(given: impl IntoIterator<Item = (String, String)>) -> Result<LocalSettings, SettingError> {
        let given: BTreeMap<String, String> = given.into_iter().collect();
        if given.len() > COUNT_MAX {
            return Err(SettingError::TooMany { count: given.len() });
        }
        let mut sql = String::new();
        for (name, value) in given {
            if !may_be_set(&name) {
                return Err(SettingError::Name { shown: name.chars().take(NAME_MAX).collect() });
            }
            if value.len() > VALUE_MAX {
                let why = format!("has {} bytes; {VALUE_MAX} at most are allowed", value.len());
                return Err(SettingError::Value { name, why });
            }
            if value.contains('\0') {
                return Err(SettingError::Value { name, why: "holds a NUL character".into() });
            }
            sql.push_str(if sql.is_empty() { "SELECT " } else { ", " });
            // Writing to a text does not fail.
            let _ = write!(sql, "pg_catalog.set_config({}, {}, true)", literal(&name), literal(&value));
        }
        Ok(LocalSettings { sql })
    }

    /// Whether there is nothing to set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    /// The statement that makes them, for inside the transaction; empty if there are none.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

/// A name with a point cannot be one of PostgreSQL's own, and these are compared without regard to case.
fn may_be_set(name: &str) -> bool {
    if name.len() > NAME_MAX {
        return false;
    }
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    if name.contains('.') {
        name.split('.').all(is_part)
    } else {
        ALLOWED.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// A literal that means the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: &[(&str, &str)]) -> Result<LocalSettings, SettingError> {
        LocalSettings::new(given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn settings_become_one_statement_in_the_order_of_their_names() {
        assert!(settings(&[]).expect("none").is_empty());
        let made = settings(&[("work_mem", "64MB"), ("app.tenant", r"O'Neill\'); --")]).expect("both are allowed");
        let expected = r"SELECT pg_catalog.set_config(E'app.tenant', E'O''Neill\\''); --', true), pg_catalog.set_config(E'work_mem', E'64MB', true)";
        assert_eq!(made.sql(), expected);
    }

    #[test]
    fn only_names_with_a_point_and_listed_ones_may_be_set() {
        for name in ["app.tenant", "_a.b$c.D9", "Statement_Timeout", "lock_timeout", "app.transaction_read_only"] {
            assert!(settings(&[(name, "1")]).is_ok(), "{name}");
        }
        let long = format!("app.{}", "x".repeat(NAME_MAX));
        for name in [
            "role",
            "ROLE",
            "session_authorization",
            "transaction_read_only",
            "default_transaction_read_only",
            "transaction_isolation",
            "search_path",
            "enable_seqscan",
            "TimeZone",
            "DateStyle",
            "IntervalStyle",
            "extra_float_digits",
            "bytea_output",
            "row_security",
            "session_replication_role",
            "",
            ".",
            "app.",
            ".tenant",
            "app..tenant",
            "app.1",
            "app.ten ant",
            "app.ten'ant",
            "äpp.tenant",
            long.as_str(),
        ] {
            let error = settings(&[("app.fine", "1"), (name, "1")]).expect_err(name);
            assert!(matches!(error, SettingError::Name { .. }), "{name}: {error}");
            assert!(error.field().starts_with("context.settings["), "{}", error.field());
        }
        assert_eq!(settings(&[("role", "x")]).expect_err("never").field(), "context.settings[\"role\"]");
    }

    #[test]
    fn their_number_and_their_values_are_bounded() {
        let many: Vec<_> = (0..=COUNT_MAX).map(|n| (format!("app.n{n}"), String::new())).collect();
        assert_eq!(LocalSettings::new(many.clone()), Err(SettingError::TooMany { count: COUNT_MAX + 1 }));
        assert!(LocalSettings::new(many.into_iter().skip(1)).is_ok());
        assert!(settings(&[("app.x", &"x".repeat(VALUE_MAX))]).is_ok());
        for value in ["x".repeat(VALUE_MAX + 1), "a\0b".to_owned()] {
            let error = settings(&[("app.x", &value)]).expect_err("a bad value");
            assert_eq!(error.field(), "context.settings[\"app.x\"]", "{error}");
        }
    }
}
