//! Text that PostgreSQL would certainly refuse for its type: found here, the error can name `$n`.
//!
//! What versions 15 to 18 differ on, or what is rare, passes: the server judges it.

use super::super::scalar::Scalar;

/// Checks a text_value for a type; `Err` says what is wrong and what would be right.
pub(super) fn text(text: &str, scalar: Option<Scalar>) -> Result<(), &'static str> {
    if text.contains('\0') {
        return Err("PostgreSQL's text cannot hold a NUL character; for bytes use bytea and bytes_value");
    }
    match scalar {
        Some(Scalar::Bool) => bool(text),
        Some(Scalar::Int2) => integer(text, i16::MIN.into(), i16::MAX.into()),
        Some(Scalar::Int4) => integer(text, i32::MIN.into(), i32::MAX.into()),
        Some(Scalar::Int8) => integer(text, i64::MIN.into(), i64::MAX.into()),
        Some(Scalar::Float4 | Scalar::Float8) => float(text),
        Some(Scalar::Uuid) => uuid(text),
        _ => Ok(()),
    }
}

/// Blanks at either end, as C's `isspace` takes them.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0B', '\x0C'])
}

fn strip_sign(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// `parse_bool_with_len` of bool.c: a prefix of true, false, yes or no; on, off or its prefix `of`; 1 or 0.
fn bool(text: &str) -> Result<(), &'static str> {
    let word = trim(text).to_ascii_lowercase();
    let prefix = !word.is_empty() && ["true", "false", "yes", "no"].iter().any(|whole| whole.starts_with(&word));
    let whole = matches!(word.as_str(), "on" | "of" | "off" | "1" | "0");
    if prefix || whole { Ok(()) } else { Err("the text is not a boolean; write true or false") }
}

/// `pg_strtoint64` of numutils.c. Hexadecimal, octal, binary and underscores (from version 16) pass.
fn integer(text: &str, least: i128, greatest: i128) -> Result<(), &'static str> {
    const NOT_AN_INTEGER: &str = "the text is not an integer";
    let number = trim(text);
    let digits = strip_sign(number);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(NOT_AN_INTEGER);
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than an i128 holds are out of range too.
        let value = number.parse::<i128>().ok();
        let fits = value.is_some_and(|value| (least..=greatest).contains(&value));
        return if fits { Ok(()) } else { Err("the integer is out of the type's range") };
    }
    let has_base = matches!(digits.as_bytes(), [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
    let body = if has_base { digits.get(2..).unwrap_or_default() } else { digits };
    let digit = |byte: u8| byte == b'_' || if has_base { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    if body.bytes().all(digit) { Ok(()) } else { Err(NOT_AN_INTEGER) }
}

/// `float8in_internal` of float.c. What `strtod` takes besides decimal numbers (NaN, infinity, hexadecimal) passes, and
/// so does what is out of range.
fn float(text: &str) -> Result<(), &'static str> {
    let number = strip_sign(trim(text));
    let special = ["nan", "inf", "0x"];
    if special.iter().any(|start| number.get(..3.min(start.len())).is_some_and(|head| head.eq_ignore_ascii_case(start)))
    {
        return Ok(());
    }
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(strip_sign(exponent))),
        None => (number, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let has_digit = !whole.is_empty() || !fraction.is_empty();
    let good_exponent = exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    if has_digit && digits(whole) && digits(fraction) && good_exponent {
        Ok(())
    } else {
        Err("the text is not a number")
    }
}

/// `string_to_uuid` of uuid.c: 32 hexadecimal digits, a hyphen after any four of them or none, in braces or not.
fn uuid(text: &str) -> Result<(), &'static str> {
    const NOT_A_UUID: &str = "the text is not a UUID, such as a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let body = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or(NOT_A_UUID)?,
        None => text,
    };
    let mut digits = 0;
    let mut after_hyphen = false;
    for byte in body.bytes() {
        match byte {
            b'-' if digits % 4 == 0 && (4..32).contains(&digits) && !after_hyphen => after_hyphen = true,
            _ if byte.is_ascii_hexdigit() => {
                digits += 1;
                after_hyphen = false;
            }
            _ => return Err(NOT_A_UUID),
        }
    }
    if digits == 32 { Ok(()) } else { Err(NOT_A_UUID) }
}

#[cfg(test)]
mod tests {
    use super::{Scalar, text};

    #[test]
    fn only_what_every_version_refuses_is_refused() {
        let table: &[(Scalar, &[&str], &[&str])] = &[
            (
                Scalar::Bool,
                &["t", "TRUE", " tru ", "f", "y", "No", "on", "of", "OFF", "1", "0\n"],
                &["", " ", "o", "2", "truee", "yesno", "01", "nul"],
            ),
            (
                Scalar::Int2,
                &[
                    "0",
                    " -32768\t",
                    "+32767",
                    "0x7f",
                    "1_000",
                    "-0b11",
                    "0o17",
                    "00000000000000000000000000000000000000000007",
                ],
                &["", "-", "32768", "-32769", "1.0", "1e3", "0xfg", "a", "_1", "--1", "1 2", "٣"],
            ),
            (Scalar::Int4, &["2147483647", "-2147483648"], &["2147483648", "-2147483649", "12a"]),
            (
                Scalar::Int8,
                &["9223372036854775807", "-9223372036854775808"],
                &["9223372036854775808", "9999999999999999999999999999999999999999999999"],
            ),
            (
                Scalar::Float8,
                &["1", " -1.5e-3 ", ".5", "5.", "NaN", "-Infinity", "inf", "0x1p3", "1e400", "nan(1)"],
                &["", ".", "e5", "1e", "1e+", "1,5", "one", "1 2", "--1", "1.2.3", "é"],
            ),
            (
                Scalar::Uuid,
                &[
                    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                    "A0EEBC999C0B4EF8BB6D6BB9BD380A11",
                    "{a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11}",
                ],
                &[
                    "",
                    "a0eebc99",
                    "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
                    "a0eebc99--9c0b4ef8bb6d6bb9bd380a11",
                    " a0eebc999c0b4ef8bb6d6bb9bd380a11",
                    "a0eebc999c0b4ef8bb6d6bb9bd380a11-",
                    "g0eebc999c0b4ef8bb6d6bb9bd380a11",
                ],
            ),
            (Scalar::Utf8, &["", "anything"], &["nul\0"]),
        ];
        for (scalar, good, bad) in table {
            for sample in *good {
                assert_eq!(text(sample, Some(*scalar)), Ok(()), "{scalar:?} {sample:?}");
            }
            for sample in *bad {
                assert!(text(sample, Some(*scalar)).is_err(), "{scalar:?} {sample:?}");
            }
        }
    }
}
