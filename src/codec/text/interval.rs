//! The text form of `interval`, after `EncodeInterval` of PostgreSQL's datetime.c, style postgres.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    datetime::push_time,
    push_number,
};

/// Appends an interval, such as `1 year 2 mons -3 days +04:05:06.789`.
pub(super) fn write(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let micros = i64::from_be_bytes(read::take(&mut raw)?);
    let days = i32::from_be_bytes(read::take(&mut raw)?);
    let months = i32::from_be_bytes(read::whole(raw)?);
    match (micros, days, months) {
        // Infinite since PostgreSQL 17; an older server has no way to make these values.
        (i64::MAX, i32::MAX, i32::MAX) => out.push_str("infinity"),
        (i64::MIN, i32::MIN, i32::MIN) => out.push_str("-infinity"),
        _ => write_finite(micros, days, months, out),
    }
    Ok(())
}

fn write_finite(micros: i64, days: i32, months: i32, out: &mut Text) {
    let mut first = true;
    let mut after_negative = false;
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value == 0 {
            continue;
        }
        if !first {
            out.push(' ');
        }
        // A plus sign only where the part before it is negative.
        match value {
            ..0 => out.push('-'),
            _ if after_negative => out.push('+'),
            _ => {}
        }
        push_number(value.unsigned_abs().into(), 1, out);
        out.push(' ');
        out.push_str(unit);
        if value != 1 {
            out.push('s');
        }
        first = false;
        after_negative = value < 0;
    }
    if !first && micros == 0 {
        return;
    }
    if !first {
        out.push(' ');
    }
    match micros {
        ..0 => out.push('-'),
        _ if after_negative => out.push('+'),
        _ => {}
    }
    push_time(micros.unsigned_abs(), out);
}
