//! What stands in front of a result as it travels: columns that are encoded already. The wire's `ReadHeader`, in place of a
//! generated message.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use super::{
    columns::{ColumnSpec, describe},
    error::CodecError,
    wire,
};
use crate::proto;

/// A result's columns, encoded as the fields of the message that they are in: copied as they are into each answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(Bytes);

impl Columns {
    /// Describes a result's columns.
    ///
    /// # Errors
    /// As [`describe`].
    pub fn of<'a>(columns: impl Iterator<Item = ColumnSpec<'a>>) -> Result<Columns, CodecError> {
        Ok(Columns::from(describe(columns)?.as_slice()))
    }

    /// What they take in a message, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

impl From<&[proto::Column]> for Columns {
    fn from(columns: &[proto::Column]) -> Columns {
        let mut fields = Vec::with_capacity(encoding::message::encoded_len_repeated(wire::header::COLUMNS, columns));
        encoding::message::encode_repeated(wire::header::COLUMNS, columns, &mut fields);
        Columns(fields.into())
    }
}

/// What a result looks like and where it comes from: `ReadHeader` of `execute.proto`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadHeader {
    /// The columns.
    pub columns: Columns,
    /// Where it ran.
    pub receipt: Option<proto::Receipt>,
}

impl Message for ReadHeader {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.columns.0);
        if let Some(receipt) = &self.receipt {
            encoding::message::encode(wire::header::RECEIPT, receipt, buf);
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
            wire::header::COLUMNS => {
                let mut column = Vec::new();
                encoding::bytes::merge(wire_type, &mut column, buf, ctx)?;
                let mut fields = self.columns.0.to_vec();
                encoding::bytes::encode(wire::header::COLUMNS, &column, &mut fields);
                self.columns = Columns(fields.into());
                Ok(())
            }
            wire::header::RECEIPT => {
                encoding::message::merge(wire_type, self.receipt.get_or_insert_default(), buf, ctx)
            }
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let receipt = self.receipt.as_ref();
        self.columns.size()
            + receipt.map_or(0, |receipt| encoding::message::encoded_len(wire::header::RECEIPT, receipt))
    }

    fn clear(&mut self) {
        *self = ReadHeader::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire's message, as a client decodes it.
    use tidegate_client::proto as theirs;

    #[test]
    fn clients_see_the_columns_and_the_receipt() {
        let column = |name: &str, type_oid| proto::Column { name: name.into(), type_oid, ..Default::default() };
        let columns = [column("id", 20), column("", 0), column("id", 25)];
        for given in [&columns[..], &columns[..1], &[]] {
            for receipt in
                [None, Some(proto::Receipt::default()), Some(proto::Receipt { attempts: 3, ..Default::default() })]
            {
                let header = ReadHeader { columns: Columns::from(given), receipt };
                let bytes = header.encode_to_vec();
                assert_eq!(bytes.len(), header.encoded_len());
                let seen = theirs::ReadHeader::decode(bytes.as_slice()).unwrap();
                let names: Vec<_> = seen.columns.iter().map(|column| (column.name.as_str(), column.type_oid)).collect();
                let expected: Vec<_> = given.iter().map(|column| (column.name.as_str(), column.type_oid)).collect();
                assert_eq!(names, expected);
                assert_eq!(
                    seen.receipt.map(|receipt| receipt.attempts),
                    header.receipt.as_ref().map(|ours| ours.attempts)
                );
                assert_eq!(ReadHeader::decode(bytes.as_slice()).unwrap(), header);
            }
        }
    }
}
