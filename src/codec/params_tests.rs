//! Which values fit which types, what is sent for them, and what the errors say.

use bytes::BytesMut;
use postgres_types::{Field, Format, IsNull, Kind as TypeKind, ToSql, Type};
use proptest::prelude::*;

use super::{CodecError, Param, encode};
use crate::{
    codec::test_support::BatchBuilder,
    proto::{ArrayValue, RowValue, Value, value::Kind},
};

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::TextValue(text.to_owned()))
}

fn array(elements: Vec<Value>, dimensions: &[i32], lower_bounds: &[i32]) -> Value {
    let (dimensions, lower_bounds) = (dimensions.to_vec(), lower_bounds.to_vec());
    value(Kind::ArrayValue(ArrayValue { elements, dimensions, lower_bounds }))
}

fn ints(numbers: std::ops::Range<i64>) -> Vec<Value> {
    numbers.map(|number| value(Kind::Int64Value(number))).collect()
}

fn one(given: Value, type_: &Type) -> Result<Param, CodecError> {
    Ok(encode(&[given], std::slice::from_ref(type_))?.remove(0))
}

/// What is bound: `None` for NULL; the format, and the bytes.
fn wire(param: &Param, type_: &Type) -> Option<(bool, Vec<u8>)> {
    let mut out = BytesMut::new();
    let binary = matches!(param.encode_format(type_), Format::Binary);
    match param.to_sql_checked(type_, &mut out).unwrap() {
        IsNull::Yes => None,
        IsNull::No => Some((binary, out.to_vec())),
    }
}

fn sent_text(given: Value, type_: &Type) -> String {
    let (binary, bytes) = wire(&one(given, type_).unwrap(), type_).unwrap();
    assert!(!binary);
    String::from_utf8(bytes).unwrap()
}

fn domain(base: Type) -> Type {
    Type::new("d".into(), 90_000, TypeKind::Domain(base), "public".into())
}

#[test]
fn natural_kinds_are_sent_in_binary() {
    let table: &[(Kind, Type, &[u8])] = &[
        (Kind::BoolValue(true), Type::BOOL, &[1]),
        (Kind::Int64Value(-2), Type::INT2, &[0xFF, 0xFE]),
        (Kind::Int64Value(-2), Type::INT4, &[0xFF, 0xFF, 0xFF, 0xFE]),
        (Kind::Int64Value(-2), domain(domain(Type::INT4)), &[0xFF, 0xFF, 0xFF, 0xFE]),
        (Kind::Int64Value(i64::MAX), Type::INT8, &[0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
        (Kind::Int64Value(4_294_967_295), Type::OID, &[0xFF, 0xFF, 0xFF, 0xFF]),
        (Kind::Int64Value(16_777_216), Type::FLOAT4, &[0x4B, 0x80, 0, 0]),
        (Kind::Int64Value(1), Type::FLOAT8, &[0x3F, 0xF0, 0, 0, 0, 0, 0, 0]),
        (Kind::DoubleValue(0.1), Type::FLOAT4, &[0x3D, 0xCC, 0xCC, 0xCD]),
        (Kind::DoubleValue(f64::NEG_INFINITY), Type::FLOAT4, &[0xFF, 0x80, 0, 0]),
        (Kind::DoubleValue(-0.0), Type::FLOAT8, &[0x80, 0, 0, 0, 0, 0, 0, 0]),
        (Kind::BytesValue(vec![0, 255]), Type::BYTEA, &[0, 255]),
    ];
    for (kind, type_, want) in table {
        let param = one(value(kind.clone()), type_).unwrap();
        assert_eq!(wire(&param, type_), Some((true, want.to_vec())), "{kind:?} {type_}");
    }
}

#[test]
fn text_is_accepted_for_every_type() {
    let mood = Type::new("mood".into(), 90_001, TypeKind::Enum(vec!["sad".into()]), "public".into());
    let types =
        [Type::TEXT, Type::NUMERIC, Type::JSONB, Type::POINT, Type::INT4_ARRAY, Type::INT2_VECTOR, Type::MONEY, mood];
    for type_ in types {
        assert_eq!(sent_text(text("as it is"), &type_), "as it is");
    }
    assert_eq!(sent_text(text(" 7 "), &Type::INT4), " 7 ");
}

#[test]
fn numeric_takes_integers_and_doubles() {
    for (kind, want) in [
        (Kind::Int64Value(i64::MIN), "-9223372036854775808"),
        (Kind::DoubleValue(0.1), "1e-1"),
        (Kind::DoubleValue(-1e300), "-1e300"),
        (Kind::DoubleValue(f64::NAN), "NaN"),
        (Kind::DoubleValue(f64::INFINITY), "Infinity"),
    ] {
        assert_eq!(sent_text(value(kind), &Type::NUMERIC), want);
    }
}

#[test]
fn null_is_null_for_every_type() {
    for type_ in [Type::INT4, Type::TEXT, Type::INT4_ARRAY, Type::POINT, Type::MONEY] {
        assert_eq!(wire(&one(value(Kind::NullValue(0)), &type_).unwrap(), &type_), None);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let table = [
        (Kind::Int64Value(32_768), Type::INT2),
        (Kind::Int64Value(-2_147_483_649), Type::INT4),
        (Kind::Int64Value(-1), Type::OID),
        (Kind::Int64Value(4_294_967_296), Type::XID),
        (Kind::Int64Value(16_777_217), Type::FLOAT4),
        (Kind::Int64Value(i64::MAX), Type::FLOAT8),
        (Kind::Int64Value(i64::MAX), Type::FLOAT4),
        (Kind::Int64Value(1), Type::TEXT),
        (Kind::Int64Value(1), Type::BOOL),
        (Kind::Int64Value(1), Type::MONEY),
        (Kind::Int64Value(1), Type::INT4_ARRAY),
        (Kind::BoolValue(true), Type::TEXT),
        (Kind::BoolValue(true), Type::INT4),
        (Kind::DoubleValue(1.0), Type::INT4),
        (Kind::DoubleValue(1.0), Type::TEXT),
        (Kind::DoubleValue(1e39), Type::FLOAT4),
        (Kind::DoubleValue(1e-60), Type::FLOAT4),
        (Kind::BytesValue(vec![1]), Type::TEXT),
        (Kind::BytesValue(vec![1]), Type::UUID),
        (Kind::TextValue("x".into()), Type::INT4),
        (Kind::TextValue("x".into()), domain(Type::UUID)),
        (Kind::TextValue("\0".into()), Type::TEXT),
        (Kind::ArrayValue(ArrayValue::default()), Type::TEXT),
    ];
    for (kind, type_) in table {
        let error = one(value(kind.clone()), &type_).unwrap_err();
        assert!(matches!(error, CodecError::ParamDoesNotFit { index: 1, .. }), "{kind:?} {type_}: {error}");
    }
}

#[test]
fn errors_name_the_parameter_both_types_and_a_way_out() {
    let types = [Type::INT4, Type::TEXT];
    let error = encode(&[value(Kind::Int64Value(1)), value(Kind::Int64Value(1))], &types).unwrap_err();
    assert_eq!(error.to_string(), "$2 has the PostgreSQL type text and is given as int64_value: pass it as text_value");
    assert_eq!(error.field(), "statement.params[1]");

    let error = one(array(vec![text("1"), text("x")], &[], &[]), &Type::INT4_ARRAY).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$1 has the PostgreSQL type int4[] and is given as array_value: \
         elements[1], a text_value for int4: the text is not an integer"
    );

    let error = encode(&[], &types).unwrap_err();
    assert_eq!(error, CodecError::ParamCount { expected: 2, given: 0 });
    assert_eq!(error.field(), "statement.params");
}

#[test]
fn an_unset_value_is_not_null() {
    let unset = Value::default();
    assert_eq!(one(unset.clone(), &Type::INT4), Err(CodecError::UnsetValue { index: 1 }));
    let nested = array(vec![value(Kind::NullValue(0)), unset], &[], &[]);
    let error = one(nested, &Type::INT4_ARRAY).unwrap_err();
    assert_eq!(error, CodecError::UnsetValue { index: 1 });
    assert_eq!(error.field(), "statement.params[0]");
}

fn row(fields: Vec<Value>) -> Value {
    value(Kind::RowValue(RowValue { fields }))
}

fn composite(types: &[Type]) -> Type {
    let field = |(at, type_): (usize, &Type)| Field::new(format!("f{at}"), type_.clone());
    let fields = types.iter().enumerate().map(field).collect();
    Type::new("pair".into(), 90_002, TypeKind::Composite(fields), "public".into())
}

fn array_of(element: &Type) -> Type {
    Type::new(format!("_{}", element.name()), 90_003, TypeKind::Array(element.clone()), "public".into())
}

#[test]
fn row_literals() {
    let null = || value(Kind::NullValue(0));
    let pair = composite(&[Type::INT4, Type::TEXT]);
    let table = [
        (row(vec![value(Kind::Int64Value(1)), text("a b")]), pair.clone(), r#"(1,"a b")"#),
        (row(vec![null(), null()]), pair.clone(), "(,)"),
        (row(vec![null(), text("")]), domain(pair.clone()), r#"(,"")"#),
        (row(vec![null(), text("\"q\\,()")]), pair.clone(), r#"(,"""q\\,()")"#),
        (row(vec![]), composite(&[]), "()"),
        (
            row(vec![value(Kind::BytesValue(vec![0xDE])), value(Kind::BoolValue(true)), value(Kind::DoubleValue(0.5))]),
            composite(&[Type::BYTEA, Type::BOOL, Type::FLOAT8]),
            r#"("\\xde",t,5e-1)"#,
        ),
        (
            row(vec![row(vec![null(), text("x")]), array(ints(1..3), &[], &[])]),
            composite(&[pair.clone(), Type::INT4_ARRAY]),
            r#"("(,""x"")","{1,2}")"#,
        ),
        (array(vec![row(vec![null(), text("a\"")]), null()], &[], &[]), array_of(&pair), r#"{"(,\"a\"\"\")",NULL}"#),
        (array(ints(1..4), &[3], &[0]), Type::INT2_VECTOR, "1 2 3"),
        (array(vec![], &[], &[]), Type::OID_VECTOR, ""),
        (value(Kind::Int64Value(7)), Type::XID8, "7"),
    ];
    for (given, type_, want) in table {
        assert_eq!(sent_text(given, &type_), want, "{type_}");
    }
}

#[test]
fn rows_that_do_not_fit() {
    let pair = composite(&[Type::INT4, Type::TEXT]);
    let why = |given: Value, type_: &Type| one(given, type_).unwrap_err().to_string();
    let nested = row(vec![row(vec![text("x"), text("y")])]);
    let said = why(nested, &composite(std::slice::from_ref(&pair)));
    let want = "$1 has the PostgreSQL type pair and is given as row_value: fields[0] (\"f0\"), a row_value for pair: \
                fields[0] (\"f0\"), a text_value for int4: the text is not an integer";
    assert_eq!(said, want);
    assert!(why(row(ints(1..2)), &pair).contains("it has 1 fields, but the type has 2"));
    assert!(why(row(vec![]), &Type::TEXT).contains("not a composite type"));
    assert!(why(row(vec![]), &Type::RECORD).contains("cast it to a named type"));
    assert!(why(array(vec![value(Kind::NullValue(0))], &[], &[]), &Type::INT2_VECTOR).contains("NULL"));
    assert!(why(array(ints(1..3), &[2], &[1]), &Type::INT2_VECTOR).contains("lower bound is 0"));
    assert!(why(value(Kind::Int64Value(-1)), &Type::XID8).contains("negative"));
    let unset = one(row(vec![Value::default(), text("")]), &pair).unwrap_err();
    assert_eq!(unset, CodecError::UnsetValue { index: 1 });
}

#[test]
fn array_literals() {
    let kinds = |kinds: Vec<Kind>| kinds.into_iter().map(value).collect::<Vec<_>>();
    let table = [
        (array(vec![], &[], &[]), Type::INT4_ARRAY, "{}"),
        (array(vec![], &[0, 2], &[]), Type::INT4_ARRAY, "{}"),
        (array(ints(1..4), &[], &[]), Type::INT4_ARRAY, "{1,2,3}"),
        (array(ints(1..4), &[3], &[1]), Type::INT8_ARRAY, "{1,2,3}"),
        (array(ints(1..4), &[], &[0]), Type::INT2_ARRAY, "[0:2]={1,2,3}"),
        (array(ints(1..7), &[2, 3], &[]), Type::INT4_ARRAY, "{{1,2,3},{4,5,6}}"),
        (
            array(ints(1..9), &[2, 2, 2], &[1, -1, 5]),
            Type::INT4_ARRAY,
            "[1:2][-1:0][5:6]={{{1,2},{3,4}},{{5,6},{7,8}}}",
        ),
        (array(ints(1..3), &[1, 2, 1], &[]), Type::INT4_ARRAY, "{{{1},{2}}}"),
        (
            array(vec![text(""), text("NULL"), text("a\"b\\c{,} é"), value(Kind::NullValue(0))], &[], &[]),
            Type::TEXT_ARRAY,
            r#"{"","NULL","a\"b\\c{,} é",NULL}"#,
        ),
        (array(kinds(vec![Kind::BoolValue(true), Kind::BoolValue(false)]), &[], &[]), Type::BOOL_ARRAY, "{t,f}"),
        (array(kinds(vec![Kind::BytesValue(vec![0xDE, 0xAD])]), &[], &[]), Type::BYTEA_ARRAY, r#"{"\\xdead"}"#),
        (
            array(kinds(vec![Kind::DoubleValue(1.1), Kind::DoubleValue(f64::NAN)]), &[], &[]),
            Type::FLOAT4_ARRAY,
            "{1.1e0,NaN}",
        ),
        (
            array(kinds(vec![Kind::DoubleValue(0.1), Kind::Int64Value(1)]), &[], &[]),
            Type::NUMERIC_ARRAY,
            r#"{"1e-1","1"}"#,
        ),
        (array(kinds(vec![Kind::DoubleValue(f64::NEG_INFINITY)]), &[], &[]), Type::FLOAT8_ARRAY, "{-Infinity}"),
        (
            array(vec![text("(1,2),(3,4)"), text("(1,2),(3,4)")], &[], &[]),
            Type::BOX_ARRAY,
            r#"{"(1,2),(3,4)";"(1,2),(3,4)"}"#,
        ),
        (array(vec![text("$1")], &[], &[]), Type::MONEY_ARRAY, r#"{"$1"}"#),
        (array(ints(1..2), &[], &[]), domain(Type::INT4_ARRAY), "{1}"),
    ];
    for (given, type_, want) in table {
        assert_eq!(sent_text(given, &type_), want, "{type_}");
    }
}

#[test]
fn arrays_that_contradict_themselves() {
    for given in [
        array(ints(1..4), &[2], &[]),
        array(ints(1..4), &[2, 2], &[]),
        array(ints(1..4), &[-1, -3], &[]),
        array(ints(1..2), &[1; 7], &[]),
        array(ints(1..4), &[i32::MAX; 6], &[]),
        array(vec![], &[1], &[]),
        array(ints(1..4), &[3], &[1, 1]),
        array(ints(1..4), &[], &[1, 1]),
        array(ints(1..4), &[3], &[i32::MAX - 1]),
        array(vec![array(ints(1..2), &[], &[])], &[], &[]),
    ] {
        assert!(matches!(one(given, &Type::INT4_ARRAY), Err(CodecError::ParamDoesNotFit { .. })));
    }
}

#[test]
fn debug_shows_no_value() {
    let param = one(text("secret"), &Type::TEXT).unwrap();
    assert_eq!(format!("{param:?}"), "Param(text)");
}

/// Reads an array literal of quoted or NULL elements, whatever its braces: a test's counterpart of `array_in`.
fn elements_of(literal: &str) -> Vec<Option<String>> {
    let mut elements = Vec::new();
    let mut rest = literal.chars();
    while let Some(character) = rest.next() {
        match character {
            'N' => elements.push(None),
            '"' => {
                let mut element = String::new();
                loop {
                    match rest.next().unwrap() {
                        '"' => break,
                        '\\' => element.push(rest.next().unwrap()),
                        other => element.push(other),
                    }
                }
                elements.push(Some(element));
            }
            _ => {}
        }
    }
    elements
}

/// Reads a composite literal of quoted or missing fields: a test's counterpart of `record_in`.
fn fields_of(literal: &str) -> Vec<Option<String>> {
    let mut fields = vec![None];
    let mut rest = literal.strip_prefix('(').unwrap().strip_suffix(')').unwrap().chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            ',' => fields.push(None),
            '"' => {
                let mut field = String::new();
                loop {
                    match rest.next().unwrap() {
                        '"' if rest.peek() == Some(&'"') => field.push(rest.next().unwrap()),
                        '"' => break,
                        '\\' => field.push(rest.next().unwrap()),
                        other => field.push(other),
                    }
                }
                *fields.last_mut().unwrap() = Some(field);
            }
            other => panic!("{other:?} outside quotes"),
        }
    }
    fields
}

proptest! {
    /// What is bound in binary is what a column of the type would hold.
    #[test]
    fn natural_kinds_round_trip(integer in any::<i64>(), double in any::<f64>(), bytes in any::<Vec<u8>>(), flag in any::<bool>()) {
        let types = [Type::INT8, Type::FLOAT8, Type::BYTEA, Type::BOOL];
        let values = [Kind::Int64Value(integer), Kind::DoubleValue(double), Kind::BytesValue(bytes.clone()), Kind::BoolValue(flag)];
        let params = encode(&values.map(value), &types).unwrap();
        let cells: Vec<_> = params.iter().zip(&types).map(|(param, type_)| wire(param, type_).unwrap().1).collect();
        let mut batch = BatchBuilder::new(&types).unwrap();
        batch.push_row(cells.iter().map(|cell| Some(cell.as_slice()))).unwrap();
        let columns = batch.take().columns;
        prop_assert_eq!(columns[0].int64s[0], integer);
        prop_assert_eq!(columns[1].doubles[0].to_bits(), double.to_bits());
        prop_assert_eq!(&columns[2].blobs[0], &bytes);
        prop_assert_eq!(columns[3].bools[0], flag);
    }

    #[test]
    fn array_elements_survive_quoting(elements in prop::collection::vec(any::<Option<String>>(), 1..12), rows in 1..4_usize) {
        let elements: Vec<_> = elements.into_iter().map(|element| element.map(|text| text.replace('\0', ""))).collect();
        let whole = elements.len() - elements.len() % rows;
        prop_assume!(whole > 0);
        let dimensions = [i32::try_from(rows).unwrap(), i32::try_from(whole / rows).unwrap()];
        let values = elements[..whole].iter().map(|element| element.as_deref().map_or(value(Kind::NullValue(0)), text));
        let literal = sent_text(array(values.collect(), &dimensions, &[]), &Type::TEXT_ARRAY);
        prop_assert_eq!(elements_of(&literal), &elements[..whole]);
    }

    /// Exactness: an integer that is accepted for a float is the float.
    #[test]
    fn integers_become_floats_exactly_or_not_at_all(integer in any::<i64>(), shift in 0..63_u32) {
        let integer = integer >> shift;
        if let Ok(param) = one(value(Kind::Int64Value(integer)), &Type::FLOAT4) {
            let bytes: [u8; 4] = wire(&param, &Type::FLOAT4).unwrap().1.try_into().unwrap();
            prop_assert_eq!(f32::from_be_bytes(bytes) as i128, i128::from(integer));
        }
    }

    /// A literal of rows is read back field by field: quotes and backslashes are doubled, NULL is nothing at all.
    #[test]
    fn fields_survive_quoting(fields in prop::collection::vec(any::<Option<String>>(), 1..8)) {
        let fields: Vec<_> = fields.into_iter().map(|field| field.map(|text| text.replace('\0', ""))).collect();
        let values = fields.iter().map(|field| field.as_deref().map_or(value(Kind::NullValue(0)), text)).collect();
        let literal = sent_text(row(values), &composite(&vec![Type::TEXT; fields.len()]));
        prop_assert_eq!(fields_of(&literal), fields);
    }
}
