//! The text that `::text` gives for a binary value, with DateStyle ISO, IntervalStyle postgres and TimeZone UTC.

mod datetime;
mod interval;
mod numeric;

use super::{
    read::{self, Malformed},
    scalar::{Form, Scalar},
};

/// Appends the text form of a value of a form that travels as text.
///
/// # Errors
/// [`Malformed`] if `raw` is not the binary form of such a value; `out` then holds a part of it.
pub(super) fn write(form: &Form, raw: &[u8], out: &mut String) -> Result<(), Malformed> {
    match form {
        Form::Scalar(scalar) => write_scalar(*scalar, raw, out),
        _ => Err(Malformed("its type does not travel as text")),
    }
}

fn write_scalar(scalar: Scalar, raw: &[u8], out: &mut String) -> Result<(), Malformed> {
    match scalar {
        Scalar::Utf8 => out.push_str(read::utf8(raw)?),
        Scalar::Versioned => match raw.split_first() {
            Some((1, text)) => out.push_str(read::utf8(text)?),
            _ => return Err(Malformed("it does not begin with the version 1")),
        },
        Scalar::Void => read::end(raw)?,
        Scalar::Char => char(raw, out)?,
        Scalar::Numeric => numeric::write(raw, out)?,
        Scalar::Uuid => uuid(read::whole(raw)?, out),
        Scalar::Date => datetime::date(i32::from_be_bytes(read::whole(raw)?), out),
        Scalar::Time => datetime::time(i64::from_be_bytes(read::whole(raw)?), out)?,
        Scalar::TimeTz => datetime::time_with_zone(raw, out)?,
        Scalar::Timestamp => datetime::timestamp(i64::from_be_bytes(read::whole(raw)?), "", out),
        Scalar::TimestampTz => datetime::timestamp(i64::from_be_bytes(read::whole(raw)?), "+00", out),
        Scalar::Interval => interval::write(raw, out)?,
        Scalar::Lsn => lsn(u64::from_be_bytes(read::whole(raw)?), out),
        _ => return Err(Malformed("its type does not travel as text")),
    }
    Ok(())
}

/// `charout` of char.c: zero is empty, a byte above ASCII is a backslash and three octal digits.
fn char(raw: &[u8], out: &mut String) -> Result<(), Malformed> {
    match read::whole(raw)? {
        [0] => {}
        [byte @ 0x80..=0xFF] => {
            out.push('\\');
            for shift in [6, 3, 0] {
                out.push(char::from(b'0' + ((byte >> shift) & 7)));
            }
        }
        [byte] => out.push(char::from(byte)),
    }
    Ok(())
}

/// `uuid_out` of uuid.c.
fn uuid(bytes: [u8; 16], out: &mut String) {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        push_hex(*byte, out);
    }
}

/// `pg_lsn_out` of pg_lsn.c: both halves in hexadecimal, without leading zeros.
fn lsn(lsn: u64, out: &mut String) {
    out.push_str(&format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF));
}

/// Appends a byte as two hexadecimal digits.
pub(super) fn push_hex(byte: u8, out: &mut String) {
    for nibble in [byte >> 4, byte & 15] {
        out.push(char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }));
    }
}

/// Appends a number in decimal, with zeros in front up to `width` digits. (`write!` can fail and is slower.)
fn push_number(value: u64, width: usize, out: &mut String) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        // A remainder of ten always fits.
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        start -= 1;
    }
    let start = start.min(digits.len().saturating_sub(width.max(1)));
    out.extend(digits.iter().skip(start).map(|digit| char::from(*digit)));
}
