//! Typed, range-checked reading of scalar keys. What is wrong is noted and the default used, so that reading
//! goes on to the next problem.

use std::{
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::Path,
    time::Duration,
};

use toml::Value;

use super::{
    Problems, Secret,
    raw::{Raw, Written},
    units,
};

/// Takes keys out of [`Raw`] and notes problems.
pub(super) struct Reader<'a> {
    pub(super) raw: Raw,
    pub(super) problems: &'a mut Problems,
    pub(super) read_file: &'a dyn Fn(&Path) -> std::io::Result<String>,
}

impl Reader<'_> {
    /// Notes a problem with a key, naming the flag or variable that set it.
    fn wrong(&mut self, key: &str, origin: Option<&str>, message: &str) {
        let message = match origin {
            Some(origin) => format!("{message} (set by {origin})"),
            None => message.to_owned(),
        };
        self.problems.add(key, message);
    }

    /// Reads a key with `parse`; the default if it is absent or wrong.
    fn value<T>(&mut self, key: &'static str, default: T, parse: impl FnOnce(&Value) -> Result<T, String>) -> T {
        let Some(Written { value, origin }) = self.raw.scalars.remove(key) else { return default };
        match parse(&value) {
            Ok(parsed) => parsed,
            Err(message) => {
                self.wrong(key, origin.as_deref(), &message);
                default
            }
        }
    }

    /// A duration within `range`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.value(key, default, |value| {
            let Value::String(text) = value else {
                return Err("is a duration; write it as text with a unit, such as \"30s\"".to_owned());
            };
            let duration = units::parse_duration(text)?;
            if range.contains(&duration) {
                return Ok(duration);
            }
            let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
            Err(format!("{text} is out of range; write {least} to {most}"))
        })
    }

    /// A size in bytes within `range`.
    pub(super) fn bytes(&mut self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        self.value(key, default, |value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                _ => return Err("is a size; write bytes as a whole number, or such as \"4MiB\"".to_owned()),
            };
            let bytes = usize::try_from(units::parse_bytes(&text)?).ok().filter(|bytes| range.contains(bytes));
            let (least, most) = (units::show_bytes(*range.start() as u64), units::show_bytes(*range.end() as u64));
            bytes.ok_or_else(|| format!("{text} is out of range; write {least} to {most}"))
        })
    }

    /// A whole number within `range`.
    pub(super) fn count<T: TryFrom<i64> + PartialOrd + std::fmt::Display>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        self.value(key, default, |value| {
            let number = match value {
                Value::Integer(number) => Some(*number),
                Value::String(text) => text.trim().parse::<i64>().ok(),
                _ => None,
            };
            let number = number.ok_or_else(|| format!("{value} is not a whole number"))?;
            let fitting = T::try_from(number).ok().filter(|number| range.contains(number));
            fitting.ok_or_else(|| format!("{number} is out of range; write {} to {}", range.start(), range.end()))
        })
    }

    /// A number within `range` and not at its ends.
    pub(super) fn share(&mut self, key: &'static str, default: f64, range: Range<f64>) -> f64 {
        self.value(key, default, |value| {
            let number = match value {
                Value::Float(number) => Some(*number),
                Value::Integer(0) => Some(0.0),
                Value::Integer(1) => Some(1.0),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let inside = number.filter(|number| *number > range.start && *number < range.end);
            inside.ok_or_else(|| format!("{value} is not a number above {} and below {}", range.start, range.end))
        })
    }

    /// An address with its port.
    pub(super) fn address(&mut self, key: &'static str, default: SocketAddr) -> SocketAddr {
        self.value(key, default, |value| {
            value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
                format!("{value} is not an address and port; write such as \"127.0.0.1:7432\" or \"[::1]:7432\"")
            })
        })
    }

    /// Text that `accept` turns into a value.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        default: T,
        accept: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        self.value(key, default, |value| {
            accept(value.as_str().ok_or_else(|| "is text; write it in quotes".to_owned())?)
        })
    }

    /// Whether a key was written; for keys that are read elsewhere.
    pub(super) fn has(&self, key: &str) -> bool {
        self.raw.scalars.contains_key(key)
    }

    /// A list of texts: an array in the file, separated by commas or spaces elsewhere.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        self.value(key, Vec::new(), |value| match value {
            Value::String(text) => {
                let parts = text.split(|c: char| c == ',' || c.is_whitespace());
                Ok(parts.filter(|part| !part.is_empty()).map(str::to_owned).collect())
            }
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| "is a list of texts".to_owned()))
                .collect(),
            _ => Err("is a list of texts; write [\"…\", \"…\"]".to_owned()),
        })
    }

    /// A secret: itself under `key`, or in the file that `file_key` names; both is a problem.
    pub(super) fn secret(&mut self, key: &'static str, file_key: &'static str) -> Option<Secret> {
        let direct = self.text(key, None, |text| Ok(Some(Secret::new(text))));
        let path = self.text(file_key, None, |text| Ok(Some(text.to_owned())));
        match (direct, path) {
            (Some(_), Some(_)) => {
                self.problems.add(key, format!("both {key} and {file_key} are given; keep one"));
                None
            }
            (direct, None) => direct,
            (None, Some(path)) => self.secret_file(file_key, &path),
        }
    }

    /// The secret in a file, without the line's end.
    pub(super) fn secret_file(&mut self, key: &str, path: &str) -> Option<Secret> {
        match (self.read_file)(Path::new(path)) {
            Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
                self.problems.add(key, format!("{path} is empty"));
                None
            }
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
            Err(error) => {
                self.problems.add(key, format!("cannot read {path}: {error}"));
                None
            }
        }
    }
}
