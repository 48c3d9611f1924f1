//! The protobuf wire format of rows: field keys, and how cells are laid out. Its numbers are those of
//! `proto/tidegate/v1/values.proto`; the tests decode what is written here with messages generated from that file.

use bytes::BufMut;
use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// The key of a field: its number and its wire type, in one byte for numbers up to 15.
const fn key(field: u8, wire_type: WireType) -> u8 {
    field << 3 | wire_type as u8
}

/// Numbers of `ReadHeader`'s fields.
pub(super) mod header {
    pub(in crate::codec) const COLUMNS: u32 = 1;
    pub(in crate::codec) const RECEIPT: u32 = 2;
}

/// Keys of `RowBatch`.
pub(super) mod batch {
    /// The number of `columns`.
    pub(in crate::codec) const COLUMNS: u32 = 2;
    /// The number of `row_count`.
    pub(in crate::codec) const ROW_COUNT: u32 = 1;
}

/// Keys of `ColumnValues`.
pub(super) mod column {
    use super::{WireType, key};

    pub(in crate::codec) const NULLS: u8 = key(1, WireType::LengthDelimited);
    pub(in crate::codec) const BOOLS: u8 = key(2, WireType::LengthDelimited);
    pub(in crate::codec) const INT64S: u8 = key(3, WireType::LengthDelimited);
    pub(in crate::codec) const DOUBLES: u8 = key(4, WireType::LengthDelimited);
    pub(in crate::codec) const TEXTS: u8 = key(5, WireType::LengthDelimited);
    pub(in crate::codec) const BLOBS: u8 = key(6, WireType::LengthDelimited);
    pub(in crate::codec) const NESTED: u8 = key(7, WireType::LengthDelimited);
}

/// Keys of `Value`.
pub(super) mod value {
    use super::{WireType, key};

    pub(in crate::codec) const NULL: u8 = key(1, WireType::Varint);
    pub(in crate::codec) const BOOL: u8 = key(2, WireType::Varint);
    pub(in crate::codec) const INT64: u8 = key(3, WireType::Varint);
    pub(in crate::codec) const DOUBLE: u8 = key(4, WireType::SixtyFourBit);
    pub(in crate::codec) const TEXT: u8 = key(5, WireType::LengthDelimited);
    pub(in crate::codec) const BYTES: u8 = key(6, WireType::LengthDelimited);
    pub(in crate::codec) const ARRAY: u8 = key(7, WireType::LengthDelimited);
    pub(in crate::codec) const ROW: u8 = key(8, WireType::LengthDelimited);
}

/// Keys of `ArrayValue` and, for its only field, of `RowValue`.
pub(super) mod array {
    use super::{WireType, key};

    /// `ArrayValue.elements` and `RowValue.fields`.
    pub(in crate::codec) const ELEMENTS: u8 = key(1, WireType::LengthDelimited);
    pub(in crate::codec) const DIMENSIONS: u8 = key(2, WireType::LengthDelimited);
    pub(in crate::codec) const LOWER_BOUNDS: u8 = key(3, WireType::LengthDelimited);
}

/// A `sint64` before it is written as a varint.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// How many bytes a varint takes.
pub(super) fn varint_len(value: u64) -> usize {
    encoded_len_varint(value)
}

/// How many bytes a length-delimited field takes: key, length, content.
pub(super) fn delimited_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Appends a varint.
pub(super) fn put_varint(value: u64, out: &mut impl BufMut) {
    encode_varint(value, out);
}

/// Appends key and length of a length-delimited field.
pub(super) fn put_header(key: u8, content: usize, out: &mut impl BufMut) {
    out.put_u8(key);
    put_varint(content as u64, out);
}

/// Appends a length-delimited field.
pub(super) fn put_delimited(key: u8, content: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(content.len()) {
        // A length of one byte, as most texts have: both at once.
        Ok(length @ ..0x80) => out.extend_from_slice(&[key, length]),
        _ => put_header(key, content.len(), out),
    }
    out.extend_from_slice(content);
}

/// The largest content of a length-delimited field that takes `room` bytes at most; its key takes one.
pub(super) fn content_within(room: usize) -> usize {
    // A longer length leaves less for the content: the first that fits is the largest.
    let contents = (1..=10).map(|length_bytes| room.saturating_sub(1 + length_bytes));
    contents.into_iter().find(|content| delimited_len(*content) <= room).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_within_a_room_is_the_largest() {
        for room in (2..20_000).chain((1 << 21) - 20..(1 << 21) + 20).chain((1 << 28) - 20..(1 << 28) + 20) {
            let content = content_within(room);
            assert!(delimited_len(content) <= room, "{room}");
            assert!(delimited_len(content + 1) > room, "{room}");
        }
    }
}
