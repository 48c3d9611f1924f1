//! Results: columns off the wire, checked once a batch, read row by row without a value object between.

use std::sync::Arc;

use crate::{
    error::Error,
    proto::{self, Column, ColumnKind, Receipt},
    value::{FromValue, Value, ValueRef},
};

/// Some rows of a result.
#[derive(Clone, Debug)]
pub struct Batch {
    columns: Arc<[Column]>,
    row_count: usize,
    lists: Vec<List>,
}

#[derive(Clone, Debug)]
struct List {
    nulls: Vec<u8>, // bit i, least significant first: row i is NULL; empty: none is
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Bool(Vec<bool>),
    Int64(Vec<i64>),
    Double(Vec<f64>),
    Text(Vec<String>),
    Bytes(Vec<Vec<u8>>),
    Raw(Vec<Vec<u8>>),
    Nested(Vec<Value>),
}

impl Batch {
    /// Checks a batch against its header, so that reading it cannot fail.
    pub(crate) fn new(columns: Arc<[Column]>, batch: proto::RowBatch) -> Result<Self, Error> {
        let row_count = batch.row_count as usize;
        if columns.len() != batch.columns.len() {
            return Err(Error::Protocol("a batch has another number of columns than its header"));
        }
        let lists = columns
            .iter()
            .zip(batch.columns)
            .map(|(column, values)| List::new(column.kind(), values, row_count))
            .collect::<Result<_, _>>()?;
        Ok(Batch { columns, row_count, lists })
    }

    pub(crate) fn empty(columns: Arc<[Column]>) -> Self {
        Batch { columns, row_count: 0, lists: Vec::new() }
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// The result's columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The row at this index, counted in this batch.
    pub fn row(&self, index: usize) -> Option<Row<'_>> {
        (index < self.row_count).then_some(Row { batch: self, index })
    }

    /// The rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.row_count).map(|index| Row { batch: self, index })
    }
}

impl List {
    fn new(kind: ColumnKind, column: proto::ColumnValues, rows: usize) -> Result<Self, Error> {
        let nulls = column.nulls;
        if !nulls.is_empty() && nulls.len() * 8 < rows {
            return Err(Error::Protocol("a column's nulls are too short"));
        }
        let (values, len) = match kind {
            ColumnKind::Bool => counted(column.bools, Values::Bool),
            ColumnKind::Int64 => counted(column.int64s, Values::Int64),
            ColumnKind::Double => counted(column.doubles, Values::Double),
            ColumnKind::Text => counted(column.texts, Values::Text),
            ColumnKind::Bytes => counted(column.blobs, Values::Bytes),
            ColumnKind::Raw => counted(column.blobs, Values::Raw),
            ColumnKind::Nested => {
                let nested = column.nested.into_iter().enumerate().map(|(index, value)| {
                    if is_null(&nulls, index) { Ok(Value::Null) } else { Value::from_proto(value) }
                });
                counted(nested.collect::<Result<Vec<_>, _>>()?, Values::Nested)
            }
            ColumnKind::Unspecified => return Err(Error::Protocol("a column is of an unknown kind")),
        };
        if len != rows {
            return Err(Error::Protocol("a column has another number of values than its batch has rows"));
        }
        Ok(List { nulls, values })
    }

    fn value(&self, index: usize) -> ValueRef<'_> {
        if is_null(&self.nulls, index) {
            return ValueRef::Null;
        }
        match &self.values {
            Values::Bool(values) => ValueRef::Bool(values[index]),
            Values::Int64(values) => ValueRef::Int64(values[index]),
            Values::Double(values) => ValueRef::Double(values[index]),
            Values::Text(values) => ValueRef::Text(&values[index]),
            Values::Bytes(values) => ValueRef::Bytes(&values[index]),
            Values::Raw(values) => ValueRef::Raw(&values[index]),
            Values::Nested(values) => ValueRef::Nested(&values[index]),
        }
    }
}

fn counted<T>(list: Vec<T>, values: fn(Vec<T>) -> Values) -> (Values, usize) {
    let len = list.len();
    (values(list), len)
}

fn is_null(nulls: &[u8], index: usize) -> bool {
    nulls.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// One row of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    batch: &'a Batch,
    index: usize,
}

impl<'a> Row<'a> {
    /// The value of a column, by name or by index from 0, as a Rust type.
    ///
    /// # Errors
    /// [`Error::NoColumn`], and [`Error::WrongType`] where the value is of another type, out of range, or NULL and the
    /// type no `Option`.
    pub fn get<T: FromValue<'a>>(&self, column: impl ColumnIndex) -> Result<T, Error> {
        let index = column.find(&self.batch.columns).ok_or_else(|| Error::NoColumn(column.describe()))?;
        T::from_value(self.batch.lists[index].value(self.index)).ok_or_else(|| {
            let column = &self.batch.columns[index];
            Error::WrongType {
                column: column.name.clone(),
                type_name: column.type_name.clone(),
                wanted: std::any::type_name::<T>(),
            }
        })
    }

    /// The values, in the columns' order.
    pub fn values(&self) -> impl Iterator<Item = ValueRef<'a>> + use<'a> {
        let index = self.index;
        self.batch.lists.iter().map(move |list| list.value(index))
    }
}

/// What names a column: its name (the first one of that name) or its index from 0.
pub trait ColumnIndex {
    /// The index, if there is such a column.
    fn find(&self, columns: &[Column]) -> Option<usize>;
    /// How an error names it.
    fn describe(&self) -> String;
}

impl ColumnIndex for usize {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }

    fn describe(&self) -> String {
        format!("number {self}")
    }
}

impl ColumnIndex for &str {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        columns.iter().position(|column| column.name == *self)
    }

    fn describe(&self) -> String {
        (*self).to_owned()
    }
}

/// A whole result, in memory.
#[derive(Clone, Debug)]
pub struct Rows {
    pub(crate) columns: Arc<[Column]>,
    pub(crate) batches: Vec<Batch>,
    pub(crate) receipt: Receipt,
    pub(crate) position: String,
}

impl Rows {
    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.batches.iter().map(Batch::len).sum()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(Batch::is_empty)
    }

    /// The columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows, in order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Row<'_>> + '_> {
        Box::new(self.batches.iter().flat_map(Batch::rows))
    }

    /// Where the read ran, and why there.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The caller's position token after the read. Empty: none.
    pub fn position(&self) -> &str {
        &self.position
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = Row<'a>;
    type IntoIter = Box<dyn Iterator<Item = Row<'a>> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Puts a result together from its messages, and holds them to the order that the API promises.
#[derive(Debug)]
pub(crate) enum Assembly {
    /// Nothing has arrived.
    Start,
    /// The header has arrived.
    Rows { columns: Arc<[Column]>, receipt: Receipt, seen: u64 },
    /// The summary has arrived.
    Done { columns: Arc<[Column]>, receipt: Receipt, position: String },
}

impl Assembly {
    /// Takes the next message; returns its rows.
    pub(crate) fn accept(&mut self, message: proto::ExecuteReadResponse) -> Result<Option<Batch>, Error> {
        let (columns, receipt, mut seen) = match (std::mem::replace(self, Assembly::Start), message.header) {
            (Assembly::Start, Some(header)) => (header.columns.into(), header.receipt.unwrap_or_default(), 0),
            (Assembly::Rows { columns, receipt, seen }, None) => (columns, receipt, seen),
            (Assembly::Start, None) => return Err(Error::Protocol("a result begins without its header")),
            (Assembly::Rows { .. }, Some(_)) => return Err(Error::Protocol("a result has two headers")),
            (Assembly::Done { .. }, _) => return Err(Error::Protocol("a result goes on after its summary")),
        };
        let batch = message.rows.map(|rows| Batch::new(Arc::clone(&columns), rows)).transpose()?;
        seen += batch.as_ref().map_or(0, |batch| batch.len() as u64);
        *self = match message.summary {
            Some(summary) if summary.row_count != seen => {
                return Err(Error::Protocol("a result has another number of rows than its summary says"));
            }
            Some(summary) => Assembly::Done { columns, receipt, position: summary.position },
            None => Assembly::Rows { columns, receipt, seen },
        };
        Ok(batch.filter(|batch| !batch.is_empty()))
    }

    pub(crate) fn columns(&self) -> &[Column] {
        match self {
            Assembly::Start => &[],
            Assembly::Rows { columns, .. } | Assembly::Done { columns, .. } => columns,
        }
    }

    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        match self {
            Assembly::Start => None,
            Assembly::Rows { receipt, .. } | Assembly::Done { receipt, .. } => Some(receipt),
        }
    }

    /// The position token of the summary, once that has arrived.
    pub(crate) fn position(&self) -> Option<&str> {
        match self {
            Assembly::Done { position, .. } => Some(position),
            Assembly::Start | Assembly::Rows { .. } => None,
        }
    }

    /// The whole result, from its batches.
    pub(crate) fn finish(self, batches: Vec<Batch>) -> Result<Rows, Error> {
        match self {
            Assembly::Done { columns, receipt, position } => Ok(Rows { columns, batches, receipt, position }),
            Assembly::Start | Assembly::Rows { .. } => Err(Error::Cut),
        }
    }
}
