//! What the codec's tests share: a builder whose batches are decoded by messages generated from the proto files, as any
//! client decodes them.

use postgres_types::Type;
use prost::Message;
use tidegate_client::proto;

use super::{BatchBuilder as Builder, CodecError, ColumnSpec, RowBatch};

/// Bytes from their hexadecimal digits.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A builder without a bound, of columns named `1`, `2`, ….
#[derive(Debug)]
pub(super) struct BatchBuilder(pub(super) Builder);

impl BatchBuilder {
    pub(super) fn new(types: &[Type]) -> Result<Self, CodecError> {
        let names: Vec<_> = (1..=types.len()).map(|number| number.to_string()).collect();
        let specs = types.iter().zip(&names).map(|(type_, name)| ColumnSpec { name, type_, type_modifier: -1 });
        Builder::new(specs).map(Self)
    }

    pub(super) fn push_row<'a>(&mut self, cells: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), CodecError> {
        self.0.push_row(cells, usize::MAX)
    }

    pub(super) fn encoded_size(&self) -> usize {
        self.0.encoded_size()
    }

    pub(super) fn row_count(&self) -> usize {
        self.0.row_count()
    }

    /// The batch as a client sees it, which must be, to the byte, what generated messages make of it.
    pub(super) fn take(&mut self) -> proto::RowBatch {
        let size = self.encoded_size();
        let batch = self.0.take();
        assert_eq!(batch.encoded_len(), size);
        let bytes = batch.encode_to_vec();
        assert_eq!(bytes.len(), size);
        assert_eq!(RowBatch::decode(bytes.as_slice()).unwrap(), batch);
        let decoded = proto::RowBatch::decode(bytes.as_slice()).unwrap();
        assert_eq!(decoded.encode_to_vec(), bytes);
        decoded
    }
}
