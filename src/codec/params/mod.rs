//! Parameters: from `Value`s and the types that PostgreSQL found for `$1`, `$2`, … to what goes into a Bind message.

mod check;
mod literal;

use std::{error::Error, fmt};

use bytes::{BufMut, BytesMut};
use postgres_types::{Format, IsNull, Kind as TypeKind, ToSql, Type};
use prost::Message;

use super::{
    error::CodecError,
    scalar::{self, Scalar, display_name},
};
use crate::proto::{self, value::Kind};

/// A statement's parameters may become so many bytes of literals at least, …
const LITERAL_BYTES: usize = 1 << 20;
/// … or so many for each byte of them. In the literals of arrays and rows quotes double with each level of nesting, so
/// without a bound a hundred bytes of values 30 deep would be a gigabyte.
const LITERAL_FACTOR: usize = 16;

/// One parameter, ready to be bound; it knows its format, and fits the type it was encoded for.
#[derive(Clone, PartialEq)]
pub struct Param(Wire);

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
enum Wire {
    Null,
    /// PostgreSQL's text format; all others are binary.
    Text(String),
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Uint4(u32),
    Float4(f32),
    Float8(f64),
    Bytea(Vec<u8>),
}

/// Why a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Misfit {
    /// The value, or one within it, has no kind.
    Unset,
    /// What is wrong, and what to do.
    Because(String),
}

impl Misfit {
    fn because(why: impl Into<String>) -> Self {
        Self::Because(why.into())
    }
}

/// Encodes a statement's parameters for the types that PostgreSQL found.
///
/// text_value is accepted for every type, and sent in PostgreSQL's text format. Each other kind is accepted for the types
/// that it is the natural kind of: bool_value for bool; int64_value for int2, int4, int8, oid, xid, cid, xid8, float4,
/// float8 (where exact) and numeric; double_value for float4 (rounded to it, as PostgreSQL's own cast does), float8 and
/// numeric; bytes_value for bytea; array_value for arrays; row_value for composite types. A domain is as its base type.
///
/// # Errors
/// [`CodecError::ParamCount`], [`CodecError::UnsetValue`] and [`CodecError::ParamDoesNotFit`], for the first parameter at fault.
pub fn encode(params: &[proto::Value], types: &[Type]) -> Result<Vec<Param>, CodecError> {
    if params.len() != types.len() {
        return Err(CodecError::ParamCount { expected: types.len(), given: params.len() });
    }
    let given: usize = params.iter().map(Message::encoded_len).sum();
    let mut left = given.saturating_mul(LITERAL_FACTOR).max(LITERAL_BYTES);
    let encode_one = |(at, (value, type_)): (usize, (&proto::Value, &Type))| {
        let index = at + 1;
        let wire = fit(value, type_, left).map_err(|misfit| match misfit {
            Misfit::Unset => CodecError::UnsetValue { index },
            Misfit::Because(why) => does_not_fit(value, type_, index, why),
        })?;
        if let Wire::Text(text) = &wire {
            left = left.saturating_sub(text.len());
        }
        Ok(Param(wire))
    };
    params.iter().zip(types).enumerate().map(encode_one).collect()
}

/// The error for parameter `$index` that the server found not to fit, for the same reader as those of [`encode`]; None
/// if there is no such parameter.
pub fn misfit(params: &[proto::Value], types: &[Type], index: usize, why: String) -> Option<CodecError> {
    let at = index.checked_sub(1)?;
    Some(does_not_fit(params.get(at)?, types.get(at)?, index, why))
}

fn does_not_fit(value: &proto::Value, type_: &Type, index: usize, why: String) -> CodecError {
    let given = value.kind.as_ref().map_or("nothing", field_name);
    CodecError::ParamDoesNotFit { index, given, type_name: display_name(type_), why }
}

/// The field of `Value` that holds a kind.
fn field_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::NullValue(_) => "null_value",
        Kind::BoolValue(_) => "bool_value",
        Kind::Int64Value(_) => "int64_value",
        Kind::DoubleValue(_) => "double_value",
        Kind::TextValue(_) => "text_value",
        Kind::BytesValue(_) => "bytes_value",
        Kind::ArrayValue(_) => "array_value",
        Kind::RowValue(_) => "row_value",
    }
}

/// Fits a parameter, or an array's element, to its type. A literal that it becomes may take `most` bytes.
fn fit(value: &proto::Value, type_: &Type, most: usize) -> Result<Wire, Misfit> {
    let scalar = Scalar::of(type_);
    match value.kind.as_ref().ok_or(Misfit::Unset)? {
        Kind::NullValue(_) => Ok(Wire::Null),
        Kind::TextValue(text) => {
            check::text(text, scalar).map_err(Misfit::because)?;
            Ok(Wire::Text(text.clone()))
        }
        Kind::BoolValue(value) => match scalar {
            Some(Scalar::Bool) => Ok(Wire::Bool(*value)),
            _ => Err(wrong_kind(scalar)),
        },
        Kind::Int64Value(value) => fit_integer(*value, scalar),
        Kind::DoubleValue(value) => fit_double(*value, scalar),
        Kind::BytesValue(bytes) => match scalar {
            Some(Scalar::Bytea) => Ok(Wire::Bytea(bytes.clone())),
            _ => Err(wrong_kind(scalar)),
        },
        Kind::ArrayValue(array) => match (scalar::base(type_), scalar::base(type_).kind()) {
            (&Type::INT2_VECTOR | &Type::OID_VECTOR, TypeKind::Array(element)) => {
                literal::vector(array, element, most).map(Wire::Text)
            }
            (_, TypeKind::Array(element)) => literal::array(array, element, most).map(Wire::Text),
            _ => Err(Misfit::because(
                "the type is not an array; pass one value (a nested array is one array with dimensions)",
            )),
        },
        Kind::RowValue(row) => match scalar::base(type_).kind() {
            TypeKind::Composite(fields) => literal::row(row, fields, most).map(Wire::Text),
            // The server has no way to read one, in text or in binary.
            _ if *type_ == Type::RECORD => {
                Err(Misfit::because("its fields' types are not known; cast it to a named type, as in $1::my_type"))
            }
            _ => Err(Misfit::because("the type is not a composite type")),
        },
    }
}

/// A kind that is never right for the type; says which is.
fn wrong_kind(scalar: Option<Scalar>) -> Misfit {
    let instead = match scalar {
        Some(Scalar::Bool) => "bool_value or text_value",
        Some(Scalar::Int2 | Scalar::Int4 | Scalar::Int8 | Scalar::Uint4 | Scalar::Uint8) => "int64_value or text_value",
        Some(Scalar::Float4 | Scalar::Float8 | Scalar::Numeric) => "double_value, int64_value or text_value",
        Some(Scalar::Bytea) => "bytes_value or text_value",
        Some(_) => "text_value",
        None => "text_value, in PostgreSQL's text form (an array also as array_value, a composite value as row_value)",
    };
    Misfit::Because(format!("pass it as {instead}"))
}

fn fit_integer(value: i64, scalar: Option<Scalar>) -> Result<Wire, Misfit> {
    let range = |least: i64, greatest: i64| Misfit::Because(format!("it is out of range ({least} to {greatest})"));
    match scalar {
        Some(Scalar::Int2) => value.try_into().map(Wire::Int2).map_err(|_| range(i16::MIN.into(), i16::MAX.into())),
        Some(Scalar::Int4) => value.try_into().map(Wire::Int4).map_err(|_| range(i32::MIN.into(), i32::MAX.into())),
        Some(Scalar::Int8) => Ok(Wire::Int8(value)),
        Some(Scalar::Uint4) => value.try_into().map(Wire::Uint4).map_err(|_| range(0, u32::MAX.into())),
        // Compared as i128, because a cast back to i64 saturates and would find i64::MAX exact.
        Some(Scalar::Float4) if value as f32 as i128 == value.into() => Ok(Wire::Float4(value as f32)),
        Some(Scalar::Float8) if value as f64 as i128 == value.into() => Ok(Wire::Float8(value as f64)),
        Some(Scalar::Float4 | Scalar::Float8) => Err(Misfit::because(
            "the type cannot hold this integer exactly; pass it as double_value to have it rounded",
        )),
        Some(Scalar::Uint8) if value < 0 => Err(Misfit::because("it is negative; beyond int64 pass it as text_value")),
        Some(Scalar::Numeric | Scalar::Uint8) => Ok(Wire::Text(value.to_string())),
        _ => Err(wrong_kind(scalar)),
    }
}

fn fit_double(value: f64, scalar: Option<Scalar>) -> Result<Wire, Misfit> {
    match scalar {
        Some(Scalar::Float8) => Ok(Wire::Float8(value)),
        Some(Scalar::Float4) => {
            let rounded = value as f32;
            // As PostgreSQL's cast of a float8 to float4: rounding is fine, over- and underflow are not.
            if (rounded.is_infinite() && value.is_finite()) || (rounded == 0.0 && value != 0.0) {
                return Err(Misfit::because("it is out of the range of a 4-byte float"));
            }
            Ok(Wire::Float4(rounded))
        }
        Some(Scalar::Numeric) => Ok(Wire::Text(double_text(value))),
        _ => Err(wrong_kind(scalar)),
    }
}

/// The shortest text that reads back as the same double, in a form that PostgreSQL's float8 and numeric take.
fn double_text(value: f64) -> String {
    if value.is_finite() {
        format!("{value:e}")
    } else if value.is_nan() {
        "NaN".to_owned()
    } else if value > 0.0 {
        "Infinity".to_owned()
    } else {
        "-Infinity".to_owned()
    }
}

impl ToSql for Param {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Wire::Null => return Ok(IsNull::Yes),
            Wire::Text(text) => out.put_slice(text.as_bytes()),
            Wire::Bool(value) => out.put_u8((*value).into()),
            Wire::Int2(value) => out.put_i16(*value),
            Wire::Int4(value) => out.put_i32(*value),
            Wire::Int8(value) => out.put_i64(*value),
            Wire::Uint4(value) => out.put_u32(*value),
            Wire::Float4(value) => out.put_f32(*value),
            Wire::Float8(value) => out.put_f64(*value),
            Wire::Bytea(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true // encode() has checked it against the type
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.0 {
            // For a type without a binary input function PostgreSQL refuses the binary format even of a NULL.
            Wire::Null | Wire::Text(_) => Format::Text,
            _ => Format::Binary,
        }
    }

    postgres_types::to_sql_checked!();
}

/// Shows the format only: parameters never get into a log.
impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Wire::Null => "Param(null)",
            Wire::Text(_) => "Param(text)",
            _ => "Param(binary)",
        })
    }
}

#[cfg(test)]
#[path = "../params_tests.rs"]
mod tests;
