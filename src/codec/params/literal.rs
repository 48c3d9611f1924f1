//! Arrays and rows as parameters: PostgreSQL's literals (`array_in` of arrayfuncs.c, `record_in` of rowtypes.c), so that
//! any type works within them, and they within each other.

use postgres_types::{Field, Type};

use super::{Misfit, Wire, double_text, field_name, fit};
use crate::{
    codec::{nested::DIMENSIONS_MAX, scalar, text::push_bytes},
    proto,
};

/// Writes an array literal, such as `[0:1][1:2]={{1,2},{3,NULL}}`, of `most` bytes at most; elements fit as parameters of
/// their type do.
pub(super) fn array(array: &proto::ArrayValue, element: &Type, most: usize) -> Result<String, Misfit> {
    let lengths = lengths(array)?;
    let mut out = String::new();
    if array.elements.is_empty() {
        out.push_str("{}");
        return Ok(out);
    }
    push_bounds(array, &lengths, &mut out)?;
    // Of PostgreSQL's own types only box has another delimiter (`pg_type.typdelim`); a domain has its base type's.
    let delimiter = if *scalar::base(element) == Type::BOX { ';' } else { ',' };
    for (at, value) in array.elements.iter().enumerate() {
        let wire = fit_element(at, value, element, most.saturating_sub(out.len()))?;
        // Row-major: a brace opens or closes wherever the position is a multiple of the size of a row, a plane, …
        let opening = boundaries(&lengths, at);
        if at > 0 {
            out.extend(std::iter::repeat_n('}', opening));
            out.push(delimiter);
        }
        out.extend(std::iter::repeat_n('{', opening));
        match wire {
            Wire::Null => out.push_str("NULL"),
            wire => push_part(wire, |_| "\\", &mut out, most)?,
        }
    }
    out.extend(std::iter::repeat_n('}', lengths.len()));
    Ok(out)
}

/// Writes the text of an `int2vector` or an `oidvector`, such as `1 2 3`: they come as arrays from 0, but are written so.
pub(super) fn vector(array: &proto::ArrayValue, element: &Type, most: usize) -> Result<String, Misfit> {
    if array.dimensions.len() > 1 || array.lower_bounds.iter().any(|lower| *lower != 0) {
        return Err(Misfit::because("it has one dimension, whose lower bound is 0"));
    }
    lengths(array)?;
    let mut out = String::new();
    for (at, value) in array.elements.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        match text_of(fit_element(at, value, element, most)?) {
            Some((text, _)) => out.push_str(&text),
            None => return Err(Misfit::because("no element of it can be NULL")),
        }
    }
    Ok(out)
}

/// Writes a composite literal, such as `(1,"a b",)`, of `most` bytes at most; fields fit as parameters of their types do.
pub(super) fn row(row: &proto::RowValue, fields: &[Field], most: usize) -> Result<String, Misfit> {
    if row.fields.len() != fields.len() {
        let (given, expected) = (row.fields.len(), fields.len());
        return Err(Misfit::Because(format!(
            "it has {given} fields, but the type has {expected}; give all, in its order"
        )));
    }
    let mut out = String::from("(");
    for (at, (value, field)) in row.fields.iter().zip(fields).enumerate() {
        let wire = fit(value, field.type_(), most.saturating_sub(out.len()))
            .map_err(|misfit| within(misfit, value, &format!("fields[{at}] ({:?})", field.name()), field.type_()))?;
        if at > 0 {
            out.push(',');
        }
        match wire {
            // Nothing at all, not even quotes.
            Wire::Null => {}
            wire => push_part(wire, |special| if special == '"' { "\"" } else { "\\" }, &mut out, most)?,
        }
    }
    out.push(')');
    Ok(out)
}

fn fit_element(at: usize, value: &proto::Value, element: &Type, most: usize) -> Result<Wire, Misfit> {
    fit(value, element, most).map_err(|misfit| within(misfit, value, &format!("elements[{at}]"), element))
}

/// Says where in an array or a row the fault is.
fn within(misfit: Misfit, value: &proto::Value, place: &str, type_: &Type) -> Misfit {
    match misfit {
        Misfit::Because(why) => {
            let given = value.kind.as_ref().map_or("nothing", field_name);
            Misfit::Because(format!("{place}, a {given} for {}: {why}", scalar::display_name(type_)))
        }
        Misfit::Unset => Misfit::Unset,
    }
}

/// The length of each dimension, checked; empty dimensions mean one.
fn lengths(array: &proto::ArrayValue) -> Result<Vec<usize>, Misfit> {
    let count = array.elements.len();
    if array.dimensions.is_empty() {
        return Ok(vec![count]);
    }
    if array.dimensions.len() > DIMENSIONS_MAX {
        return Err(Misfit::Because(format!("it has more than {DIMENSIONS_MAX} dimensions")));
    }
    let lengths: Option<Vec<usize>> = array.dimensions.iter().map(|length| usize::try_from(*length).ok()).collect();
    let lengths = lengths.ok_or_else(|| Misfit::because("a dimension is negative"))?;
    let product = lengths.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    if product != Some(count) {
        return Err(Misfit::Because(format!(
            "it has {count} elements, but dimensions {:?}; their product must be the number of elements",
            array.dimensions
        )));
    }
    Ok(lengths)
}

/// Appends `[least:greatest]…=` unless each dimension begins at 1.
fn push_bounds(array: &proto::ArrayValue, lengths: &[usize], out: &mut String) -> Result<(), Misfit> {
    let lower_bounds = &array.lower_bounds;
    if !lower_bounds.is_empty() && lower_bounds.len() != lengths.len() {
        return Err(Misfit::because("lower_bounds needs one entry for each dimension, or none"));
    }
    if lower_bounds.iter().all(|lower| *lower == 1) {
        return Ok(());
    }
    for (lower, length) in lower_bounds.iter().zip(lengths) {
        let upper = i32::try_from(*length).ok().and_then(|length| lower.checked_add(length - 1));
        let upper = upper.ok_or_else(|| Misfit::because("a lower bound is too large"))?;
        out.push_str(&format!("[{lower}:{upper}]"));
    }
    out.push('=');
    Ok(())
}

/// How many dimensions begin anew at a position (all of them at 0).
fn boundaries(lengths: &[usize], at: usize) -> usize {
    let mut size = 1_usize;
    let begins = |length: &&usize| {
        size = size.saturating_mul(**length);
        at.is_multiple_of(size)
    };
    lengths.iter().rev().take_while(begins).count()
}

/// Appends an element or a field that is not NULL; `escape` is what goes before a quote or a backslash. `out` may grow to
/// `most` bytes.
fn push_part(wire: Wire, escape: impl Fn(char) -> &'static str, out: &mut String, most: usize) -> Result<(), Misfit> {
    let Some((text, is_plain)) = text_of(wire) else { return Ok(()) };
    if is_plain {
        out.push_str(&text);
        return Ok(());
    }
    let escaped = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    if out.len() + text.len() + escaped + 2 > most {
        let why = "its literal is too long, as quotes double with each level of nesting; pass it as text_value";
        return Err(Misfit::because(why));
    }
    // Text is always quoted: it may be empty, `NULL`, or hold a brace, a delimiter or a blank.
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push_str(escape(character));
        }
        out.push(character);
    }
    out.push('"');
    Ok(())
}

/// A value in PostgreSQL's text form, and whether it needs no quotes within another; None for NULL.
fn text_of(wire: Wire) -> Option<(String, bool)> {
    Some(match wire {
        Wire::Null => return None,
        Wire::Bool(value) => (if value { "t" } else { "f" }.to_owned(), true),
        Wire::Int2(value) => (value.to_string(), true),
        Wire::Int4(value) => (value.to_string(), true),
        Wire::Int8(value) => (value.to_string(), true),
        Wire::Uint4(value) => (value.to_string(), true),
        // Shortest as a 4-byte float: the shortest double that it widens to would read back the same, but is longer.
        Wire::Float4(value) if value.is_finite() => (format!("{value:e}"), true),
        Wire::Float4(value) => (double_text(value.into()), true),
        Wire::Float8(value) => (double_text(value), true),
        Wire::Bytea(bytes) => {
            let mut text = String::new();
            push_bytes(&bytes, &mut text);
            (text, false)
        }
        Wire::Text(text) => (text, false),
    })
}

#[cfg(test)]
#[path = "literal_tests.rs"]
mod tests;
