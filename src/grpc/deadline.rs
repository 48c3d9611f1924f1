//! The caller's deadline, from the `grpc-timeout` header (gRPC over HTTP/2, "Timeout").

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::{
    broker::{Failure, Reason},
    model::Deadline,
};

/// What is kept back of a caller's timeout, so that the answer to a late call, with what became of its work, is there
/// before the caller's own timer cuts it off: a tenth, 75 ms at most (a write awaits its real outcome for 50 ms).
fn margin(timeout: Duration) -> Duration {
    (timeout / 10).min(Duration::from_millis(75))
}

/// When a call must be over. Without a deadline of the caller's, `default_timeout` holds.
pub(super) fn of_call(headers: &HeaderMap, default_timeout: Duration, now: Instant) -> Result<Deadline, Failure> {
    Ok(given(headers, now)?.unwrap_or_else(|| Deadline::after(now, default_timeout)))
}

/// When a call must be over by its caller's own word. None: it was not said.
pub(super) fn given(headers: &HeaderMap, now: Instant) -> Result<Option<Deadline>, Failure> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse).ok_or_else(|| {
        Failure::field(
            Reason::FieldInvalid,
            "grpc-timeout",
            "grpc-timeout must be at most 8 digits and one of H, M, S, m, u, n",
        )
    })?;
    Ok(Some(Deadline::after(now, timeout - margin(timeout))))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_read_and_nonsense_is_refused() {
        let cases = [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("250m", Some(250)),
            ("99999999m", Some(99_999_999)),
            ("5000u", Some(5)),
            ("7000000n", Some(7)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1 S", None),
            ("1s", None),
            ("1é", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn the_default_holds_where_the_caller_sets_none() {
        let now = crate::clock::now();
        let mut headers = HeaderMap::new();
        let second = Duration::from_secs(1);
        assert_eq!(of_call(&headers, second, now).expect("no header").remaining(now), second);
        headers.insert("grpc-timeout", "100m".parse().expect("a header value"));
        assert_eq!(of_call(&headers, second, now).expect("a header").remaining(now), Duration::from_millis(90));
    }

    proptest! {
        /// Not later than the caller's own timer, and not more than a tenth before it.
        #[test]
        fn every_timeout_is_kept(value in 0..=99_999_999_u64, unit in 0..6_usize) {
            let (name, nanoseconds) =
                [("H", 3_600_000_000_000), ("M", 60_000_000_000), ("S", 1_000_000_000), ("m", 1_000_000), ("u", 1_000), ("n", 1)]
                    [unit];
            // Beyond ten years there is no deadline.
            let whole = Duration::from_nanos_u128(u128::from(value) * nanoseconds).min(Duration::from_secs(315_360_000));
            let now = crate::clock::now();
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", format!("{value}{name}").parse().expect("a header value"));
            let left = of_call(&headers, Duration::ZERO, now).expect("a timeout").remaining(now);
            prop_assert!(left <= whole && left >= whole - whole / 10, "{:?} of {:?}", left, whole);
        }
    }
}
