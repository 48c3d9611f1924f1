//! Array parameters, as PostgreSQL's array literal (`array_in` of arrayfuncs.c), so that any element type works.

use postgres_types::Type;

use super::{Misfit, Wire, double_text, field_name, fit};
use crate::{
    codec::{nested::DIMENSIONS_MAX, text::push_hex},
    proto,
};

/// Writes an array literal, such as `[0:1][1:2]={{1,2},{3,NULL}}`; elements fit as parameters of their type do.
pub(super) fn literal(array: &proto::ArrayValue, type_: &Type, element: &Type) -> Result<String, Misfit> {
    if matches!(*type_, Type::INT2_VECTOR | Type::OID_VECTOR) {
        return Err(Misfit::because("pass it as text_value, numbers with blanks between, such as `1 2 3`"));
    }
    let elements = array.elements.iter().enumerate().map(|(at, value)| {
        fit(value, element).map_err(|misfit| match misfit {
            Misfit::Because(why) => {
                let given = value.kind.as_ref().map_or("nothing", field_name);
                Misfit::Because(format!("elements[{at}], a {given} for {}: {why}", element.name()))
            }
            unsupported => unsupported,
        })
    });
    let elements = elements.collect::<Result<Vec<_>, _>>()?;
    let lengths = lengths(array)?;
    let mut out = String::new();
    if elements.is_empty() {
        out.push_str("{}");
        return Ok(out);
    }
    push_bounds(array, &lengths, &mut out)?;
    // Of PostgreSQL's own types only box has another delimiter (`pg_type.typdelim`).
    let delimiter = if *element == Type::BOX { ';' } else { ',' };
    for (at, wire) in elements.into_iter().enumerate() {
        // Row-major: a brace opens or closes wherever the position is a multiple of the size of a row, a plane, …
        let opening = boundaries(&lengths, at);
        if at > 0 {
            out.extend(std::iter::repeat_n('}', opening));
            out.push(delimiter);
        }
        out.extend(std::iter::repeat_n('{', opening));
        push_element(&wire, &mut out);
    }
    out.extend(std::iter::repeat_n('}', lengths.len()));
    Ok(out)
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

fn push_element(wire: &Wire, out: &mut String) {
    match wire {
        Wire::Null => out.push_str("NULL"),
        Wire::Bool(value) => out.push(if *value { 't' } else { 'f' }),
        Wire::Int2(value) => out.push_str(&value.to_string()),
        Wire::Int4(value) => out.push_str(&value.to_string()),
        Wire::Int8(value) => out.push_str(&value.to_string()),
        Wire::Uint4(value) => out.push_str(&value.to_string()),
        // Shortest as a 4-byte float: the shortest double that it widens to would read back the same, but is longer.
        Wire::Float4(value) if value.is_finite() => out.push_str(&format!("{value:e}")),
        Wire::Float4(value) => out.push_str(&double_text((*value).into())),
        Wire::Float8(value) => out.push_str(&double_text(*value)),
        Wire::Bytea(bytes) => {
            out.push_str("\"\\\\x");
            bytes.iter().for_each(|byte| push_hex(*byte, out));
            out.push('"');
        }
        // Always quoted: an element may be empty, `NULL`, or hold a brace, a delimiter or a blank.
        Wire::Text(text) => {
            out.push('"');
            for character in text.chars() {
                if matches!(character, '"' | '\\') {
                    out.push('\\');
                }
                out.push(character);
            }
            out.push('"');
        }
    }
}
