//! The text form of `numeric`, after `numeric_send` and `get_str_from_var` of PostgreSQL's numeric.c.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    push_number,
};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// The display scale has 14 bits (`NUMERIC_DSCALE_MASK`).
const SCALE_MAX: u16 = 0x3FFF;
/// Decimal digits in one digit of the base 10,000.
const DIGITS_IN_GROUP: usize = 4;

/// Appends the text form: all digits, never an exponent, as many decimals as the value's scale says.
pub(super) fn write(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let count = u16::from_be_bytes(read::take(&mut raw)?);
    let weight = i16::from_be_bytes(read::take(&mut raw)?);
    let sign = u16::from_be_bytes(read::take(&mut raw)?);
    let scale = u16::from_be_bytes(read::take(&mut raw)?);
    let groups = Groups::new(raw, count)?;
    match sign {
        0 => {}
        NEGATIVE => out.push('-'),
        NAN => out.push_str("NaN"),
        INFINITY => out.push_str("Infinity"),
        NEGATIVE_INFINITY => out.push_str("-Infinity"),
        _ => return Err(Malformed("it has an unknown sign")),
    }
    if !matches!(sign, 0 | NEGATIVE) {
        return Ok(());
    }
    if scale > SCALE_MAX {
        return Err(Malformed("its scale is out of range"));
    }
    // The group at `at` stands for itself times 10,000 to the power of `weight - at`.
    let weight = i32::from(weight);
    push_number(groups.at(0.min(weight)), 1, out);
    for at in 1..=weight {
        push_number(groups.at(at), DIGITS_IN_GROUP, out);
    }
    if scale > 0 {
        out.push('.');
        let mut left = usize::from(scale);
        let mut at = weight + 1;
        while left > 0 {
            // Of the last group only as many digits as the scale says.
            let shown = left.min(DIGITS_IN_GROUP);
            let unshown = (shown..DIGITS_IN_GROUP).fold(1, |power, _| power * 10);
            push_number(groups.at(at) / unshown, shown, out);
            left -= shown;
            at += 1;
        }
    }
    Ok(())
}

/// Digits to the base 10,000, the highest first; each is two bytes.
struct Groups<'a>(&'a [[u8; 2]]);

impl<'a> Groups<'a> {
    fn new(raw: &'a [u8], count: u16) -> Result<Self, Malformed> {
        let (groups, rest) = raw.as_chunks::<2>();
        if groups.len() != usize::from(count) || !rest.is_empty() {
            return Err(Malformed("its length does not match its number of digits"));
        }
        if groups.iter().any(|group| u16::from_be_bytes(*group) > 9999) {
            return Err(Malformed("it has a digit out of range"));
        }
        Ok(Self(groups))
    }

    /// The group at a place; zero before the first and behind the last.
    fn at(&self, at: i32) -> u64 {
        let group = usize::try_from(at).ok().and_then(|at| self.0.get(at));
        group.map_or(0, |group| u16::from_be_bytes(*group).into())
    }
}
