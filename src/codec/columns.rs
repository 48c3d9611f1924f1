//! Results: descriptions of columns, and batches of rows laid out column by column.

use postgres_types::Type;
use prost::{Message, encoding::encoded_len_varint};

use super::{
    array,
    error::CodecError,
    read::{self, Malformed},
    scalar::{Form, Scalar, Unsupported, display_name},
    text,
};
use crate::proto;

/// A result column as PostgreSQL's RowDescription gives it.
#[derive(Debug, Clone, Copy)]
pub struct ColumnSpec<'a> {
    /// Its name; need not be unique.
    pub name: &'a str,
    /// Its type.
    pub type_: &'a Type,
    /// `atttypmod`: what stands in parentheses behind the type, in the type's own encoding; -1 if nothing does.
    pub type_modifier: i32,
}

/// Describes a result's columns for a response's header.
///
/// # Errors
/// [`CodecError::UnsupportedType`] for the first column that cannot be carried.
pub fn describe<'a>(columns: impl Iterator<Item = ColumnSpec<'a>>) -> Result<Vec<proto::Column>, CodecError> {
    columns
        .map(|column| {
            let form =
                Form::of(column.type_).map_err(|why| unsupported(format!("{:?}", column.name), column.type_, why))?;
            Ok(proto::Column {
                name: column.name.to_owned(),
                kind: form.column_kind().into(),
                type_oid: column.type_.oid(),
                type_name: column.type_.name().to_owned(),
                type_modifier: column.type_modifier,
            })
        })
        .collect()
}

fn unsupported(column: String, type_: &Type, Unsupported(why): Unsupported) -> CodecError {
    CodecError::UnsupportedType { column, type_name: display_name(type_), oid: type_.oid(), why }
}

/// Collects rows in PostgreSQL's binary format into one [`proto::RowBatch`] after the other.
#[derive(Debug)]
pub struct BatchBuilder {
    columns: Vec<ColumnBuilder>,
    row_count: usize,
    /// Bytes of the cells so far, about as protobuf encodes them.
    cell_bytes: usize,
}

impl BatchBuilder {
    /// Makes an empty batch of columns of these types.
    ///
    /// # Errors
    /// [`CodecError::UnsupportedType`] for the first type that cannot be carried.
    pub fn new(types: &[Type]) -> Result<Self, CodecError> {
        let column = |(at, type_): (usize, &Type)| {
            let form = Form::of(type_).map_err(|why| unsupported((at + 1).to_string(), type_, why))?;
            Ok(ColumnBuilder { form, type_name: display_name(type_), values: proto::ColumnValues::default() })
        };
        let columns = types.iter().enumerate().map(column).collect::<Result<_, CodecError>>()?;
        Ok(Self { columns, row_count: 0, cell_bytes: 0 })
    }

    /// Adds a row: one cell a column, each the binary format of its value, or `None` for NULL.
    ///
    /// # Errors
    /// [`CodecError::CellCount`] and [`CodecError::MalformedCell`]; the batch is then as it was before the row.
    pub fn push_row<'a>(&mut self, cells: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), CodecError> {
        match self.push_cells(cells) {
            Ok(bytes) => {
                self.cell_bytes += bytes;
                self.row_count += 1;
                Ok(())
            }
            Err(error) => {
                self.columns.iter_mut().for_each(|column| column.truncate(self.row_count));
                Err(error)
            }
        }
    }

    fn push_cells<'a>(&mut self, mut cells: impl Iterator<Item = Option<&'a [u8]>>) -> Result<usize, CodecError> {
        let expected = self.columns.len();
        let mut bytes = 0;
        for (at, column) in self.columns.iter_mut().enumerate() {
            let cell = cells.next().ok_or(CodecError::CellCount { expected, given: at })?;
            bytes += match cell {
                Some(raw) => column.push(raw).map_err(|Malformed(why)| CodecError::MalformedCell {
                    column: at + 1,
                    type_name: column.type_name.clone(),
                    why,
                })?,
                None => column.push_null(self.row_count),
            };
        }
        if cells.next().is_some() { Err(CodecError::CellCount { expected, given: expected + 1 }) } else { Ok(bytes) }
    }

    /// About how many bytes the batch takes as protobuf: exact for the cells, a few bytes too many a column. Costs nothing.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        /// Tag and length of the column, tags and lengths of its lists.
        const COLUMN_BYTES: usize = 12;
        const BATCH_BYTES: usize = 6;
        BATCH_BYTES + self.columns.len() * COLUMN_BYTES + self.cell_bytes
    }

    /// How many rows the batch holds.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Hands the batch over and starts the next one, empty, with the same columns.
    pub fn take(&mut self) -> proto::RowBatch {
        let row_count = std::mem::take(&mut self.row_count);
        self.cell_bytes = 0;
        let columns = self.columns.iter_mut().map(|column| column.take(row_count)).collect();
        // A batch of 2^32 rows would not fit into any message.
        proto::RowBatch { row_count: u32::try_from(row_count).unwrap_or(u32::MAX), columns }
    }
}

#[derive(Debug)]
struct ColumnBuilder {
    form: Form,
    type_name: String,
    values: proto::ColumnValues,
}

impl ColumnBuilder {
    /// Adds a value; returns about how many bytes it takes.
    fn push(&mut self, raw: &[u8]) -> Result<usize, Malformed> {
        Ok(match &self.form {
            Form::Array(element) => {
                let value = array::decode(element, raw)?;
                let bytes = delimited(value.encoded_len());
                self.values.nested.push(value);
                bytes
            }
            Form::Scalar(Scalar::Bool) => {
                self.values.bools.push(read::bool(raw)?);
                1
            }
            Form::Scalar(Scalar::Int2) => self.push_integer(i16::from_be_bytes(read::whole(raw)?).into()),
            Form::Scalar(Scalar::Int4) => self.push_integer(i32::from_be_bytes(read::whole(raw)?).into()),
            Form::Scalar(Scalar::Int8) => self.push_integer(i64::from_be_bytes(read::whole(raw)?)),
            Form::Scalar(Scalar::Uint4) => self.push_integer(u32::from_be_bytes(read::whole(raw)?).into()),
            Form::Scalar(Scalar::Float4) => self.push_double(f32::from_be_bytes(read::whole(raw)?).into()),
            Form::Scalar(Scalar::Float8) => self.push_double(f64::from_be_bytes(read::whole(raw)?)),
            Form::Scalar(Scalar::Bytea) => {
                self.values.blobs.push(raw.to_vec());
                delimited(raw.len())
            }
            form => {
                let mut text = String::new();
                text::write(form, raw, &mut text)?;
                let bytes = delimited(text.len());
                self.values.texts.push(text);
                bytes
            }
        })
    }

    fn push_integer(&mut self, value: i64) -> usize {
        self.values.int64s.push(value);
        // The zigzag encoding of a `sint64`.
        encoded_len_varint(((value << 1) ^ (value >> 63)).cast_unsigned())
    }

    fn push_double(&mut self, value: f64) -> usize {
        self.values.doubles.push(value);
        size_of::<f64>()
    }

    /// Adds a NULL: a default entry, and the row's bit.
    fn push_null(&mut self, row: usize) -> usize {
        let entry_bytes = match self.form.column_kind() {
            proto::ColumnKind::Bool => {
                self.values.bools.push(false);
                1
            }
            proto::ColumnKind::Int64 => self.push_integer(0),
            proto::ColumnKind::Double => self.push_double(0.0),
            proto::ColumnKind::Bytes => {
                self.values.blobs.push(Vec::new());
                delimited(0)
            }
            proto::ColumnKind::Nested => {
                self.values.nested.push(proto::Value::default());
                delimited(0)
            }
            _ => {
                self.values.texts.push(String::new());
                delimited(0)
            }
        };
        let (byte, bit) = (row / 8, row % 8);
        let growth = (byte + 1).saturating_sub(self.values.nulls.len());
        self.values.nulls.resize(self.values.nulls.len() + growth, 0);
        if let Some(bits) = self.values.nulls.get_mut(byte) {
            *bits |= 1 << bit;
        }
        entry_bytes + growth
    }

    /// Drops all but the first rows.
    fn truncate(&mut self, row_count: usize) {
        let values = &mut self.values;
        values.bools.truncate(row_count);
        values.int64s.truncate(row_count);
        values.doubles.truncate(row_count);
        values.texts.truncate(row_count);
        values.blobs.truncate(row_count);
        values.nested.truncate(row_count);
        values.nulls.truncate(row_count.div_ceil(8));
        if let Some(last) = values.nulls.get_mut(row_count / 8) {
            *last &= (1 << (row_count % 8)) - 1;
        }
        // No bit left: none is NULL, which is written as an empty list.
        if values.nulls.iter().all(|bits| *bits == 0) {
            values.nulls.clear();
        }
    }

    fn take(&mut self, row_count: usize) -> proto::ColumnValues {
        let mut values = std::mem::take(&mut self.values);
        if !values.nulls.is_empty() {
            values.nulls.resize(row_count.div_ceil(8), 0);
        }
        values
    }
}

/// The bytes of a repeated entry: one of tag, its length, its content.
fn delimited(content_bytes: usize) -> usize {
    1 + encoded_len_varint(content_bytes as u64) + content_bytes
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "golden_tests.rs"]
mod goldens;
