//! Durations and sizes as people write them: `250ms`, `1m30s`, `64KiB`.

use std::time::Duration;

/// Parses a duration: whole numbers with the unit `ms`, `s`, `m`, `h` or `d`, joined without spaces (`1m30s`).
///
/// # Errors
/// A sentence that says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration; write a number and a unit, such as \"250ms\", \"30s\" or \"5m\"");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    Ok(total)
}

/// Parses a size in bytes: a whole number, with the unit `B`, `KiB`, `MiB` or `GiB` or none.
///
/// # Errors
/// A sentence that says what to write.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write bytes as a whole number, or such as \"64KiB\" or \"4MiB\"");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let number: u64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit_bytes: u64 = match trimmed[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_bytes).ok_or_else(wrong)
}

/// A duration as [`parse_duration`] reads it, in the largest unit that loses nothing.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms > 0 && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// A size as [`parse_bytes`] reads it, in the largest unit that loses nothing.
pub(super) fn show_bytes(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1m30s", 90_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "1 s", "5 minutes", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for ms in [1, 1_500, 2_000, 90_000, 60_000, 7_200_000] {
            let shown = show_duration(Duration::from_millis(ms));
            assert_eq!(parse_duration(&shown), Ok(Duration::from_millis(ms)), "{shown}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("1024", 1024), ("10B", 10), ("64KiB", 65_536), ("4 MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "4MB", "-1", "4.5MiB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!((show_bytes(4 << 20), show_bytes(1500)), ("4MiB".to_owned(), "1500".to_owned()));
    }
}
