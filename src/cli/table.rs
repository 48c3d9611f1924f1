//! Rows as people read them: an aligned table, printed as the rows arrive, and the text form of each value.

use std::io::{self, Write};

use tidegate_client::{Array, Batch, Column, ColumnKind, Value, ValueRef};

/// A column is padded to this many characters at most; longer values stand out of line.
const WIDTH_MAX: usize = 60;

/// A table whose column widths come from its first batch, so that nothing but one batch is held in memory.
pub(super) struct Table {
    columns: Vec<TableColumn>,
    printed_head: bool,
    rows: u64,
}

struct TableColumn {
    name: String,
    right: bool,
    width: usize,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        let columns = columns.iter().map(|column| TableColumn {
            name: visible(&column.name),
            right: matches!(column.kind(), ColumnKind::Int64 | ColumnKind::Double) || column.type_name == "numeric",
            width: column.name.chars().count().min(WIDTH_MAX),
        });
        Table { columns: columns.collect(), printed_head: false, rows: 0 }
    }

    /// Prints the rows of a batch, the first time behind the head.
    pub(super) fn print(&mut self, out: &mut impl Write, batch: &Batch) -> io::Result<()> {
        let rows: Vec<Vec<String>> = batch.rows().map(|row| row.values().map(text).collect()).collect();
        if !self.printed_head {
            self.widen(&rows);
            self.print_head(out)?;
        }
        for row in &rows {
            self.print_line(out, row.iter().map(String::as_str), |column| column.right)?;
        }
        self.rows += rows.len() as u64;
        Ok(())
    }

    /// Prints the number of rows, and the head if there were none.
    pub(super) fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        if !self.printed_head {
            self.print_head(out)?;
        }
        writeln!(out, "({} row{})", self.rows, if self.rows == 1 { "" } else { "s" })
    }

    fn widen(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (column, value) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(value.chars().count().min(WIDTH_MAX));
            }
        }
    }

    fn print_head(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.printed_head = true;
        self.print_line(out, self.columns.iter().map(|column| column.name.as_str()), |_| false)?;
        let rules: Vec<String> = self.columns.iter().map(|column| "-".repeat(column.width + 2)).collect();
        writeln!(out, "{}", rules.join("+"))
    }

    fn print_line<'a>(
        &self,
        out: &mut impl Write,
        values: impl Iterator<Item = &'a str>,
        right: fn(&TableColumn) -> bool,
    ) -> io::Result<()> {
        let mut line = String::new();
        for (column, value) in self.columns.iter().zip(values) {
            line.push_str(if line.is_empty() { " " } else { " | " });
            let padding = " ".repeat(column.width.saturating_sub(value.chars().count()));
            if right(column) {
                line.push_str(&padding);
            }
            line.push_str(value);
            if !right(column) {
                line.push_str(&padding);
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// A value as people read it: PostgreSQL's text form, with control characters made visible.
pub(super) fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Bool(it) => if it { "t" } else { "f" }.to_owned(),
        ValueRef::Int64(it) => it.to_string(),
        ValueRef::Double(it) => double(it),
        ValueRef::Text(it) => visible(it),
        ValueRef::Bytes(it) | ValueRef::Raw(it) => hex(it),
        ValueRef::Nested(it) => nested(it),
    }
}

/// A byte string in PostgreSQL's hex form.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("\\x{}", digits.collect::<String>())
}

fn double(value: f64) -> String {
    match value {
        _ if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ if value == 0.0 || value.is_nan() || (1e-4..1e15).contains(&value.abs()) => value.to_string(),
        _ => format!("{value:e}"),
    }
}

fn visible(text: &str) -> String {
    if text.contains(char::is_control) {
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
    } else {
        text.to_owned()
    }
}

fn nested(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(it) => text(ValueRef::Bool(*it)),
        Value::Int64(it) => it.to_string(),
        Value::Double(it) => double(*it),
        Value::Text(it) => quoted(&visible(it)),
        Value::Bytes(it) => quoted(&hex(it)),
        Value::Array(it) => array(it),
        Value::Row(fields) => format!("({})", fields.iter().map(nested).collect::<Vec<_>>().join(",")),
    }
}

fn array(array: &Array) -> String {
    let lengths: Vec<usize> = array.dimensions.iter().map(|&length| length.try_into().unwrap_or(0)).collect();
    dimension(&array.elements, lengths.get(1..).unwrap_or(&[]))
}

/// One dimension of an array; `inner` are the lengths of the dimensions in it.
fn dimension(elements: &[Value], inner: &[usize]) -> String {
    let stride: usize = inner.iter().product();
    let parts: Vec<String> = match inner {
        [_, rest @ ..] if stride > 0 => elements.chunks(stride).map(|part| dimension(part, rest)).collect(),
        _ => elements.iter().map(nested).collect(),
    };
    format!("{{{}}}", parts.join(","))
}

/// An element's text, in quotes where it could be taken for something else.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| c.is_whitespace() || "{}(),\"\\".contains(c));
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use tidegate_client::{Array, Column, ColumnKind, Value, ValueRef};

    use super::{Table, text};

    #[test]
    fn values_read_as_in_postgres() {
        let matrix = Value::Array(Array {
            elements: (1..=4_i64).map(Value::from).collect(),
            dimensions: vec![2, 2],
            lower_bounds: vec![1, 1],
        });
        let texts = Value::array(["a", "", "NULL", "b c", "q\"q"]);
        let row = Value::Row(vec![Value::Int64(1), Value::Null, Value::Bool(true)]);
        let cases = [
            (ValueRef::Null, "NULL"),
            (ValueRef::Bool(false), "f"),
            (ValueRef::Int64(-7), "-7"),
            (ValueRef::Double(1.5), "1.5"),
            (ValueRef::Double(1e300), "1e300"),
            (ValueRef::Double(f64::NEG_INFINITY), "-Infinity"),
            (ValueRef::Text("two\nlines \u{1b}[31m"), "two\\nlines \\u{1b}[31m"),
            (ValueRef::Bytes(&[0, 255]), "\\x00ff"),
            (ValueRef::Nested(&matrix), "{{1,2},{3,4}}"),
            (ValueRef::Nested(&texts), r#"{a,"","NULL","b c","q\"q"}"#),
            (ValueRef::Nested(&row), "(1,NULL,t)"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn a_table_without_rows_has_a_head() {
        let column =
            |name: &str, kind: ColumnKind| Column { name: name.into(), kind: kind.into(), ..Column::default() };
        let table = Table::new(&[column("id", ColumnKind::Int64), column("name", ColumnKind::Text)]);
        let mut out = Vec::new();
        table.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), " id | name\n----+------\n(0 rows)\n");
    }

    #[test]
    fn numbers_are_right_aligned_and_long_values_stand_out() {
        let column =
            |name: &str, kind: ColumnKind| Column { name: name.into(), kind: kind.into(), ..Column::default() };
        let mut table = Table::new(&[column("id", ColumnKind::Int64), column("name", ColumnKind::Text)]);
        table.widen(&[vec!["100".into(), "blue".into()]]);
        let mut out = Vec::new();
        table.print_line(&mut out, ["7", "x"].into_iter(), |column| column.right).unwrap();
        table.print_line(&mut out, ["10000", "x"].into_iter(), |column| column.right).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "   7 | x\n 10000 | x\n");
    }
}
