//! A batch of rows as it travels: columns that are encoded already. The wire's `RowBatch`, in place of a generated message.

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use super::wire;

/// Some rows of a result, column by column, in protobuf's encoding: `RowBatch` of `values.proto`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowBatch {
    row_count: u32,
    columns: Vec<EncodedColumn>,
}

/// A `ColumnValues`: two runs of bytes, since what stands in front of a list is known only when the list is complete.
#[derive(Debug, Clone, Default)]
pub(super) struct EncodedColumn {
    /// The NULLs, and key and length of a packed list.
    pub(super) head: Vec<u8>,
    /// The list.
    pub(super) body: Vec<u8>,
}

impl EncodedColumn {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl PartialEq for EncodedColumn {
    /// Where the bytes are divided says nothing.
    fn eq(&self, other: &Self) -> bool {
        self.head.iter().chain(&self.body).eq(other.head.iter().chain(&other.body))
    }
}

impl Eq for EncodedColumn {}

impl RowBatch {
    pub(super) fn new(row_count: u32, columns: Vec<EncodedColumn>) -> RowBatch {
        RowBatch { row_count, columns }
    }

    /// How many rows it has.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        self.row_count
    }
}

/// What the columns of a batch take in it, given what each takes by itself.
pub(super) fn encoded_len(row_count: u32, columns: impl Iterator<Item = usize>) -> usize {
    let rows = if row_count == 0 { 0 } else { encoding::uint32::encoded_len(wire::batch::ROW_COUNT, &row_count) };
    rows + columns.map(wire::delimited_len).sum::<usize>()
}

impl Message for RowBatch {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if self.row_count != 0 {
            encoding::uint32::encode(wire::batch::ROW_COUNT, &self.row_count, buf);
        }
        for column in &self.columns {
            encoding::encode_key(wire::batch::COLUMNS, WireType::LengthDelimited, buf);
            encoding::encode_varint(column.len() as u64, buf);
            buf.put_slice(&column.head);
            buf.put_slice(&column.body);
        }
    }

    /// Columns are kept as they came: whoever reads them decodes them.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            wire::batch::ROW_COUNT => encoding::uint32::merge(wire_type, &mut self.row_count, buf, ctx),
            wire::batch::COLUMNS => {
                let mut column = EncodedColumn::default();
                encoding::bytes::merge(wire_type, &mut column.body, buf, ctx)?;
                self.columns.push(column);
                Ok(())
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        encoded_len(self.row_count, self.columns.iter().map(EncodedColumn::len))
    }

    fn clear(&mut self) {
        *self = RowBatch::default();
    }
}
