//! Rows: whatever bytes a server sends for whatever types, a row is added as a whole or not at all; the batch has the
//! size that it says, and decodes, by messages generated from the proto files, to as many entries as there are rows.

use std::borrow::Cow;

use postgres_types::Type;
use prost::Message;
use tidegate::{
    codec::{self, BatchBuilder, CodecError, ColumnSpec, RowBatch},
    proto::{Column, ColumnKind},
};
use tidegate_client::proto;

use crate::{input::Input, memory, types};

/// The most columns of one input.
const COLUMNS_MAX: usize = 8;
/// The length that stands for NULL.
const NULL: u16 = u16::MAX;
/// The length that stands for a value of many equal parts: a front, one part, and how often it comes. A few bytes of input
/// are thus as large a value as a server sends, and what such a value grows to is seen.
const REPEATED: u16 = u16::MAX - 1;
/// The most bytes of all values that an input stands for.
const VALUES_BYTES: usize = 1 << 20;
/// What a batch and what goes with it may take, in bytes: a few messages, whatever the values are.
const MEMORY: usize = 8 * ROOM;
/// A byte for the room; 0 is one message of the usual size.
const ROOM_UNIT: usize = 16;
const ROOM: usize = 4 << 20;

type Row<'a> = Vec<Option<Cow<'a, [u8]>>>;

/// A line of types, a byte for the room, and cells: two bytes of length and the bytes, or [`REPEATED`].
pub fn check(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    let types = types::read(&String::from_utf8_lossy(line), COLUMNS_MAX);
    let mut input = Input(rest.get(1..).unwrap_or_default());
    let room = match usize::from(input.u8()) {
        0 => ROOM,
        room => room * ROOM_UNIT,
    };
    batch(&types, room, &rows(&mut input, types.len()));
}

fn specs(types: &[Type]) -> impl Iterator<Item = ColumnSpec<'_>> {
    types.iter().map(|type_| ColumnSpec { name: "c", type_, type_modifier: -1 })
}

fn cells<'a>(row: &'a Row<'_>) -> impl Iterator<Item = Option<&'a [u8]>> {
    row.iter().map(Option::as_deref)
}

fn batch(types: &[Type], room: usize, rows: &[Row<'_>]) {
    let (columns, mut builder) = match (codec::describe(specs(types)), BatchBuilder::new(specs(types))) {
        (Ok(columns), Ok(builder)) => (columns, builder),
        (Err(described), Err(built)) => return assert_eq!(described, built),
        (described, built) => panic!("{described:?}, but {built:?}"),
    };
    let empty = (builder.row_count(), builder.encoded_size());
    let mut kept: Vec<&Row<'_>> = Vec::new();
    for row in rows {
        let before = (builder.row_count(), builder.encoded_size());
        match memory::bounded(MEMORY, || builder.push_row(cells(row), room)) {
            Ok(()) => {
                assert!(row.len() == types.len() && builder.encoded_size() <= room);
                assert_eq!(builder.row_count(), before.0 + 1);
                kept.push(row);
            }
            Err(error) => {
                assert_eq!((builder.row_count(), builder.encoded_size()), before, "changed by a row that failed");
                refused(&error, row, types.len(), room);
            }
        }
    }
    let size = builder.encoded_size();
    let batch = builder.take();
    // Rows that failed leave nothing behind.
    let mut again = BatchBuilder::new(specs(types)).expect("built before");
    kept.iter().for_each(|row| again.push_row(cells(row), room).expect("fitted before"));
    assert_eq!(again.take(), batch);
    encoded(&batch, size, &columns, &kept);
    assert_eq!((builder.row_count(), builder.encoded_size()), empty, "what was taken is still there");
}

/// The rows of the input; the last may have fewer cells than there are columns.
fn rows<'a>(input: &mut Input<'a>, columns: usize) -> Vec<Row<'a>> {
    let (mut rows, mut left) = (Vec::new(), VALUES_BYTES);
    while !input.is_empty() {
        let mut row = Vec::new();
        while row.len() < columns && !input.is_empty() {
            row.push(match input.u16() {
                NULL => None,
                REPEATED => Some(repeated(input, &mut left).into()),
                length => Some(input.bytes(length.into()).into()),
            });
        }
        rows.push(row);
        if columns == 0 {
            break;
        }
    }
    rows
}

fn repeated(input: &mut Input<'_>, left: &mut usize) -> Vec<u8> {
    let (count, front, part) = (input.u16(), input.u8(), input.u8());
    let (front, part) = (input.bytes(front.into()), input.bytes(part.into()));
    let count = usize::from(count).min(*left / part.len().max(1));
    *left -= count * part.len();
    [front, &part.repeat(count)].concat()
}

fn refused(error: &CodecError, row: &Row<'_>, columns: usize, room: usize) {
    match error {
        CodecError::CellCount { expected, given } => {
            assert_eq!((*expected, *given), (columns, row.len()));
            assert_ne!(expected, given);
        }
        CodecError::MalformedCell { why, .. } => assert!(!why.is_empty()),
        CodecError::RowTooLarge { bytes, room: given, .. } => assert!(bytes > given && *given == room),
        error => panic!("an error of parameters: {error}"),
    }
}

/// The batch as a client reads it.
fn encoded(batch: &RowBatch, size: usize, columns: &[Column], rows: &[&Row<'_>]) {
    let bytes = batch.encode_to_vec();
    assert_eq!((bytes.len(), batch.encoded_len()), (size, size));
    let decoded = proto::RowBatch::decode(bytes.as_slice()).expect("a client reads it");
    assert_eq!(decoded.encode_to_vec(), bytes, "not what generated messages write");
    assert_eq!(decoded.row_count as usize, rows.len());
    assert_eq!(decoded.columns.len(), columns.len());
    for (at, (values, column)) in decoded.columns.iter().zip(columns).enumerate() {
        let lists = [
            (ColumnKind::Bool, values.bools.len()),
            (ColumnKind::Int64, values.int64s.len()),
            (ColumnKind::Double, values.doubles.len()),
            (ColumnKind::Text, values.texts.len()),
            (ColumnKind::Bytes, values.blobs.len()),
            (ColumnKind::Nested, values.nested.len()),
        ];
        let kind = if column.kind() == ColumnKind::Raw { ColumnKind::Bytes } else { column.kind() };
        for (list, entries) in lists {
            assert_eq!(entries, if list == kind { rows.len() } else { 0 }, "{column:?}: {list:?}");
        }
        let is_null = |row: usize| values.nulls.get(row / 8).is_some_and(|bits| bits & (1 << (row % 8)) != 0);
        for (number, row) in rows.iter().enumerate() {
            assert_eq!(is_null(number), row[at].is_none(), "row {number} of {column:?}");
            let Some(cell) = row[at].as_deref() else { continue };
            match (kind, cell.len()) {
                (ColumnKind::Bool, _) => assert_eq!(values.bools[number], cell != [0]),
                (ColumnKind::Bytes, _) => assert_eq!(values.blobs[number], cell),
                (ColumnKind::Int64, 8) => assert_eq!(values.int64s[number].to_be_bytes(), cell),
                (ColumnKind::Int64, 2) => assert_eq!((values.int64s[number] as i16).to_be_bytes(), cell),
                // An `oid` has no sign, an `int4` has: the same four bytes.
                (ColumnKind::Int64, _) => assert_eq!((values.int64s[number] as u32).to_be_bytes(), cell),
                (ColumnKind::Double, 8) => assert_eq!(values.doubles[number].to_bits().to_be_bytes(), cell),
                _ => {}
            }
        }
        assert!(values.nulls.is_empty() || values.nulls.len() == rows.len().div_ceil(8));
    }
}
