//! One column of a batch under way: its values in protobuf's encoding, and which of them are NULL.

use super::{
    batch::EncodedColumn,
    cell::{self, Cell},
    nested,
    read::{Malformed, Stop},
    scalar::{Form, Scalar},
    text::Text,
    wire,
};
use crate::proto::ColumnKind;

/// The most that is set aside for the next batch's values before there are any, in bytes.
const RESERVE_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct ColumnBuilder {
    form: Form,
    list: List,
    /// What is in the list: numbers one behind the other, or entries with key and length.
    values: Vec<u8>,
    /// How much to set aside for the list once there is anything: what the last batch took.
    expected: usize,
    /// What the values take: more than there are where some were only measured.
    len: usize,
    /// Bit i, least significant first, is set if row i is NULL. Rows behind the last NULL need not be there.
    nulls: Vec<u8>,
    null_count: usize,
    /// How long the values were before the last row.
    before: usize,
    measured_at_least: bool,
}

/// How a column's list is laid out.
#[derive(Debug, Clone, Copy)]
enum List {
    /// Numbers behind one key and one length.
    Packed(u8),
    /// Each entry has its key and its length.
    Entries(u8),
}

impl ColumnBuilder {
    pub(super) fn new(form: Form) -> Self {
        let list = match form.column_kind() {
            ColumnKind::Bool => List::Packed(wire::column::BOOLS),
            ColumnKind::Int64 => List::Packed(wire::column::INT64S),
            ColumnKind::Double => List::Packed(wire::column::DOUBLES),
            ColumnKind::Bytes | ColumnKind::Raw => List::Entries(wire::column::BLOBS),
            ColumnKind::Nested => List::Entries(wire::column::NESTED),
            ColumnKind::Text | ColumnKind::Unspecified => List::Entries(wire::column::TEXTS),
        };
        Self {
            form,
            list,
            values: Vec::new(),
            expected: 0,
            len: 0,
            nulls: Vec::new(),
            null_count: 0,
            before: 0,
            measured_at_least: false,
        }
    }

    /// Adds a value, and says how many bytes it takes. One that takes more than `room` is measured only: the row is to be
    /// undone then.
    pub(super) fn push(&mut self, raw: &[u8], room: usize, scratch: &mut Text) -> Result<usize, Malformed> {
        self.before = self.len;
        self.measured_at_least = false;
        self.set_aside();
        let start = self.values.len();
        let bytes = match self.push_value(raw, room, scratch) {
            Ok(bytes) => bytes,
            Err(Stop::Full) => {
                self.values.truncate(start);
                self.measured_at_least = true;
                room.saturating_add(1)
            }
            Err(Stop::Malformed(malformed)) => return Err(malformed),
        };
        self.len += bytes;
        Ok(bytes)
    }

    fn push_value(&mut self, raw: &[u8], room: usize, scratch: &mut Text) -> Result<usize, Stop> {
        Ok(match (self.list, &self.form) {
            (_, form @ (Form::Array(_) | Form::Row(_) | Form::Record)) => {
                let start = self.values.len();
                nested::write(form, raw, &mut self.values, start.saturating_add(room), scratch)?;
                self.values.len() - start
            }
            (List::Packed(_), form) => match cell::read(form, raw, room, scratch)? {
                Cell::Bool(value) => self.number(room, &[value.into()]),
                Cell::Int(value) => {
                    let value = wire::zigzag(value);
                    let bytes = wire::varint_len(value);
                    if bytes <= room {
                        wire::put_varint(value, &mut self.values);
                    }
                    bytes
                }
                Cell::Double(value) => self.number(room, &value.to_le_bytes()),
                Cell::Text(_) | Cell::Bytes(_) => return Err(Malformed("it is not a number").into()),
            },
            (List::Entries(key), form) => match cell::read(form, raw, room, scratch)? {
                Cell::Text(text) => {
                    // A cast of `char(n)` to text takes its padding off.
                    let is_padded = *form == Form::Scalar(Scalar::Padded);
                    let text = if is_padded { text.trim_end_matches(' ') } else { text };
                    entry(&mut self.values, key, room, text.as_bytes())
                }
                Cell::Bytes(bytes) => entry(&mut self.values, key, room, bytes),
                Cell::Bool(_) | Cell::Int(_) | Cell::Double(_) => {
                    return Err(Malformed("it is neither text nor bytes").into());
                }
            },
        })
    }

    fn number(&mut self, room: usize, bytes: &[u8]) -> usize {
        if bytes.len() <= room {
            self.values.extend_from_slice(bytes);
        }
        bytes.len()
    }

    fn set_aside(&mut self) {
        if self.values.capacity() == 0 {
            self.values.reserve(self.expected);
        }
    }

    /// Adds a NULL in this row: a default entry, and the row's bit. Says how many bytes the entry takes.
    pub(super) fn push_null(&mut self, row: usize, room: usize) -> usize {
        self.before = self.len;
        self.measured_at_least = false;
        self.set_aside();
        let bytes = match (self.list, self.form.column_kind()) {
            (List::Packed(_), ColumnKind::Double) => self.number(room, &[0; size_of::<f64>()]),
            (List::Packed(_), _) => self.number(room, &[0]),
            (List::Entries(key), _) => entry(&mut self.values, key, room, &[]),
        };
        self.len += bytes;
        if self.nulls.len() <= row / 8 {
            self.nulls.resize(row / 8 + 1, 0);
        }
        if let Some(bits) = self.nulls.get_mut(row / 8) {
            *bits |= 1 << (row % 8);
            self.null_count += 1;
        }
        bytes
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.values.capacity()
    }

    /// Whether the last value was too large to be measured to its end.
    pub(super) fn measured_at_least(&self) -> bool {
        self.measured_at_least
    }

    /// Takes the last row back, which is this one.
    pub(super) fn undo(&mut self, row: usize) {
        self.len = self.before;
        self.values.truncate(self.before);
        if let Some(bits) = self.nulls.get_mut(row / 8).filter(|bits| **bits & (1 << (row % 8)) != 0) {
            *bits &= !(1 << (row % 8));
            self.null_count -= 1;
        }
    }

    /// What the column takes in a batch of so many rows, without its own key and length.
    pub(super) fn encoded_len(&self, row_count: usize) -> usize {
        let nulls = if self.null_count > 0 { wire::delimited_len(row_count.div_ceil(8)) } else { 0 };
        let values = match self.list {
            List::Packed(_) if self.len > 0 => wire::delimited_len(self.len),
            List::Packed(_) | List::Entries(_) => self.len,
        };
        nulls + values
    }

    /// Hands the column over and starts the next batch's.
    pub(super) fn take(&mut self, row_count: usize) -> EncodedColumn {
        self.expected = self.values.len().min(RESERVE_MAX);
        let body = std::mem::take(&mut self.values);
        let mut head = Vec::new();
        if self.null_count > 0 {
            self.nulls.resize(row_count.div_ceil(8), 0);
            wire::put_delimited(wire::column::NULLS, &self.nulls, &mut head);
        }
        if let (List::Packed(key), false) = (self.list, body.is_empty()) {
            wire::put_header(key, body.len(), &mut head);
        }
        self.nulls.clear();
        (self.len, self.null_count, self.before) = (0, 0, 0);
        EncodedColumn { head, body }
    }
}

/// Appends an entry if it fits; says how many bytes it takes.
fn entry(values: &mut Vec<u8>, key: u8, room: usize, content: &[u8]) -> usize {
    let bytes = wire::delimited_len(content.len());
    if bytes <= room {
        values.reserve(bytes);
        wire::put_delimited(key, content, values);
    }
    bytes
}
