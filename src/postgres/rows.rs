//! Rows as PostgreSQL sent them: bytes in its binary format, not yet values.

use postgres_types::{FromSql, Type};
use tokio_postgres::Row;

/// One row of a result.
pub struct RawRow(Row);

impl RawRow {
    pub(super) fn new(row: Row) -> Self {
        RawRow(row)
    }

    /// Every cell's bytes in PostgreSQL's binary format, None for NULL.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        (0..self.0.len()).map(|index| match self.0.try_get::<_, Option<Cell<'_>>>(index) {
            Ok(cell) => cell.map(|cell| cell.0),
            // `Cell` accepts every type and cannot fail, and the index is in range.
            Err(_) => None,
        })
    }

    /// The size of the row as it came over the wire, in bytes.
    pub fn size(&self) -> usize {
        self.0.raw_size_bytes()
    }
}

struct Cell<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Cell(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
