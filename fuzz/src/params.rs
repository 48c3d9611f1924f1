//! Parameters: any values for any types either fail with the parameter named, or become bytes that say what the values
//! said. Literals of arrays and rows are read back by a parser of their own.

use bytes::BytesMut;
use postgres_types::{Format, IsNull, Kind as TypeKind, ToSql, Type};
use prost::Message;
use tidegate::{
    codec::{self, CodecError, Param, Value},
    proto::{self, value::Kind},
};

use crate::{literal, memory, types};

/// The most parameters of one input.
const PARAMS_MAX: usize = 8;

/// A line of types, and a `RowValue` whose fields are the parameters.
pub fn check(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    let Ok(values) = proto::RowValue::decode(rest.get(1..).unwrap_or_default()) else { return };
    let types = types::read(&String::from_utf8_lossy(line), PARAMS_MAX);
    // Each level of a literal doubles its quotes, up to a bound.
    let params = memory::bounded(16 << 20, || codec::encode(&values.fields, &types));
    encoded(params, &values.fields, &types);
}

fn encoded(params: Result<Vec<Param>, CodecError>, values: &[Value], types: &[Type]) {
    match params {
        Ok(params) => {
            assert_eq!(params.len(), types.len());
            for ((param, value), type_) in params.iter().zip(values).zip(types) {
                sent(param, value, type_);
            }
        }
        Err(CodecError::ParamCount { expected, given }) => {
            assert_eq!((expected, given), (types.len(), values.len()));
            assert_ne!(expected, given);
        }
        Err(CodecError::UnsetValue { index }) => assert!(has_unset(&values[index - 1])),
        Err(error @ CodecError::ParamDoesNotFit { .. }) => {
            let CodecError::ParamDoesNotFit { index, given, .. } = &error else { return };
            assert!((1..=values.len()).contains(index) && given.ends_with("_value"), "{error}");
            assert_eq!(error.field(), format!("statement.params[{}]", index - 1));
        }
        Err(error) => panic!("an error of results: {error}"),
    }
}

fn has_unset(value: &Value) -> bool {
    match &value.kind {
        None => true,
        Some(Kind::ArrayValue(array)) => array.elements.iter().any(has_unset),
        Some(Kind::RowValue(row)) => row.fields.iter().any(has_unset),
        Some(_) => false,
    }
}

/// What goes into the Bind message for a parameter.
fn sent(param: &Param, value: &Value, type_: &Type) {
    let mut bytes = BytesMut::new();
    let is_null = param.to_sql_checked(type_, &mut bytes).expect("encode has checked it");
    if matches!(is_null, IsNull::Yes) {
        assert!(matches!(value.kind, Some(Kind::NullValue(_))), "{value:?} became NULL");
        return assert!(bytes.is_empty());
    }
    match param.encode_format(type_) {
        Format::Text => {
            let text = std::str::from_utf8(&bytes).expect("a text parameter is UTF-8");
            assert!(!text.contains('\0'), "a text parameter holds a NUL, which PostgreSQL refuses");
            says(text, value, type_);
        }
        Format::Binary => binary(&bytes, value, types::base(type_)),
    }
}

/// PostgreSQL's binary format of the natural kinds.
fn binary(bytes: &[u8], value: &Value, type_: &Type) {
    let expected = match (value.kind.as_ref().expect("a kind"), type_) {
        (Kind::BoolValue(value), &Type::BOOL) => vec![(*value).into()],
        (Kind::BytesValue(value), &Type::BYTEA) => value.clone(),
        (Kind::DoubleValue(value), &Type::FLOAT8) => value.to_be_bytes().to_vec(),
        (Kind::DoubleValue(value), &Type::FLOAT4) => (*value as f32).to_be_bytes().to_vec(),
        (Kind::Int64Value(value), _) => {
            let read = match type_ {
                &Type::INT2 => i16::from_be_bytes(bytes.try_into().expect("2 bytes")).into(),
                &Type::INT4 => i32::from_be_bytes(bytes.try_into().expect("4 bytes")).into(),
                &Type::OID | &Type::XID | &Type::CID => u32::from_be_bytes(bytes.try_into().expect("4 bytes")).into(),
                &Type::INT8 => i64::from_be_bytes(bytes.try_into().expect("8 bytes")).into(),
                &Type::FLOAT4 => f32::from_be_bytes(bytes.try_into().expect("4 bytes")) as i128,
                &Type::FLOAT8 => f64::from_be_bytes(bytes.try_into().expect("8 bytes")) as i128,
                _ => panic!("an integer in binary for {type_}"),
            };
            return assert_eq!(read, i128::from(*value), "{type_}");
        }
        (kind, _) => panic!("{kind:?} in binary for {type_}"),
    };
    assert_eq!(bytes, expected, "{type_}");
}

/// A text against the value that it was made of.
fn says(text: &str, value: &Value, type_: &Type) {
    let type_ = types::base(type_);
    match value.kind.as_ref().expect("a kind") {
        Kind::NullValue(_) => panic!("NULL became {text:?}"),
        Kind::TextValue(value) => assert_eq!(text, value),
        Kind::BoolValue(value) => assert_eq!(text, if *value { "t" } else { "f" }),
        Kind::Int64Value(value) => match *type_ {
            Type::FLOAT4 | Type::FLOAT8 => assert_eq!(text.parse::<f64>().expect("a number") as i128, (*value).into()),
            _ => assert_eq!(text.parse(), Ok(*value)),
        },
        Kind::DoubleValue(value) => {
            let read: f64 = text.parse().expect("a number");
            // A float4's text is the shortest that reads back as the same float4.
            let (read, value) = match *type_ {
                Type::FLOAT4 => ((read as f32).into(), (*value as f32).into()),
                _ => (read, *value),
            };
            assert!(read == value || (read.is_nan() && value.is_nan()), "{value} became {text}");
        }
        Kind::BytesValue(value) => {
            let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, format!("\\x{digits}"));
        }
        Kind::ArrayValue(value) => says_array(text, value, type_),
        Kind::RowValue(value) => says_row(text, value, type_),
    }
}

fn says_array(text: &str, value: &proto::ArrayValue, type_: &Type) {
    let TypeKind::Array(element) = type_.kind() else { panic!("an array for {type_}") };
    if matches!(*type_, Type::INT2_VECTOR | Type::OID_VECTOR) {
        let elements: Vec<_> = text.split_ascii_whitespace().collect();
        // A text element may hold blanks, and is the server's to judge.
        if value.elements.iter().all(|element| matches!(element.kind, Some(Kind::Int64Value(_)))) {
            assert_eq!(elements.len(), value.elements.len());
            elements.iter().zip(&value.elements).for_each(|(text, value)| says(text, value, element));
        }
        return;
    }
    let delimiter = if *types::base(element) == Type::BOX { ';' } else { ',' };
    let array = literal::array(text, delimiter).unwrap_or_else(|| panic!("not an array literal: {text}"));
    if !value.elements.is_empty() {
        let given = match value.dimensions.is_empty() {
            true => vec![value.elements.len()],
            false => value.dimensions.iter().map(|length| usize::try_from(*length).expect("a length")).collect(),
        };
        assert_eq!(array.lengths, given, "{text}");
        let bounds = if value.lower_bounds.is_empty() { vec![1; given.len()] } else { value.lower_bounds.clone() };
        assert_eq!(array.lower_bounds, bounds.into_iter().map(i64::from).collect::<Vec<_>>(), "{text}");
    }
    parts(&array.elements, &value.elements, |_| element, text);
}

fn says_row(text: &str, value: &proto::RowValue, type_: &Type) {
    let TypeKind::Composite(fields) = type_.kind() else { panic!("a row for {type_}") };
    if fields.is_empty() {
        return assert_eq!(text, "()");
    }
    let row = literal::row(text).unwrap_or_else(|| panic!("not a row literal: {text}"));
    parts(&row, &value.fields, |at| fields[at].type_(), text);
}

fn parts<'a>(read: &[Option<String>], given: &[Value], type_of: impl Fn(usize) -> &'a Type, text: &str) {
    assert_eq!(read.len(), given.len(), "{text}");
    for (at, (part, value)) in read.iter().zip(given).enumerate() {
        match part {
            Some(part) => says(part, value, type_of(at)),
            None => assert!(matches!(value.kind, Some(Kind::NullValue(_))), "{value:?} became NULL in {text}"),
        }
    }
}
