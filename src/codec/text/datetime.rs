//! The text forms of dates and times, after `EncodeDateOnly`, `EncodeTimeOnly` and `EncodeDateTime` of PostgreSQL's
//! datetime.c, style ISO.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    push_number,
};

/// The unit of times on the wire is the microsecond.
pub(super) const MICROS_IN_SECOND: u64 = 1_000_000;
const MICROS_IN_DAY: i64 = 86_400_000_000;
/// Days from 0000-03-01, where the calendar's 400-year cycles are counted from, to PostgreSQL's 2000-01-01.
const DAYS_BEFORE_2000: i64 = 730_425;
const DAYS_IN_400_YEARS: i64 = 146_097;

/// Appends a date, in days since 2000-01-01; the extremes mean infinity.
pub(super) fn date(days: i32, out: &mut Text) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        _ => {
            let before_christ = push_date(days.into(), out);
            push_era(before_christ, out);
        }
    }
}

/// Appends a timestamp, in microseconds since 2000-01-01, with `zone` behind the time; the extremes mean infinity.
pub(super) fn timestamp(micros: i64, zone: &str, out: &mut Text) {
    match micros {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        _ => {
            let before_christ = push_date(micros.div_euclid(MICROS_IN_DAY), out);
            out.push(' ');
            push_time(micros.rem_euclid(MICROS_IN_DAY).unsigned_abs(), out);
            out.push_str(zone);
            push_era(before_christ, out);
        }
    }
}

/// Appends a time of day, in microseconds since midnight; 24:00:00 is one.
pub(super) fn time(micros: i64, out: &mut Text) -> Result<(), Malformed> {
    if !(0..=MICROS_IN_DAY).contains(&micros) {
        return Err(Malformed("its time of day is out of range"));
    }
    push_time(micros.unsigned_abs(), out);
    Ok(())
}

/// Appends a time of day with its zone, which is in seconds west of Greenwich (`EncodeTimezone`).
pub(super) fn time_with_zone(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    time(i64::from_be_bytes(read::take(&mut raw)?), out)?;
    let west = i32::from_be_bytes(read::whole(raw)?);
    let seconds = u64::from(west.unsigned_abs());
    out.push(if west <= 0 { '+' } else { '-' });
    push_number(seconds / 3600, 2, out);
    if seconds % 3600 != 0 {
        out.push(':');
        push_number(seconds / 60 % 60, 2, out);
    }
    if seconds % 60 != 0 {
        out.push(':');
        push_number(seconds % 60, 2, out);
    }
    Ok(())
}

/// Appends hours (two digits or more), minutes, seconds, and what is needed of the microseconds.
pub(super) fn push_time(micros: u64, out: &mut Text) {
    let seconds = micros / MICROS_IN_SECOND;
    push_number(seconds / 3600, 2, out);
    out.push(':');
    push_number(seconds / 60 % 60, 2, out);
    out.push(':');
    push_number(seconds % 60, 2, out);
    let fraction = micros % MICROS_IN_SECOND;
    if fraction != 0 {
        out.push('.');
        push_number(fraction, 6, out);
        out.trim_zeros();
    }
}

/// Appends year, month and day in the proleptic Gregorian calendar; whether the year is before Christ comes last in the
/// text, so it is returned. The method is Howard Hinnant's `civil_from_days`: years begin in March, so that the leap day
/// is the last.
fn push_date(days_since_2000: i64, out: &mut Text) -> bool {
    let days = days_since_2000 + DAYS_BEFORE_2000;
    let (cycle, day_of_cycle) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * cycle + year_of_cycle + i64::from(month <= 2);
    // There is no year 0: 1 BC comes before 1 AD.
    let before_christ = year <= 0;
    push_number(if before_christ { (1 - year).unsigned_abs() } else { year.unsigned_abs() }, 4, out);
    out.push('-');
    push_number(month.unsigned_abs(), 2, out);
    out.push('-');
    push_number(day.unsigned_abs(), 2, out);
    before_christ
}

fn push_era(before_christ: bool, out: &mut Text) {
    if before_christ {
        out.push_str(" BC");
    }
}
