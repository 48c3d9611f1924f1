//! How messages are put on the wire and taken from it: prost's, with buffers that begin small. tonic gives every call two,
//! and keeps them as long as the call lives: of thousands of sessions that wait, most of the memory was that.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What a buffer begins with, in bytes: enough for an ordinary statement or its answer; it grows by itself.
const BUFFER_BYTES: usize = 256;
/// Messages that are ready are sent together up to this many bytes: tonic's own default.
const YIELD_BYTES: usize = 32 << 10;

/// The codec of the generated services.
#[derive(Debug)]
pub(crate) struct Compact<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Compact<T, U> {
    fn default() -> Self {
        Compact(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for Compact<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = tonic_prost::ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}
