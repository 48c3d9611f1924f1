//! Arrays and composite values: their bytes, their bounds, and what is wrong with them.

use postgres_types::{Field, Kind as TypeKind, Type};
use proptest::prelude::*;
use tidegate_client::proto::{ArrayValue, RowValue, Value, value::Kind};

use super::CodecError;
use crate::codec::test_support::BatchBuilder;

fn composite(fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, type_)| Field::new((*name).to_owned(), type_.clone())).collect();
    Type::new("pair".into(), 90_001, TypeKind::Composite(fields), "public".into())
}

fn array_of(element: Type) -> Type {
    Type::new("_x".into(), 90_002, TypeKind::Array(element), "public".into())
}

/// As `array_send` writes an array of one dimension.
fn array_bytes(oid: u32, elements: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut raw = [1_i32, 0].map(i32::to_be_bytes).concat();
    raw.extend(oid.to_be_bytes());
    raw.extend([i32::try_from(elements.len()).unwrap(), 1].map(i32::to_be_bytes).concat());
    elements.iter().for_each(|element| sized(element.as_deref(), &mut raw));
    raw
}

/// As `record_send` writes a row.
fn row_bytes(fields: &[(u32, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut raw = i32::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for (oid, field) in fields {
        raw.extend(oid.to_be_bytes());
        sized(field.as_deref(), &mut raw);
    }
    raw
}

fn sized(value: Option<&[u8]>, raw: &mut Vec<u8>) {
    let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
    raw.extend(length.to_be_bytes());
    raw.extend(value.unwrap_or_default());
}

fn decode(type_: &Type, raw: &[u8]) -> Result<Value, CodecError> {
    let mut batch = BatchBuilder::new(std::slice::from_ref(type_))?;
    batch.push_row([Some(raw)].into_iter())?;
    // A NULL behind it keeps an entry that is unset.
    batch.push_row([None].into_iter())?;
    let column = batch.take().columns.remove(0);
    assert_eq!((column.nested.len(), &column.nested[1], column.nulls), (2, &Value::default(), vec![0b10]));
    Ok(column.nested[0].clone())
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn row(fields: Vec<Value>) -> Value {
    value(Kind::RowValue(RowValue { fields }))
}

fn null() -> Value {
    value(Kind::NullValue(0))
}

fn text(text: &str) -> Value {
    value(Kind::TextValue(text.into()))
}

#[test]
fn rows_in_arrays_in_rows_keep_every_kind() {
    let inner = composite(&[("n", Type::INT4), ("t", Type::TEXT), ("f", Type::FLOAT8)]);
    let outer = composite(&[("b", Type::BOOL), ("list", array_of(inner)), ("raw", Type::BYTEA), ("d", Type::DATE)]);
    let pair = row_bytes(&[
        (23, Some((-3_i32).to_be_bytes().to_vec())),
        (25, Some(vec![b'x'; 200])),
        (701, Some(0.5_f64.to_be_bytes().to_vec())),
    ]);
    let list = array_bytes(90_001, &[Some(pair.clone()), None, Some(pair)]);
    let raw = row_bytes(&[(16, Some(vec![1])), (90_002, Some(list)), (17, Some(vec![0, 255])), (1082, None)]);
    let want_pair = row(vec![value(Kind::Int64Value(-3)), text(&"x".repeat(200)), value(Kind::DoubleValue(0.5))]);
    let elements = vec![want_pair.clone(), null(), want_pair];
    let array = value(Kind::ArrayValue(ArrayValue { elements, dimensions: vec![3], lower_bounds: vec![1] }));
    let want = row(vec![value(Kind::BoolValue(true)), array, value(Kind::BytesValue(vec![0, 255])), null()]);
    assert_eq!(decode(&outer, &raw).unwrap(), want);
}

#[test]
fn an_anonymous_record_says_its_types_itself() {
    let inner = row_bytes(&[(25, Some(b"in".to_vec()))]);
    let raw = row_bytes(&[
        (20, Some(7_i64.to_be_bytes().to_vec())),
        (1082, Some(vec![0; 4])),
        (2249, Some(inner)),
        // A type that only the catalogue knows.
        (70_000, Some(vec![1, 2])),
    ]);
    let want = row(vec![
        value(Kind::Int64Value(7)),
        text("2000-01-01"),
        row(vec![text("in")]),
        value(Kind::BytesValue(vec![1, 2])),
    ]);
    assert_eq!(decode(&Type::RECORD, &raw).unwrap(), want);
    assert_eq!(decode(&Type::RECORD, &row_bytes(&[])).unwrap(), row(vec![]));
    let refused = decode(&Type::RECORD, &row_bytes(&[(2205, Some(vec![0; 4]))])).unwrap_err();
    assert!(refused.to_string().contains("a field of the record has a type that is not carried"), "{refused}");
}

#[test]
fn malformed_rows_are_errors_and_claims_cost_nothing() {
    let pair = composite(&[("n", Type::INT4)]);
    let claims = |count: i32| count.to_be_bytes().to_vec();
    let table = [
        (&pair, claims(-1)),
        (&pair, claims(2)),
        (&pair, row_bytes(&[])),
        (&pair, [row_bytes(&[(23, None)]), vec![0]].concat()),
        (&pair, row_bytes(&[(23, Some(vec![0; 3]))])),
        (&Type::RECORD, claims(i32::MAX)),
        (&Type::RECORD, claims(-1)),
        (&Type::RECORD, [claims(1), 23_u32.to_be_bytes().to_vec(), claims(i32::MAX)].concat()),
        (&Type::RECORD, [claims(1), 23_u32.to_be_bytes().to_vec(), claims(-2)].concat()),
        (&Type::RECORD_ARRAY, [claims(1), claims(0), claims(2249), claims(i32::MAX), claims(1)].concat()),
    ];
    for (type_, raw) in table {
        let error = decode(type_, &raw).unwrap_err();
        assert!(matches!(error, CodecError::MalformedCell { .. }), "{raw:?}: {error}");
    }
}

#[test]
fn values_lie_in_one_another_so_deep_and_no_deeper() {
    let nested = |depth| (1..depth).fold(row_bytes(&[]), |inner, _| row_bytes(&[(2249, Some(inner))]));
    decode(&Type::RECORD, &nested(32)).unwrap();
    for depth in [33, 10_000] {
        let error = decode(&Type::RECORD, &nested(depth)).unwrap_err();
        assert!(error.to_string().contains("more than 32 deep"), "{error}");
    }
}

/// Whatever its size, the writing of a nested value ends at the room that there is.
#[test]
fn a_nested_value_grows_no_further_than_its_room() {
    let elements: Vec<_> = (0..100_000_i32).map(|n| Some(n.to_be_bytes().to_vec())).collect();
    let raw = array_bytes(23, &elements);
    let mut batch = BatchBuilder::new(&[Type::INT4_ARRAY]).unwrap();
    let error = batch.0.push_row([Some(raw.as_slice())].into_iter(), 10_000).unwrap_err();
    assert!(
        matches!(error, CodecError::RowTooLarge { at_least: true, room: 10_000, bytes } if bytes > 10_000),
        "{error}"
    );
    assert!(batch.0.capacity() <= 20_000, "{} bytes set aside", batch.0.capacity());
    batch.push_row([Some(raw.as_slice())].into_iter()).unwrap();
    assert_eq!(batch.take().columns[0].nested.len(), 1);
}

proptest! {
    /// To the byte what generated messages make of them ([`BatchBuilder::take`] compares), at every length of a length.
    #[test]
    fn arrays_and_rows_come_back(
        texts in prop::collection::vec(any::<Option<String>>(), 0..30),
        long in 0..20_000_usize,
        numbers in prop::collection::vec(any::<i64>(), 0..30),
    ) {
        let both = composite(&[("texts", Type::TEXT_ARRAY), ("numbers", Type::INT8_ARRAY), ("long", Type::BYTEA)]);
        let text_bytes: Vec<_> = texts.iter().map(|text| text.as_ref().map(|text| text.clone().into_bytes())).collect();
        let number_bytes: Vec<_> = numbers.iter().map(|number| Some(number.to_be_bytes().to_vec())).collect();
        let fields = [
            (1009, Some(array_bytes(25, &text_bytes))),
            (1016, Some(array_bytes(20, &number_bytes))),
            (17, Some(vec![7; long])),
        ];
        let Some(Kind::RowValue(row)) = decode(&both, &row_bytes(&fields)).unwrap().kind else { panic!("no row") };
        let elements = |value: &Value| match &value.kind {
            Some(Kind::ArrayValue(array)) => array.elements.clone(),
            other => panic!("no array: {other:?}"),
        };
        let want: Vec<_> = texts.iter().map(|given| given.as_deref().map_or(null(), text)).collect();
        prop_assert_eq!(elements(&row.fields[0]), want);
        let want: Vec<_> = numbers.iter().map(|number| value(Kind::Int64Value(*number))).collect();
        prop_assert_eq!(elements(&row.fields[1]), want);
        prop_assert_eq!(&row.fields[2].kind, &Some(Kind::BytesValue(vec![7; long])));
    }

    #[test]
    fn no_bytes_panic(raw in prop::collection::vec(any::<u8>(), 0..80), zeros in 0..20_usize) {
        let mut sparse = raw.clone();
        sparse.iter_mut().take(zeros).for_each(|byte| *byte &= 1);
        let pair = composite(&[("n", Type::INT4), ("r", Type::RECORD)]);
        for type_ in [Type::RECORD, Type::RECORD_ARRAY, pair.clone(), array_of(pair)] {
            for raw in [&raw, &sparse] {
                let mut batch = BatchBuilder::new(std::slice::from_ref(&type_)).unwrap();
                let _ = batch.push_row([Some(raw.as_slice())].into_iter());
                batch.take();
            }
        }
    }
}
