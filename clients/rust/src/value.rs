//! SQL values: owned ones as parameters and in nested data, borrowed ones in rows. The wire's form stays in here.

use crate::{error::Error, proto};

/// A parameter, or an element of nested data.
///
/// A type without a variant of its own (numeric, uuid, timestamps, json, …) travels as [`Value::Text`], in PostgreSQL's
/// text form; as a parameter, text is accepted for every type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A smallint, integer or bigint.
    Int64(i64),
    /// A real or double precision.
    Double(f64),
    /// Text, or any other type in PostgreSQL's text form.
    Text(String),
    /// A bytea.
    Bytes(Vec<u8>),
    /// An array.
    Array(Array),
    /// A composite value. In results only: as a parameter it is refused with `UNIMPLEMENTED`.
    Row(Vec<Value>),
}

/// A PostgreSQL array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// The elements of all dimensions; the last dimension varies fastest.
    pub elements: Vec<Value>,
    /// The length of each dimension. Empty: one dimension.
    pub dimensions: Vec<i32>,
    /// The index of each dimension's first element. Empty: 1 each.
    pub lower_bounds: Vec<i32>,
}

/// A value of a result, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A smallint, integer or bigint.
    Int64(i64),
    /// A real or double precision.
    Double(f64),
    /// Text, or any other type in PostgreSQL's text form.
    Text(&'a str),
    /// A bytea.
    Bytes(&'a [u8]),
    /// PostgreSQL's binary form of a type that the broker does not know.
    Raw(&'a [u8]),
    /// An array or a composite value.
    Nested(&'a Value),
}

/// Parameters of a statement: `params![1, "x", None::<i64>]`; each element is anything that converts into [`Value`].
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        [$($crate::Value::from($value)),*]
    };
}

macro_rules! value_from {
    ($($from:ty => |$it:ident| $value:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($it: $from) -> Self {
                $value
            }
        })*
    };
}

value_from! {
    bool => |it| Value::Bool(it);
    i16 => |it| Value::Int64(it.into());
    i32 => |it| Value::Int64(it.into());
    i64 => |it| Value::Int64(it);
    u32 => |it| Value::Int64(it.into());
    f32 => |it| Value::Double(it.into());
    f64 => |it| Value::Double(it);
    &str => |it| Value::Text(it.to_owned());
    &String => |it| Value::Text(it.clone());
    String => |it| Value::Text(it);
    &[u8] => |it| Value::Bytes(it.to_vec());
    Vec<u8> => |it| Value::Bytes(it);
    Array => |it| Value::Array(it);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(it: Option<T>) -> Self {
        it.map_or(Value::Null, Into::into)
    }
}

impl Value {
    /// A one-dimensional array. (Not `From<Vec<T>>`, since `Vec<u8>` is a bytea.)
    pub fn array<T: Into<Value>>(elements: impl IntoIterator<Item = T>) -> Self {
        Value::Array(Array { elements: elements.into_iter().map(Into::into).collect(), ..Array::default() })
    }

    pub(crate) fn into_proto(self) -> proto::Value {
        use proto::value::Kind;
        let kind = match self {
            Value::Null => Kind::NullValue(proto::NullValue::Unspecified.into()),
            Value::Bool(it) => Kind::BoolValue(it),
            Value::Int64(it) => Kind::Int64Value(it),
            Value::Double(it) => Kind::DoubleValue(it),
            Value::Text(it) => Kind::TextValue(it),
            Value::Bytes(it) => Kind::BytesValue(it),
            Value::Array(it) => Kind::ArrayValue(proto::ArrayValue {
                elements: it.elements.into_iter().map(Value::into_proto).collect(),
                dimensions: it.dimensions,
                lower_bounds: it.lower_bounds,
            }),
            Value::Row(fields) => {
                Kind::RowValue(proto::RowValue { fields: fields.into_iter().map(Value::into_proto).collect() })
            }
        };
        proto::Value { kind: Some(kind) }
    }

    pub(crate) fn from_proto(value: proto::Value) -> Result<Self, Error> {
        use proto::value::Kind;
        let all = |values: Vec<proto::Value>| values.into_iter().map(Value::from_proto).collect::<Result<Vec<_>, _>>();
        Ok(match value.kind.ok_or(Error::Protocol("a value is unset"))? {
            Kind::NullValue(_) => Value::Null,
            Kind::BoolValue(it) => Value::Bool(it),
            Kind::Int64Value(it) => Value::Int64(it),
            Kind::DoubleValue(it) => Value::Double(it),
            Kind::TextValue(it) => Value::Text(it),
            Kind::BytesValue(it) => Value::Bytes(it),
            Kind::ArrayValue(it) => Value::Array(Array {
                elements: all(it.elements)?,
                dimensions: it.dimensions,
                lower_bounds: it.lower_bounds,
            }),
            Kind::RowValue(it) => Value::Row(all(it.fields)?),
        })
    }
}

impl ValueRef<'_> {
    /// The same value, owned. A raw one becomes [`Value::Bytes`].
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Null => Value::Null,
            ValueRef::Bool(it) => Value::Bool(it),
            ValueRef::Int64(it) => Value::Int64(it),
            ValueRef::Double(it) => Value::Double(it),
            ValueRef::Text(it) => Value::Text(it.to_owned()),
            ValueRef::Bytes(it) | ValueRef::Raw(it) => Value::Bytes(it.to_vec()),
            ValueRef::Nested(it) => it.clone(),
        }
    }
}

/// A Rust type that a result's value converts into. NULL converts into `Option`, [`Value`] and [`ValueRef`] only.
pub trait FromValue<'a>: Sized {
    /// The value as this type, or nothing if it is of another type or out of range.
    fn from_value(value: ValueRef<'a>) -> Option<Self>;
}

macro_rules! from_value {
    ($($to:ty: $pattern:pat => $value:expr;)*) => {
        $(impl<'a> FromValue<'a> for $to {
            fn from_value(value: ValueRef<'a>) -> Option<Self> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
            }
        })*
    };
}

from_value! {
    bool: ValueRef::Bool(it) => Some(it);
    i16: ValueRef::Int64(it) => it.try_into().ok();
    i32: ValueRef::Int64(it) => it.try_into().ok();
    i64: ValueRef::Int64(it) => Some(it);
    u32: ValueRef::Int64(it) => it.try_into().ok();
    u64: ValueRef::Int64(it) => it.try_into().ok();
    f64: ValueRef::Double(it) => Some(it);
    &'a str: ValueRef::Text(it) => Some(it);
    String: ValueRef::Text(it) => Some(it.to_owned());
    &'a [u8]: ValueRef::Bytes(it) | ValueRef::Raw(it) => Some(it);
    Vec<u8>: ValueRef::Bytes(it) | ValueRef::Raw(it) => Some(it.to_vec());
    &'a Array: ValueRef::Nested(Value::Array(it)) => Some(it);
}

impl<'a> FromValue<'a> for ValueRef<'a> {
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        Some(value)
    }
}

impl<'a> FromValue<'a> for Value {
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        Some(value.to_value())
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Option<T> {
    fn from_value(value: ValueRef<'a>) -> Option<Self> {
        match value {
            ValueRef::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
