//! Results: descriptions of columns, and batches of rows laid out column by column.

use std::sync::Arc;

use postgres_types::Type;
use prost::Message;

use super::{
    batch::{self, RowBatch},
    column::ColumnBuilder,
    error::CodecError,
    read::Malformed,
    scalar::{Form, Unsupported, display_name},
    text::Text,
    wire,
};
use crate::proto;

/// The most that is kept for the next text, in bytes.
const SCRATCH_MAX: usize = 64 << 10;

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
            let form = form(&column)?;
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

/// Whether a result's columns can all be carried.
///
/// # Errors
/// As [`describe`].
pub fn carries<'a>(mut columns: impl Iterator<Item = ColumnSpec<'a>>) -> Result<(), CodecError> {
    columns.try_for_each(|column| form(&column).map(drop))
}

fn form(column: &ColumnSpec<'_>) -> Result<Form, CodecError> {
    Form::of(column.type_).map_err(|Unsupported(why)| CodecError::UnsupportedType {
        column: format!("{:?}", column.name),
        type_name: display_name(column.type_),
        oid: column.type_.oid(),
        why,
    })
}

/// How large a batch may become that is a message's only content but for a field that wraps it, in bytes: exact.
#[must_use]
pub fn batch_within(message: usize) -> usize {
    wire::content_within(message)
}

/// What these columns take in a message, in bytes, without what stands in front of them all.
#[must_use]
pub fn columns_len(columns: &[proto::Column]) -> usize {
    columns.iter().map(|column| wire::delimited_len(column.encoded_len())).sum()
}

/// What a result's columns are: kept with a statement that runs often, so that its batches begin with no more than their
/// values.
#[derive(Debug, Clone)]
pub struct Layout(Arc<[Named]>);

/// A column with what errors say of it.
#[derive(Debug)]
struct Named {
    name: Box<str>,
    type_: Type,
    form: Form,
}

impl Layout {
    /// The layout of these columns.
    ///
    /// # Errors
    /// [`CodecError::UnsupportedType`] for the first column that cannot be carried.
    pub fn new<'a>(columns: impl Iterator<Item = ColumnSpec<'a>>) -> Result<Self, CodecError> {
        let named = |column: ColumnSpec<'_>| {
            let form = form(&column)?;
            Ok(Named { name: column.name.into(), type_: column.type_.clone(), form })
        };
        columns.map(named).collect::<Result<_, CodecError>>().map(Layout)
    }

    /// An empty batch.
    #[must_use]
    pub fn batch(&self) -> BatchBuilder {
        let columns = self.0.iter().map(|named| ColumnBuilder::new(named.form.clone())).collect();
        let mut builder = BatchBuilder { layout: self.clone(), columns, row_count: 0, size: 0, scratch: Text::new(0) };
        builder.size = builder.encoded_size_of(0);
        builder
    }
}

/// Collects rows in PostgreSQL's binary format into one [`RowBatch`] after the other.
#[derive(Debug)]
pub struct BatchBuilder {
    layout: Layout,
    columns: Vec<ColumnBuilder>,
    row_count: usize,
    /// What the batch takes: counted once a row, asked for several times.
    size: usize,
    /// What has to be put into text first, before its length is known.
    scratch: Text,
}

impl BatchBuilder {
    /// Makes an empty batch of these columns.
    ///
    /// # Errors
    /// [`CodecError::UnsupportedType`] for the first column that cannot be carried.
    pub fn new<'a>(columns: impl Iterator<Item = ColumnSpec<'a>>) -> Result<Self, CodecError> {
        Ok(Layout::new(columns)?.batch())
    }

    /// Adds a row: one cell a column, each the binary format of its value, or `None` for NULL. The batch may take `room`
    /// bytes with it; of a row that takes more, no more than fits is copied.
    ///
    /// # Errors
    /// [`CodecError::CellCount`], [`CodecError::MalformedCell`] and [`CodecError::RowTooLarge`]; the batch is then as it
    /// was before the row.
    pub fn push_row<'a>(
        &mut self,
        cells: impl Iterator<Item = Option<&'a [u8]>>,
        room: usize,
    ) -> Result<(), CodecError> {
        let mut touched = 0;
        let pushed = self.push_cells(cells, room, &mut touched);
        let pushed = pushed.and_then(|at_least| {
            let bytes = self.encoded_size_of(self.row_count + 1);
            if bytes > room { Err(CodecError::RowTooLarge { bytes, at_least, room }) } else { Ok(bytes) }
        });
        match pushed {
            Ok(bytes) => (self.row_count, self.size) = (self.row_count + 1, bytes),
            Err(_) => self.columns.iter_mut().take(touched).for_each(|column| column.undo(self.row_count)),
        }
        // One long text is no reason to keep its room for ever.
        if self.scratch.capacity() > SCRATCH_MAX {
            self.scratch = Text::new(0);
        }
        pushed.map(drop)
    }

    /// Adds a row's cells, and counts those that were added. True if one was not measured to its end.
    fn push_cells<'a>(
        &mut self,
        mut cells: impl Iterator<Item = Option<&'a [u8]>>,
        room: usize,
        touched: &mut usize,
    ) -> Result<bool, CodecError> {
        let expected = self.columns.len();
        let mut left = room.saturating_sub(self.encoded_size());
        let mut at_least = false;
        for (at, (column, named)) in self.columns.iter_mut().zip(&*self.layout.0).enumerate() {
            let Named { name, type_, .. } = named;
            let cell = cells.next().ok_or(CodecError::CellCount { expected, given: at })?;
            // A cell that fails may have left a part of itself behind.
            *touched += 1;
            let bytes = match cell {
                Some(raw) => column.push(raw, left, &mut self.scratch).map_err(|Malformed(why)| {
                    CodecError::MalformedCell { column: format!("{name:?}"), type_name: display_name(type_), why }
                })?,
                None => column.push_null(self.row_count, left),
            };
            left = left.saturating_sub(bytes);
            at_least |= column.measured_at_least();
        }
        if cells.next().is_some() {
            return Err(CodecError::CellCount { expected, given: expected + 1 });
        }
        Ok(at_least)
    }

    /// How many bytes the batch takes as protobuf; exact, and costs next to nothing.
    #[must_use]
    pub fn encoded_size(&self) -> usize {
        self.size
    }

    fn encoded_size_of(&self, row_count: usize) -> usize {
        batch::encoded_len(wire_count(row_count), self.columns.iter().map(|column| column.encoded_len(row_count)))
    }

    /// What is set aside for values, in bytes.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::capacity).sum()
    }

    /// How many rows the batch holds.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Hands the batch over and starts the next one, empty, with the same columns.
    pub fn take(&mut self) -> RowBatch {
        let row_count = std::mem::take(&mut self.row_count);
        let columns = self.columns.iter_mut().map(|column| column.take(row_count)).collect();
        self.size = self.encoded_size_of(0);
        RowBatch::new(wire_count(row_count), columns)
    }
}

/// A number of rows as the wire has it. A batch of 2^32 rows would not fit into any message.
fn wire_count(row_count: usize) -> u32 {
    u32::try_from(row_count).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "nested_tests.rs"]
mod nesting;

#[cfg(test)]
#[path = "golden_tests.rs"]
mod goldens;
