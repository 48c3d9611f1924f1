//! The limit on request messages: what is larger is refused before it is read, with both figures. tonic has a limit too,
//! but says little when it is passed; here it bounds only what a compressed message becomes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame};
use tonic::{Code, Status, body::Body};

use super::status;
use crate::broker::{Failure, Reason};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One byte that says whether a message is compressed, four with its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// A request whose messages may have so many bytes each.
pub(super) fn request(request: Request<Body>, limit: usize) -> Request<Body> {
    request.map(|inner| Body::new(Limited::new(inner, limit)))
}

/// Gives the full account to an answer of tonic's own that says no more than that a compressed message became too large:
/// every RESOURCE_EXHAUSTED of the broker has its details.
pub(super) fn response(response: Response<Body>, limit: usize) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(given) if is_decompressed_too_large(&given) => status::status(&decompressed_too_large(limit)).into_http(),
        _ => response,
    }
}

/// The failure of a stream of requests that ended with this status; none if that was not for a message's size.
pub(super) fn failure(given: &Status, limit: usize) -> Option<Failure> {
    if is_decompressed_too_large(given) {
        return Some(decompressed_too_large(limit));
    }
    let is_ours = given.code() == Code::ResourceExhausted;
    is_ours.then(|| Failure::new(Reason::RequestTooLarge, given.message()))
}

fn is_decompressed_too_large(given: &Status) -> bool {
    given.code() == Code::ResourceExhausted && given.details().is_empty()
}

fn decompressed_too_large(limit: usize) -> Failure {
    too_large(format_args!("decompresses to more than {limit} bytes"), limit)
}

fn too_large(what: std::fmt::Arguments<'_>, limit: usize) -> Failure {
    let message = format!(
        "the request message {what}, and the broker takes {limit} at most (grpc.max_request_bytes); send less at once"
    );
    Failure::new(Reason::RequestTooLarge, message)
}

/// A body that ends with a status where a message begins that is too large.
pub(super) struct Limited<B> {
    inner: B,
    limit: usize,
    prefix: Prefix,
    refused: Option<Status>,
}

impl<B> Limited<B> {
    pub(super) fn new(inner: B, limit: usize) -> Limited<B> {
        Limited { inner, limit, prefix: Prefix::default(), refused: None }
    }
}

/// How far into a message, or into what stands before it, the data has come.
#[derive(Default)]
struct Prefix {
    bytes: [u8; PREFIX_BYTES],
    seen: usize,
    /// What is left of the message.
    left: usize,
}

impl Prefix {
    /// Follows the data. Of a message above the limit, answers its size and where the data before it ends.
    fn follow(&mut self, data: &[u8], limit: usize) -> Option<(usize, usize)> {
        let mut at = 0;
        while at < data.len() {
            if self.left > 0 {
                let step = self.left.min(data.len() - at);
                self.left -= step;
                at += step;
                continue;
            }
            let begins = at;
            while self.seen < PREFIX_BYTES && at < data.len() {
                self.bytes[self.seen] = data[at];
                self.seen += 1;
                at += 1;
            }
            if self.seen == PREFIX_BYTES {
                let [_, length @ ..] = self.bytes;
                self.seen = 0;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if self.left > limit {
                    return Some((self.left, begins));
                }
            }
        }
        None
    }
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes, Error: Into<Error>> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Some(Err(status.into())));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let frame = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        let Some((size, good)) = this.prefix.follow(&frame, this.limit) else {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        };
        let refused = status::status(&too_large(format_args!("takes {size} bytes"), this.limit));
        if good == 0 {
            return Poll::Ready(Some(Err(refused.into())));
        }
        // The messages before it are to be served.
        this.refused = Some(refused);
        Poll::Ready(Some(Ok(Frame::data(frame.slice(..good)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the data is cut, the first message above the limit is found, and where it begins.
    #[test]
    fn messages_are_followed_over_any_cuts() {
        let mut data = Vec::new();
        for length in [0_u32, 7, 10, 1] {
            data.push(0);
            data.extend(length.to_be_bytes());
            data.extend(std::iter::repeat_n(0xff, length as usize));
        }
        let good = data.len();
        data.extend([1, 0, 0, 0, 11, 5]);
        for cut in 1..=data.len() {
            let mut prefix = Prefix::default();
            let mut found = None;
            for (at, piece) in data.chunks(cut).enumerate() {
                if let Some((size, begins)) = prefix.follow(piece, 10) {
                    found = Some((size, at * cut + begins));
                    break;
                }
            }
            let (size, begins) = found.expect("the last one is too large");
            assert_eq!(size, 11, "cut at {cut}");
            // Within a prefix that was cut, its first bytes are passed on: they are no message yet.
            assert!(begins >= good && begins < good + PREFIX_BYTES, "cut at {cut}: {begins}");
            assert_eq!(Prefix::default().follow(&data[..good], 10), None);
        }
    }
}
