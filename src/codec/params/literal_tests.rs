//! Arrays and rows within each other: what is written is what PostgreSQL reads, by the strict parser of the fuzz targets.

use postgres_types::{Field, Kind as TypeKind, Type};
use proptest::prelude::*;

use super::{Wire, fit};
use crate::{
    codec::{CodecError, encode},
    proto::{ArrayValue, NullValue, RowValue, Value, value::Kind},
};

#[allow(unreachable_pub, reason = "the fuzz targets have it, too")]
#[path = "../../../fuzz/src/literal.rs"]
mod literal;

type Text = Option<String>;

fn composite(types: &[Type]) -> Type {
    let fields = types.iter().map(|type_| Field::new("f".to_owned(), type_.clone())).collect();
    Type::new("r".to_owned(), 90_000, TypeKind::Composite(fields), "public".to_owned())
}

fn array_of(element: Type) -> Type {
    Type::new("_r".to_owned(), 90_001, TypeKind::Array(element), "public".to_owned())
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &Text) -> Value {
    value(text.clone().map_or(Kind::NullValue(NullValue::Unspecified.into()), Kind::TextValue))
}

fn row(fields: Vec<Value>) -> Value {
    value(Kind::RowValue(RowValue { fields }))
}

fn array(elements: Vec<Value>, lower_bound: i32) -> Value {
    let lower_bounds = if elements.is_empty() { Vec::new() } else { vec![lower_bound] };
    let dimensions = i32::try_from(elements.len()).ok().filter(|length| *length > 0).into_iter().collect();
    value(Kind::ArrayValue(ArrayValue { elements, dimensions, lower_bounds }))
}

fn literal_of(value: &Value, type_: &Type) -> String {
    match fit(value, type_, usize::MAX) {
        Ok(Wire::Text(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

/// Much of what has a meaning in a literal.
fn awkward() -> impl Strategy<Value = Text> {
    prop_oneof![
        Just(None),
        "[\"\\\\{}(),;= a\t\n'é]{0,8}".prop_map(Some),
        Just(Some("NULL".to_owned())),
        Just(Some("[0:1]={a}".to_owned())),
    ]
}

fn refusal(value: Value, type_: Type) -> String {
    encode(&[value], &[type_]).unwrap_err().to_string()
}

/// A value 30 deep around a quote would be a gigabyte.
#[test]
fn literals_grow_no_further_than_their_bound() {
    let nested = |depth: usize| {
        let inner = (text(&Some("\"".to_owned())), Type::TEXT);
        (0..depth).fold(inner, |(value, type_), _| (row(vec![value]), composite(&[type_])))
    };
    let (value, type_) = nested(10);
    assert!(encode(&[value], &[type_]).is_ok());
    let (value, type_) = nested(30);
    for (value, type_) in [(value.clone(), type_.clone()), (array(vec![value], 1), array_of(type_))] {
        let error = refusal(value, type_);
        assert!(error.contains("too long") && error.contains("pass it as text_value"), "{error}");
    }
    // All of a statement's together, too: each of these is a quarter of what there is.
    let (value, type_) = nested(17);
    let sent = |count: usize| encode(&vec![value.clone(); count], &vec![type_.clone(); count]);
    assert!(sent(1).is_ok());
    assert!(matches!(sent(12), Err(CodecError::ParamDoesNotFit { index: 2..12, .. })));
    assert!(refusal(array(vec![value.clone(); 12], 1), array_of(type_)).contains("too long"));
    // What is large as it is given is no concern.
    let large = array(vec![text(&Some("\"".repeat(1 << 20)))], 1);
    assert!(encode(&[large], &[Type::TEXT_ARRAY]).is_ok());
}

proptest! {
    /// A row of a text, texts, and rows of two texts.
    #[test]
    fn arrays_and_rows_within_each_other_read_back(
        single in awkward(),
        texts in prop::collection::vec(awkward(), 0..6),
        pairs in prop::collection::vec((awkward(), awkward()), 0..4),
        lower_bound in -3..4_i32,
    ) {
        let pair = composite(&[Type::TEXT, Type::TEXT]);
        let whole = composite(&[Type::TEXT, Type::TEXT_ARRAY, array_of(pair)]);
        let rows = pairs.iter().map(|(left, right)| row(vec![text(left), text(right)])).collect();
        let given = row(vec![text(&single), array(texts.iter().map(text).collect(), lower_bound), array(rows, 1)]);

        let written = literal_of(&given, &whole);
        let fields = literal::row(&written);
        let fields = fields.ok_or_else(|| TestCaseError::fail(format!("not a row: {written}")))?;
        prop_assert_eq!(&fields[0], &single);
        let read = |at: usize| fields[at].as_deref().and_then(|field| literal::array(field, ','));
        let read_texts = read(1).expect("an array of texts");
        prop_assert_eq!(&read_texts.elements, &texts);
        prop_assert!(texts.is_empty() || read_texts.lower_bounds == [i64::from(lower_bound)]);
        let read_pairs = read(2).expect("an array of rows").elements;
        let read_pairs = read_pairs.iter().map(|pair| literal::row(pair.as_deref().expect("a row")).expect("two fields"));
        let want: Vec<_> = pairs.into_iter().map(|(left, right)| vec![left, right]).collect();
        prop_assert_eq!(read_pairs.collect::<Vec<_>>(), want);
    }
}
