//! Descriptions, batches, NULLs and sizes.

use postgres_types::{Kind, Type};
use proptest::prelude::*;
use prost::Message;

use super::{BatchBuilder, CodecError, ColumnSpec, describe};
use crate::proto::{self, ColumnKind};

fn all_types() -> Vec<Type> {
    let scalars = [
        Type::BOOL,
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::OID,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::BYTEA,
        Type::CHAR,
        Type::TEXT,
        Type::JSONB,
        Type::VOID,
        Type::NUMERIC,
        Type::UUID,
        Type::DATE,
        Type::TIME,
        Type::TIMETZ,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::INTERVAL,
        Type::PG_LSN,
    ];
    let array = |element: &Type| Type::new("_x".into(), 99_999, Kind::Array(element.clone()), "public".into());
    scalars.iter().map(array).chain(scalars.iter().cloned()).collect()
}

fn batch_of(type_: Type, cells: &[Option<Vec<u8>>]) -> proto::ColumnValues {
    let mut batch = BatchBuilder::new(&[type_]).unwrap();
    for cell in cells {
        batch.push_row(std::iter::once(cell.as_deref())).unwrap();
    }
    batch.take().columns.remove(0)
}

#[test]
fn columns_are_described() {
    let spec = |name, type_| ColumnSpec { name, type_, type_modifier: 14 };
    let domain = Type::new("price".into(), 90_000, Kind::Domain(Type::INT4), "shop".into());
    let columns =
        describe([spec("a", &Type::VARCHAR), spec("b", &Type::INT4_ARRAY), spec("c", &domain)].into_iter()).unwrap();
    let want = [
        ("a", ColumnKind::Text, 1043, "varchar"),
        ("b", ColumnKind::Nested, 1007, "_int4"),
        ("c", ColumnKind::Int64, 90_000, "price"),
    ];
    for (column, (name, kind, oid, type_name)) in columns.iter().zip(want) {
        assert_eq!((column.name.as_str(), column.kind(), column.type_oid), (name, kind, oid));
        assert_eq!((column.type_name.as_str(), column.type_modifier), (type_name, 14));
    }
}

#[test]
fn an_unsupported_type_is_named() {
    let spec = |type_| ColumnSpec { name: "where", type_, type_modifier: -1 };
    let error = describe([spec(&Type::REGCLASS)].into_iter()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column \"where\" has the type regclass (OID 2205), which is not supported: its binary form is an OID, not the name \
         that the OID stands for; cast it in the SQL, as in \"where\"::text"
    );
    assert_eq!(error.field(), "statement.sql");
    let error = BatchBuilder::new(&[Type::INT4, Type::MONEY_ARRAY]).unwrap_err();
    assert!(
        matches!(&error, CodecError::UnsupportedType { column, type_name, oid: 791, why }
            if column == "2" && type_name == "money[]" && why.starts_with("its elements have the type money, and")),
        "{error}"
    );
}

#[test]
fn nulls_keep_an_entry_and_set_a_bit() {
    let cells: Vec<_> = (0..19_u8).map(|row| (row % 9 != 8).then(|| vec![0, row])).collect();
    let column = batch_of(Type::INT2, &cells);
    assert_eq!(column.int64s.len(), 19);
    assert_eq!((column.int64s[7], column.int64s[8], column.int64s[18]), (7, 0, 18));
    assert_eq!(column.nulls, [0b0000_0000, 0b0000_0001, 0b0000_0010]);
    assert!(batch_of(Type::INT2, &[Some(vec![0, 1])]).nulls.is_empty());
    for type_ in all_types() {
        let column = batch_of(type_, &[None]);
        let entries = column.bools.len()
            + column.int64s.len()
            + column.doubles.len()
            + column.texts.len()
            + column.blobs.len()
            + column.nested.len();
        assert_eq!((entries, column.nulls), (1, vec![1]));
    }
}

#[test]
fn a_bad_row_leaves_the_batch_as_it_was() {
    let mut batch = BatchBuilder::new(&[Type::TEXT, Type::INT4]).unwrap();
    batch.push_row([None, Some([0, 0, 0, 1].as_slice())].into_iter()).unwrap();
    let (size, rows) = (batch.encoded_size(), batch.row_count());
    let bad_rows: [(&[Option<&[u8]>], CodecError); 4] = [
        (&[], CodecError::CellCount { expected: 2, given: 0 }),
        (&[None], CodecError::CellCount { expected: 2, given: 1 }),
        (&[None, None, None], CodecError::CellCount { expected: 2, given: 3 }),
        (
            &[Some(b"a"), Some(b"b")],
            CodecError::MalformedCell { column: 2, type_name: "int4".into(), why: "it ends too early" },
        ),
    ];
    for (row, want) in bad_rows {
        assert_eq!(batch.push_row(row.iter().copied()), Err(want));
        assert_eq!((batch.encoded_size(), batch.row_count()), (size, rows));
    }
    let taken = batch.take();
    assert_eq!(
        taken.columns[0],
        proto::ColumnValues { nulls: vec![1], texts: vec![String::new()], ..Default::default() }
    );
    assert_eq!(taken.columns[1], proto::ColumnValues { int64s: vec![1], ..Default::default() });
    assert_eq!((batch.row_count(), batch.take().row_count), (0, 0));
}

#[test]
fn text_that_is_not_utf8_names_the_column() {
    let error =
        BatchBuilder::new(&[Type::TEXT]).unwrap().push_row(std::iter::once(Some([0xE9].as_slice()))).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("column 1: the server's bytes are not a valid text") && message.contains("SQL_ASCII"));
}

#[test]
fn rows_without_columns_are_counted() {
    let mut batch = BatchBuilder::new(&[]).unwrap();
    batch.push_row(std::iter::empty()).unwrap();
    batch.push_row(std::iter::empty()).unwrap();
    assert_eq!(batch.take().row_count, 2);
}

proptest! {
    #[test]
    fn integers_doubles_texts_and_bytes_come_back(
        rows in prop::collection::vec((any::<i64>(), any::<f32>(), any::<String>(), any::<Option<Vec<u8>>>()), 0..40),
    ) {
        let mut batch = BatchBuilder::new(&[Type::INT8, Type::FLOAT4, Type::TEXT, Type::BYTEA]).unwrap();
        for (integer, float, text, bytes) in &rows {
            let (integer, float) = (integer.to_be_bytes(), float.to_be_bytes());
            let cells = [Some(integer.as_slice()), Some(&float), Some(text.as_bytes()), bytes.as_deref()];
            batch.push_row(cells.into_iter()).unwrap();
        }
        let estimate = batch.encoded_size();
        let taken = batch.take();
        let exact = taken.encoded_len();
        prop_assert!(estimate >= exact && estimate - exact <= 6 + 4 * 12, "{} for {}", estimate, exact);
        prop_assert_eq!(taken.row_count as usize, rows.len());
        for (row, (integer, float, text, bytes)) in rows.iter().enumerate() {
            prop_assert_eq!(taken.columns[0].int64s[row], *integer);
            prop_assert_eq!((taken.columns[1].doubles[row] as f32).to_bits(), float.to_bits());
            prop_assert_eq!(&taken.columns[2].texts[row], text);
            prop_assert_eq!(taken.columns[3].blobs[row].as_slice(), bytes.as_deref().unwrap_or_default());
            let null = taken.columns[3].nulls.get(row / 8).is_some_and(|bits| bits >> (row % 8) & 1 == 1);
            prop_assert_eq!(null, bytes.is_none());
        }
    }

    /// Whatever bytes a server sends: a value or an error.
    #[test]
    fn no_bytes_panic(raw in prop::collection::vec(any::<u8>(), 0..64), zeros in 0..12_usize) {
        let mut sparse = raw.clone();
        sparse.iter_mut().take(zeros).for_each(|byte| *byte &= 3);
        for type_ in all_types() {
            let mut batch = BatchBuilder::new(&[type_]).unwrap();
            let _ = batch.push_row(std::iter::once(Some(raw.as_slice())));
            let _ = batch.push_row(std::iter::once(Some(sparse.as_slice())));
        }
    }
}
