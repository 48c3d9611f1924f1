//! How messages become bytes and bytes messages: prost's encoding, in buffers of the size that a message needs. tonic's
//! own codec sets aside 8 KiB for each direction of each call, for as long as that lives (of thousands of sessions that wait, most
//! of the memory was that), and lets the buffer of a large message grow step by step.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// What is set aside before a message's size is known, in bytes: most answers to point reads, and most requests, fit.
const FIRST_BUFFER_BYTES: usize = 512;
/// Messages that are ready are sent together up to so many bytes; tonic's own default.
const TOGETHER_BYTES: usize = 32 << 10;

/// The codec of all methods; named by the generated code.
pub(crate) struct SizedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SizedCodec<T, U> {
    fn default() -> Self {
        SizedCodec(PhantomData)
    }
}

impl<T, U> Codec for SizedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedCodec<T, U>;
    type Decoder = SizedCodec<T, U>;

    fn encoder(&mut self) -> Self::Encoder {
        Self::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self::default()
    }
}

impl<T: Message, U> Encoder for SizedCodec<T, U> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.encoded_len());
        item.encode(buf).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(FIRST_BUFFER_BYTES, TOGETHER_BYTES)
    }
}

impl<T, U: Message + Default> Decoder for SizedCodec<T, U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The text that tonic's own codec gives: clients know it.
        U::decode(buf).map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(FIRST_BUFFER_BYTES, TOGETHER_BYTES)
    }
}
