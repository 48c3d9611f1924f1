//! The text that `::text` gives for a binary value, with DateStyle ISO, IntervalStyle postgres and TimeZone UTC.

mod bounded;
mod container;
mod datetime;
mod float;
mod geometric;
mod hstore;
mod interval;
mod network;
mod numeric;
mod search;
mod system;

pub(super) use self::bounded::Text;
use self::network::Mask;
use super::{
    read::{self, Malformed, Stop},
    scalar::{Form, Scalar},
};

/// Appends the text form of a value of a form that travels as text.
///
/// # Errors
/// [`Stop::Malformed`] if `raw` is not the binary form of such a value, [`Stop::Full`] if its text is longer than `out`
/// may become; `out` then holds a part of it.
pub(super) fn write(form: &Form, raw: &[u8], out: &mut Text) -> Result<(), Stop> {
    match form {
        // Its cast to text differs from its output function, which its text in a range is from.
        Form::Scalar(Scalar::Network) => network::address(raw, Mask::Always, out)?,
        _ => return write_part(form, raw, out),
    }
    whole(out)
}

/// Whether all that was written is there.
fn whole(out: &Text) -> Result<(), Stop> {
    if out.is_full() { Err(Stop::Full) } else { Ok(()) }
}

/// Appends what the type's output function writes: its text as a part of another's.
fn write_part(form: &Form, raw: &[u8], out: &mut Text) -> Result<(), Stop> {
    match form {
        Form::Scalar(scalar) => write_scalar(*scalar, raw, out)?,
        Form::Range(bound) => container::range(bound, raw, out)?,
        Form::Multirange(bound) => container::multirange(bound, raw, out)?,
        Form::Array(element) => container::array(element, raw, out)?,
        Form::Row(fields) => container::row(fields, raw, out)?,
        Form::Record | Form::Raw => return Err(Malformed("its type does not travel as text").into()),
    }
    whole(out)
}

fn write_scalar(scalar: Scalar, raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    match scalar {
        Scalar::Bool => out.push(if read::bool(raw)? { 't' } else { 'f' }),
        Scalar::Int2 => push_integer(i16::from_be_bytes(read::whole(raw)?).into(), out),
        Scalar::Int4 => push_integer(i32::from_be_bytes(read::whole(raw)?).into(), out),
        Scalar::Int8 => push_integer(i64::from_be_bytes(read::whole(raw)?), out),
        Scalar::Uint4 => push_number(u32::from_be_bytes(read::whole(raw)?).into(), 1, out),
        Scalar::Uint8 => push_number(u64::from_be_bytes(read::whole(raw)?), 1, out),
        Scalar::Float4 => float::single(raw, out)?,
        Scalar::Float8 => float::double(raw, out)?,
        Scalar::Bytea => push_bytes(raw, out),
        Scalar::Utf8 | Scalar::Padded => out.push_str(read::utf8(raw)?),
        Scalar::Versioned => match raw.split_first() {
            Some((1, text)) => out.push_str(read::utf8(text)?),
            _ => return Err(Malformed("it does not begin with the version 1")),
        },
        Scalar::Void => read::end(raw)?,
        Scalar::Char => system::char(raw, out)?,
        Scalar::Numeric => numeric::write(raw, out)?,
        Scalar::Uuid => system::uuid(read::whole(raw)?, out),
        Scalar::Date => datetime::date(i32::from_be_bytes(read::whole(raw)?), out),
        Scalar::Time => datetime::time(i64::from_be_bytes(read::whole(raw)?), out)?,
        Scalar::TimeTz => datetime::time_with_zone(raw, out)?,
        Scalar::Timestamp => datetime::timestamp(i64::from_be_bytes(read::whole(raw)?), "", out),
        Scalar::TimestampTz => datetime::timestamp(i64::from_be_bytes(read::whole(raw)?), "+00", out),
        Scalar::Interval => interval::write(raw, out)?,
        Scalar::Lsn => system::lsn(u64::from_be_bytes(read::whole(raw)?), out),
        Scalar::Bits => system::bits(raw, out)?,
        Scalar::Network => network::address(raw, Mask::UnlessHost, out)?,
        Scalar::MacAddress => network::hardware(raw, out)?,
        Scalar::Tid => system::tid(raw, out)?,
        Scalar::Snapshot => system::snapshot(raw, out)?,
        Scalar::Point => geometric::point(raw, out)?,
        Scalar::Segment => geometric::segment(raw, out)?,
        Scalar::Path => geometric::path(raw, out)?,
        Scalar::Box => geometric::rectangle(raw, out)?,
        Scalar::Polygon => geometric::polygon(raw, out)?,
        Scalar::Line => geometric::line(raw, out)?,
        Scalar::Circle => geometric::circle(raw, out)?,
        Scalar::TsVector => search::vector(raw, out)?,
        Scalar::TsQuery => search::query(raw, out)?,
        Scalar::Hstore => hstore::write(raw, out)?,
    }
    Ok(())
}

/// Appends bytes as `bytea_output` hex has them.
pub(super) fn push_bytes(bytes: &[u8], out: &mut impl Extend<char>) {
    out.extend(['\\', 'x']);
    bytes.iter().for_each(|byte| push_hex(*byte, out));
}

fn push_integer(value: i64, out: &mut Text) {
    if value < 0 {
        out.push('-');
    }
    push_number(value.unsigned_abs(), 1, out);
}

/// Appends a byte as two hexadecimal digits.
fn push_hex(byte: u8, out: &mut impl Extend<char>) {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    out.extend([byte >> 4, byte & 15].map(digit));
}

/// Appends a number in decimal, with zeros in front up to `width` digits. (`write!` can fail and is slower.)
fn push_number(value: u64, width: usize, out: &mut Text) {
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

#[cfg(test)]
#[path = "../text_tests.rs"]
mod tests;
