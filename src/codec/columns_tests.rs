//! Descriptions, batches, NULLs and sizes.

use postgres_types::{Kind, Type};
use proptest::prelude::*;
use prost::Message;
use tidegate_client::proto;

use super::{BatchBuilder as Builder, CodecError, ColumnSpec, batch_within, carries, describe};
use crate::{codec::test_support::BatchBuilder, proto::ColumnKind};

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
            if column == "\"2\"" && type_name == "money[]" && why.starts_with("its elements have the type money, and")),
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
            CodecError::MalformedCell { column: "\"2\"".into(), type_name: "int4".into(), why: "it ends too early" },
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
fn a_batch_has_room_to_the_byte() {
    let types = [Type::TEXT, Type::INT8, Type::BOOL, Type::FLOAT8, Type::NUMERIC, Type::INT4_ARRAY, Type::BYTEA];
    let long = vec![b'x'; 300];
    let array = crate::codec::test_support::bytes(
        "000000010000000100000017000000030000000100000004000000010000000400000002ffffffff",
    );
    let numeric = crate::codec::test_support::bytes("0002000000000002000103e8");
    let row: [Option<&[u8]>; 7] =
        [Some(&long), Some(&[0x7f; 8]), Some(&[1]), Some(&[0; 8]), Some(&numeric), Some(&array), None];
    let mut batch = BatchBuilder::new(&types).unwrap();
    for rows in 0..20 {
        let before = batch.encoded_size();
        batch.push_row(row.into_iter()).unwrap();
        let after = batch.encoded_size();
        batch.take();
        for _ in 0..rows {
            batch.0.push_row(row.into_iter(), after).unwrap();
        }
        assert_eq!(batch.encoded_size(), before);
        for room in [0, before, before + 1, before + 310, after - 2, after - 1] {
            let error = batch.0.push_row(row.into_iter(), room).unwrap_err();
            let CodecError::RowTooLarge { bytes, at_least, room: told } = error else { panic!("{error}") };
            assert_eq!(told, room);
            // Only the array is not measured to its end.
            assert!(
                if at_least { bytes > room && bytes <= after } else { bytes == after },
                "{room}: {bytes} of {after}"
            );
            assert_eq!((batch.encoded_size(), batch.row_count()), (before, rows));
        }
        batch.0.push_row(row.into_iter(), after).unwrap();
        assert_eq!(batch.encoded_size(), after);
    }
    assert_eq!(batch.take().columns[6].nulls, [0xff, 0xff, 0x0f]);
}

/// What is in no case to be passed on is not copied either.
#[test]
fn a_row_that_does_not_fit_is_measured_without_a_copy() {
    let cell = vec![b'x'; 10 << 20];
    let mut batch = BatchBuilder::new(&[Type::TEXT, Type::BYTEA, Type::JSONB]).unwrap();
    let mut json = cell.clone();
    json[0] = 1;
    let row = || [Some(cell.as_slice()), Some(&cell), Some(&json)].into_iter();
    let error = batch.0.push_row(row(), 1 << 20).unwrap_err();
    assert_eq!(error.to_string(), "the row takes 31457311 bytes, and there is room for 1048576");
    assert!(batch.0.capacity() < 1 << 20, "{} bytes set aside", batch.0.capacity());
    batch.push_row(row()).unwrap();
    assert_eq!(batch.encoded_size(), 31_457_311);
}

#[test]
fn a_text_that_is_made_here_ends_at_the_room() {
    // Ten bytes for 131,069 digits; beside it a text whose length is known at once.
    let numeric: &[u8] = &[0, 1, 0x7F, 0xFF, 0, 0, 0, 0, 0, 1];
    let mut batch = BatchBuilder::new(&[Type::NUMERIC, Type::TEXT, Type::NUMERIC]).unwrap();
    let row = || [Some(numeric), Some(b"x".as_slice()), Some(numeric)].into_iter();
    let empty = batch.encoded_size();
    for room in [100, 131_000, 200_000] {
        let error = batch.0.push_row(row(), room).unwrap_err();
        let CodecError::RowTooLarge { bytes, at_least: true, room: given } = error else { panic!("{error}") };
        assert!(bytes > room && given == room, "{error}");
        assert_eq!(batch.encoded_size(), empty);
    }
    batch.push_row(row()).unwrap();
    let size = batch.encoded_size();
    batch.take();
    assert!(batch.0.push_row(row(), size - 1).is_err());
    batch.0.push_row(row(), size).unwrap();
    assert_eq!(batch.take().columns[2].texts[0].len(), 131_069);
}

#[test]
fn what_stands_around_rows_is_known_to_the_byte() {
    let mut batch = BatchBuilder::new(&[Type::BYTEA]).unwrap();
    for message in [64 << 10, (2 << 20) - 3, 2 << 20, (2 << 20) + 5, 4 << 20] {
        let (mut low, mut high) = (0, message);
        while low + 1 < high {
            let middle = (low + high) / 2;
            let cell = vec![0; middle];
            let fits = batch.0.push_row([Some(cell.as_slice())].into_iter(), batch_within(message)).is_ok();
            if fits {
                let rows = Some(batch.take());
                let response = proto::ExecuteReadResponse { rows, ..Default::default() };
                assert!(response.encoded_len() <= message);
                low = middle;
            } else {
                high = middle;
            }
        }
        let cell = vec![0; low];
        batch.push_row([Some(cell.as_slice())].into_iter()).unwrap();
        let response = proto::ExecuteReadResponse { rows: Some(batch.take()), ..Default::default() };
        // A byte more would also lengthen a length at some boundaries.
        assert!(message - response.encoded_len() <= 2, "{} of {message}", response.encoded_len());
    }
    let spec = ColumnSpec { name: "id", type_: &Type::INT8, type_modifier: -1 };
    let columns = crate::codec::Columns::of([spec, spec].into_iter()).unwrap();
    let length = columns.size();
    let header = crate::codec::ReadHeader { columns, receipt: None };
    assert_eq!(header.encoded_len(), length);
}

#[test]
fn text_that_is_not_utf_8_names_its_column() {
    let name = "note\n\"quoted\"";
    let spec = ColumnSpec { name, type_: &Type::TEXT, type_modifier: -1 };
    let mut batch = Builder::new([spec].into_iter()).unwrap();
    let error = batch.push_row([Some([b'a', 0xff].as_slice())].into_iter(), 1000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column \"note\\n\\\"quoted\\\"\": the server's bytes are not a valid text: it is not UTF-8 (in a database in \
         SQL_ASCII select its bytes: convert_to(…, 'SQL_ASCII'))"
    );
    assert_eq!(batch.row_count(), 0);
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
        let taken = batch.take();
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

/// The list of one column, and what stands in front of it.
#[test]
fn a_row_takes_two_pieces_of_memory_a_column() {
    let spec = |name, type_| ColumnSpec { name, type_, type_modifier: -1 };
    let columns = [spec("aid", &Type::INT4), spec("filler", &Type::TEXT)];
    carries(columns.into_iter()).unwrap();
    let counted = allocation_counter::measure(|| carries(columns.into_iter()).unwrap());
    assert_eq!(counted.count_total, 0, "{counted:?}");
    let mut builder = Builder::new(columns.into_iter()).unwrap();
    let counted = allocation_counter::measure(|| {
        builder.push_row([Some(&[0, 0, 0, 7][..]), Some(&[b'x'; 60])].into_iter(), 1 << 20).unwrap();
        assert_eq!(builder.take().row_count(), 1);
    });
    // Text needs nothing in front of it; behind these, the list of columns.
    assert_eq!(counted.count_total, 4, "{counted:?}");
}
