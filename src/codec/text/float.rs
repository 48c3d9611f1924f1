//! The text forms of `float4` and `float8`, after `float4out` and `float8out` of PostgreSQL's float.c with
//! extra_float_digits 1. As values of their own they travel as doubles; these are for the texts that they are part of.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    push_number,
};

/// Appends the text form of a `float8` in its binary form.
pub(super) fn double(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    push_double(f64::from_be_bytes(read::whole(raw)?), out);
    Ok(())
}

/// Appends the text form of a `float4` in its binary form.
pub(super) fn single(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let value = f32::from_be_bytes(read::whole(raw)?);
    let shape = Shape { fixed_digits: 6, digits_max: 9, interval: Interval::of(value.to_bits().into(), 23, 8) };
    let same = |text: &str| text.parse::<f32>().is_ok_and(|read| read == value);
    push(value.into(), &format!("{value:e}"), &shape, same, out);
    Ok(())
}

/// Appends a double.
pub(super) fn push_double(value: f64, out: &mut Text) {
    let shape = Shape { fixed_digits: 15, digits_max: 17, interval: Interval::of(value.to_bits(), 52, 11) };
    let same = |text: &str| text.parse::<f64>().is_ok_and(|read| read == value);
    push(value, &format!("{value:e}"), &shape, same, out);
}

/// What the two types differ in.
struct Shape {
    /// With more digits than that before the point the text has an exponent.
    fixed_digits: i32,
    /// As many significant digits tell any two values apart.
    digits_max: usize,
    interval: Interval,
}

/// PostgreSQL takes the shortest digits that lie strictly between the halves of the ways to the neighbours, and of those
/// the closest, of two equally close ones the even one. What is shortest to Rust may lie on such a half, which is read
/// back as the same value only because halves round to even, and of two equally close ones it is the greater.
fn push(value: f64, shortest: &str, shape: &Shape, same: impl Fn(&str) -> bool, out: &mut Text) {
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_sign_negative() {
        out.push('-');
    }
    if value.is_infinite() {
        out.push_str("Infinity");
        return;
    }
    if value == 0.0 {
        out.push('0');
        return;
    }
    let mut decimal = Decimal::read(shortest);
    for precision in decimal.digits.len()..=shape.digits_max {
        let closest = format!("{value:.*e}", precision - 1);
        if same(&closest) && !shape.interval.ends_at(&Decimal::read(&closest)) {
            decimal = Decimal::read(&closest);
            break;
        }
        if !shape.interval.ends_at(&decimal) {
            break;
        }
    }
    decimal.push(shape.fixed_digits, out);
}

/// Significant digits, and the power of ten of the first.
struct Decimal {
    digits: String,
    exponent: i32,
}

impl Decimal {
    /// Reads what `{:e}` wrote, such as `-1.25e-7`.
    fn read(text: &str) -> Self {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        Self { digits: digits.trim_end_matches('0').to_owned(), exponent: exponent.parse().unwrap_or(0) }
    }

    /// Appends it as `to_chars` of d2s.c and f2s.c does.
    fn push(&self, fixed_digits: i32, out: &mut Text) {
        let count = i32::try_from(self.digits.len()).unwrap_or(i32::MAX);
        let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
        if !(-4..fixed_digits).contains(&self.exponent) {
            let (first, rest) = self.digits.split_at(1);
            out.push_str(first);
            if !rest.is_empty() {
                out.push('.');
                out.push_str(rest);
            }
            out.push_str(if self.exponent < 0 { "e-" } else { "e+" });
            push_number(self.exponent.unsigned_abs().into(), 2, out);
        } else if self.exponent < 0 {
            out.push_str("0.");
            out.push_str(&zeros(-1 - self.exponent));
            out.push_str(&self.digits);
        } else if count <= self.exponent + 1 {
            out.push_str(&self.digits);
            out.push_str(&zeros(self.exponent + 1 - count));
        } else {
            let (whole, fraction) = self.digits.split_at(usize::try_from(self.exponent + 1).unwrap_or(0));
            out.push_str(whole);
            out.push('.');
            out.push_str(fraction);
        }
    }
}

/// The numbers that round to a float: their ends, each a whole number times a power of two.
struct Interval {
    ends: [(u64, i32); 2],
}

impl Interval {
    fn of(bits: u64, mantissa_bits: u32, exponent_bits: u32) -> Self {
        let fraction = bits & ((1 << mantissa_bits) - 1);
        // At most 11 bits.
        let biased = (bits >> mantissa_bits & ((1 << exponent_bits) - 1)) as i32;
        let least = 2 - (1 << (exponent_bits - 1)) - mantissa_bits.cast_signed();
        let normal = biased > 0;
        let mantissa = fraction | u64::from(normal) << mantissa_bits;
        let exponent = least + (biased - 1).max(0);
        // Below a power of two the neighbours are closer.
        let below = match fraction == 0 && biased > 1 {
            true => (4 * mantissa - 1, exponent - 2),
            false => ((2 * mantissa).saturating_sub(1), exponent - 1),
        };
        Self { ends: [below, (2 * mantissa + 1, exponent - 1)] }
    }

    /// Whether a number is one of the ends.
    fn ends_at(&self, decimal: &Decimal) -> bool {
        let Ok(digits) = decimal.digits.parse::<u128>() else { return false };
        let Ok(count) = i32::try_from(decimal.digits.len()) else { return false };
        let exponent = decimal.exponent + 1 - count;
        // digits * 10^exponent = end * 2^power; where the powers of five do not fit, the odd parts differ.
        let Some(fives) = 5_u128.checked_pow(exponent.unsigned_abs()) else { return false };
        let is = |(end, power): (u64, i32)| {
            let end = u128::from(end);
            let (left, right) = if exponent < 0 {
                (Some(digits), end.checked_mul(fives))
            } else {
                (digits.checked_mul(fives), Some(end))
            };
            let odd = |number: u128, power: i32| {
                let twos = number.trailing_zeros();
                (number.checked_shr(twos), twos.cast_signed() + power)
            };
            left.zip(right).is_some_and(|(left, right)| odd(left, exponent) == odd(right, power))
        };
        self.ends.into_iter().any(is)
    }
}
