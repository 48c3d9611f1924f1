//! Result arrays: from PostgreSQL's binary format (`array_send` of arrayfuncs.c) to nested `Value`s.

use super::{
    read::{self, Malformed},
    scalar::{Form, Scalar},
    text,
};
use crate::proto::{ArrayValue, NullValue, Value, value::Kind};

/// `MAXDIM` of PostgreSQL.
pub(super) const DIMENSIONS_MAX: usize = 6;

/// Decodes an array. Elements are in row-major order, each of its natural kind, NULL as null_value; dimensions and lower
/// bounds are always given (an empty array has none).
pub(super) fn decode(form: &Form, mut raw: &[u8]) -> Result<Value, Malformed> {
    let dimension_count = i32::from_be_bytes(read::take(&mut raw)?);
    let _has_nulls = read::take::<4>(&mut raw)?;
    let _element_oid = read::take::<4>(&mut raw)?;
    let dimension_count = usize::try_from(dimension_count)
        .ok()
        .filter(|count| *count <= DIMENSIONS_MAX)
        .ok_or(Malformed("its number of dimensions is out of range"))?;
    let mut array = ArrayValue::default();
    let mut element_count = usize::from(dimension_count > 0);
    for _ in 0..dimension_count {
        let length = i32::from_be_bytes(read::take(&mut raw)?);
        element_count = usize::try_from(length)
            .ok()
            .and_then(|length| element_count.checked_mul(length))
            .ok_or(Malformed("its size is out of range"))?;
        array.dimensions.push(length);
        array.lower_bounds.push(i32::from_be_bytes(read::take(&mut raw)?));
    }
    // Each element has its length in front: more elements than that cannot be there, so nothing is allocated for them.
    if element_count > raw.len() / 4 {
        return Err(Malformed("it has fewer elements than its dimensions say"));
    }
    array.elements.reserve_exact(element_count);
    for _ in 0..element_count {
        let length = i32::from_be_bytes(read::take(&mut raw)?);
        let kind = match usize::try_from(length) {
            Ok(length) => element(form, read::take_slice(&mut raw, length)?)?,
            Err(_) if length == -1 => Kind::NullValue(NullValue::Unspecified.into()),
            Err(_) => return Err(Malformed("an element's length is out of range")),
        };
        array.elements.push(Value { kind: Some(kind) });
    }
    read::end(raw)?;
    Ok(Value { kind: Some(Kind::ArrayValue(array)) })
}

fn element(form: &Form, raw: &[u8]) -> Result<Kind, Malformed> {
    Ok(match form {
        Form::Scalar(Scalar::Bool) => Kind::BoolValue(read::bool(raw)?),
        Form::Scalar(Scalar::Int2) => Kind::Int64Value(i16::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Int4) => Kind::Int64Value(i32::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Int8) => Kind::Int64Value(i64::from_be_bytes(read::whole(raw)?)),
        Form::Scalar(Scalar::Uint4) => Kind::Int64Value(u32::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Float4) => Kind::DoubleValue(f32::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Float8) => Kind::DoubleValue(f64::from_be_bytes(read::whole(raw)?)),
        Form::Scalar(Scalar::Bytea) => Kind::BytesValue(raw.to_vec()),
        _ => {
            let mut text = String::new();
            text::write(form, raw, &mut text)?;
            Kind::TextValue(text)
        }
    })
}
