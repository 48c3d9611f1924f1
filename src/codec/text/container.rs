//! The text forms of ranges and multiranges, and of arrays and composite values as parts of them: after `range_out` of
//! PostgreSQL's rangetypes.c, `multirange_out` of multirangetypes.c, `array_out` of arrayfuncs.c and `record_out` of
//! rowtypes.c.

use super::{
    super::{
        nested::DIMENSIONS_MAX,
        read::{self, Malformed, Stop},
        scalar::{Form, Scalar},
    },
    bounded::Text,
    write_part,
};

/// The flags before a range's bounds (`RANGE_EMPTY` and so on of rangetypes.h).
const EMPTY: u8 = 1;
const LOWER_INCLUSIVE: u8 = 2;
const UPPER_INCLUSIVE: u8 = 4;
const LOWER_INFINITE: u8 = 8;
const UPPER_INFINITE: u8 = 16;

/// Appends a range, such as `[1,5)`.
pub(super) fn range(bound: &Form, mut raw: &[u8], out: &mut Text) -> Result<(), Stop> {
    let [flags] = read::take(&mut raw)?;
    let has = |flag: u8| flags & flag != 0;
    if has(EMPTY) {
        out.push_str("empty");
        return Ok(read::end(raw)?);
    }
    out.push(if has(LOWER_INCLUSIVE) { '[' } else { '(' });
    if !has(LOWER_INFINITE) {
        push_quoted(bound, take_sized(&mut raw)?, b"()[],", out)?;
    }
    out.push(',');
    if !has(UPPER_INFINITE) {
        push_quoted(bound, take_sized(&mut raw)?, b"()[],", out)?;
    }
    out.push(if has(UPPER_INCLUSIVE) { ']' } else { ')' });
    Ok(read::end(raw)?)
}

/// Appends a multirange, such as `{[1,5),[7,9)}`.
pub(super) fn multirange(bound: &Form, mut raw: &[u8], out: &mut Text) -> Result<(), Stop> {
    let count = u32::from_be_bytes(read::take(&mut raw)?);
    out.push('{');
    for at in 0..count {
        if at > 0 {
            out.push(',');
        }
        range(bound, take_sized(&mut raw)?, out)?;
    }
    out.push('}');
    Ok(read::end(raw)?)
}

/// Appends a composite value, such as `(1,"a b",)`.
pub(super) fn row(fields: &[Form], mut raw: &[u8], out: &mut Text) -> Result<(), Stop> {
    let count = i32::from_be_bytes(read::take(&mut raw)?);
    if usize::try_from(count) != Ok(fields.len()) {
        return Err(Malformed("it has another number of fields than its type").into());
    }
    out.push('(');
    for (at, form) in fields.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let _type_oid = read::take::<4>(&mut raw)?;
        if let Some(field) = take_nullable(&mut raw)? {
            push_quoted(form, field, b"(),", out)?;
        }
    }
    out.push(')');
    Ok(read::end(raw)?)
}

/// Appends an array, such as `{{1,2},{3,NULL}}`.
pub(super) fn array(element: &Form, mut raw: &[u8], out: &mut Text) -> Result<(), Stop> {
    let dimensions = i32::from_be_bytes(read::take(&mut raw)?);
    let _has_nulls = read::take::<4>(&mut raw)?;
    let _element_oid = read::take::<4>(&mut raw)?;
    let dimensions = usize::try_from(dimensions).ok().filter(|dimensions| *dimensions <= DIMENSIONS_MAX);
    let dimensions = dimensions.ok_or(Malformed("its number of dimensions is out of range"))?;
    let mut bounds = Vec::new();
    let mut count = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        let length = i32::from_be_bytes(read::take(&mut raw)?);
        let lower = i32::from_be_bytes(read::take(&mut raw)?);
        const OUT_OF_RANGE: Malformed = Malformed("its size is out of range");
        let size = usize::try_from(length).map_err(|_| OUT_OF_RANGE)?;
        count = count.checked_mul(size).filter(|total| *total <= raw.len()).ok_or(OUT_OF_RANGE)?;
        bounds.push((lower, size));
    }
    if count == 0 {
        out.push_str("{}");
        return Ok(read::end(raw)?);
    }
    if bounds.iter().any(|(lower, _)| *lower != 1) {
        for (lower, length) in &bounds {
            let upper = i64::from(*lower) + i64::try_from(*length).unwrap_or(i64::MAX) - 1;
            out.push_str(&format!("[{lower}:{upper}]"));
        }
        out.push('=');
    }
    let delimiter = if *element == Form::Scalar(Scalar::Box) { ';' } else { ',' };
    for at in 0..count {
        let opening = beginnings(&bounds, at);
        if at > 0 {
            out.extend(std::iter::repeat_n('}', opening));
            out.push(delimiter);
        }
        out.extend(std::iter::repeat_n('{', opening));
        match take_nullable(&mut raw)? {
            Some(value) => push_element(element, value, delimiter, out)?,
            None => out.push_str("NULL"),
        }
    }
    out.extend(std::iter::repeat_n('}', bounds.len()));
    Ok(read::end(raw)?)
}

/// How many dimensions begin anew at a position: a brace opens for each.
fn beginnings(bounds: &[(i32, usize)], at: usize) -> usize {
    let mut size = 1_usize;
    let begins = |(_, length): &&(i32, usize)| {
        size = size.saturating_mul(*length);
        at.is_multiple_of(size)
    };
    bounds.iter().rev().take_while(begins).count()
}

/// Appends an element; in quotes where it would be read as something else.
fn push_element(form: &Form, raw: &[u8], delimiter: char, out: &mut Text) -> Result<(), Stop> {
    let start = out.len();
    write_part(form, raw, out)?;
    let text = out.since(start);
    let special = |character: char| matches!(character, '"' | '\\' | '{' | '}') || character == delimiter;
    let is_plain = !text.is_empty() && !text.eq_ignore_ascii_case("NULL");
    if !is_plain || text.contains(|character| special(character) || is_space(character)) {
        out.quote(start, |_| '\\');
    }
    Ok(())
}

/// Appends a bound or a field: in quotes if it is empty, or has a blank, a quote, a backslash or one of `special`.
fn push_quoted(form: &Form, raw: &[u8], special: &[u8], out: &mut Text) -> Result<(), Stop> {
    let start = out.len();
    write_part(form, raw, out)?;
    let text = out.since(start);
    let is_special = |byte: u8| matches!(byte, b'"' | b'\\') || is_space(byte.into()) || special.contains(&byte);
    if text.is_empty() || text.bytes().any(is_special) {
        out.quote(start, |special| special);
    }
    Ok(())
}

/// C's `isspace`.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C')
}

fn take_sized<'a>(raw: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    take_nullable(raw)?.ok_or(Malformed("a bound is NULL"))
}

/// A length and as many bytes; a length of -1 means NULL.
fn take_nullable<'a>(raw: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let length = i32::from_be_bytes(read::take(raw)?);
    match usize::try_from(length) {
        Ok(length) => read::take_slice(raw, length).map(Some),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(Malformed("the length of a part is out of range")),
    }
}
