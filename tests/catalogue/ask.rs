//! Asks the broker, and looks at its answers as the wire has them.

use tidegate_client::{
    Error,
    proto::{self, ColumnKind, value::Kind},
};

use crate::{
    asking::{Stub, read_request, stub},
    harness::Bed,
};

/// The broker as a caller sees it.
pub struct Broker(Stub);

/// A result, row by row.
pub struct Answer {
    pub kinds: Vec<ColumnKind>,
    pub rows: Vec<Vec<proto::Value>>,
}

impl Broker {
    pub async fn of(bed: &Bed) -> Broker {
        Broker(stub(bed).await)
    }

    pub async fn select(&mut self, sql: &str, params: Vec<proto::Value>) -> Result<Answer, Error> {
        let mut stream = self.0.execute_read(read_request(sql, params)).await?.into_inner();
        let mut answer = Answer { kinds: vec![], rows: vec![] };
        while let Some(message) = stream.message().await? {
            if let Some(header) = message.header {
                answer.kinds = header.columns.iter().map(proto::Column::kind).collect();
            }
            if let Some(batch) = message.rows {
                let cell = |row, (kind, column): (&ColumnKind, &proto::ColumnValues)| cell(*kind, column, row);
                let row = |row| answer.kinds.iter().zip(&batch.columns).map(|column| cell(row, column)).collect();
                answer.rows.extend((0..batch.row_count as usize).map(row));
            }
        }
        Ok(answer)
    }
}

/// A value of a column, as it would be given as a parameter; what comes in binary as bytes.
fn cell(kind: ColumnKind, column: &proto::ColumnValues, row: usize) -> proto::Value {
    let is_null = column.nulls.get(row / 8).is_some_and(|bits| bits >> (row % 8) & 1 == 1);
    let kind = match kind {
        _ if is_null => Kind::NullValue(0),
        ColumnKind::Bool => Kind::BoolValue(column.bools[row]),
        ColumnKind::Int64 => Kind::Int64Value(column.int64s[row]),
        ColumnKind::Double => Kind::DoubleValue(column.doubles[row]),
        ColumnKind::Text => Kind::TextValue(column.texts[row].clone()),
        ColumnKind::Bytes | ColumnKind::Raw => Kind::BytesValue(column.blobs[row].clone()),
        ColumnKind::Nested => return column.nested[row].clone(),
        ColumnKind::Unspecified => panic!("a column without a kind"),
    };
    proto::Value { kind: Some(kind) }
}

/// The text of a value; None for NULL.
pub fn text_of(value: &proto::Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::NullValue(_)) => None,
        Some(Kind::TextValue(text)) => Some(text),
        other => panic!("not a text: {other:?}"),
    }
}

/// A row of texts.
pub fn texts(row: &[proto::Value]) -> Vec<String> {
    row.iter().map(|value| text_of(value).unwrap_or_default().to_owned()).collect()
}

pub fn is_null(value: &proto::Value) -> bool {
    matches!(value.kind, Some(Kind::NullValue(_)))
}
