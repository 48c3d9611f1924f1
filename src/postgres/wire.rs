//! The stream of messages from a server, watched on its way to tokio-postgres, which hides what COPY needs to know: that
//! an error came while data is still being sent, how many rows were copied, and that a COPY which was refused at once is
//! answered by one ReadyForQuery too many.
//!
//! tokio-postgres sends two Syncs with a COPY FROM: one behind Execute, one behind the data. A server in copy mode skips
//! the first; one that refused the statement answers both, and the second answer would be taken for that of whatever
//! comes next. A bare ReadyForQuery behind another answers nothing that tokio-postgres ever sends, so it is left out.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};
use tokio_postgres::{
    config::SslMode,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};

use crate::gather::Sharers;

/// Message types of PostgreSQL's protocol, version 3.
const COMMAND_COMPLETE: u8 = b'C';
const DATA_ROW: u8 = b'D';
const ERROR_RESPONSE: u8 = b'E';
const NOTICE_RESPONSE: u8 = b'N';
const NOTIFICATION_RESPONSE: u8 = b'A';
const PARAMETER_STATUS: u8 = b'S';
const READY_FOR_QUERY: u8 = b'Z';

/// Longer tags than `COPY 18446744073709551615` are of no interest.
const TAG_MAX: usize = 26;

/// A message has to be in memory as a whole, and tokio-postgres keeps what it allocated for the largest one until the
/// connection ends: with this, twice as many bytes at most.
const MESSAGE_MAX: u32 = 8 << 20;

/// What was seen on a connection so far.
#[derive(Debug, Default)]
pub(super) struct WireState {
    errors: AtomicU64,
    /// ReadyForQuery messages: one answers each request.
    readies: AtomicU64,
    error: Notify,
    /// The count of the last COPY's command tag, and one; 0: none yet.
    copied: AtomicU64,
    /// A message was larger than [`MESSAGE_MAX`].
    bloated: AtomicBool,
    /// Those whose requests are pipelined on it.
    sharers: Sharers,
}

impl WireState {
    /// How many errors the server has reported.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Acquire)
    }

    /// How many requests the server has answered.
    pub(super) fn readies(&self) -> u64 {
        self.readies.load(Ordering::Acquire)
    }

    /// Those whose requests are pipelined on it.
    pub(super) fn sharers(&self) -> &Sharers {
        &self.sharers
    }

    /// Resolves once there are more errors than `before`.
    pub(super) async fn error_since(&self, before: u64) {
        loop {
            let next = self.error.notified();
            if self.errors() > before {
                return;
            }
            next.await;
        }
    }

    /// Whether more was allocated for a message than is worth keeping.
    pub(super) fn has_bloated(&self) -> bool {
        self.bloated.load(Ordering::Relaxed)
    }

    /// The rows of the COPY that has ended since this was last asked.
    pub(super) fn take_copied(&self) -> Option<u64> {
        self.copied.swap(0, Ordering::AcqRel).checked_sub(1)
    }

    fn saw_error(&self) {
        self.errors.fetch_add(1, Ordering::AcqRel);
        self.error.notify_waiters();
    }

    fn saw_tag(&self, tag: &[u8]) {
        let count = std::str::from_utf8(tag).ok().and_then(|tag| tag.strip_prefix("COPY ")?.parse::<u64>().ok());
        if let Some(count) = count {
            self.copied.store(count.saturating_add(1), Ordering::Release);
        }
    }
}

/// Where in the stream of messages a byte stands.
#[derive(Debug)]
enum Place {
    /// Before a message.
    Type,
    /// In a message's length.
    Length { kind: u8, seen: u8, length: u32 },
    /// In a message's body, of which so much is left.
    Body { kind: u8, left: usize },
}

/// Follows the messages byte by byte, and decides which bytes go on.
#[derive(Debug)]
struct Messages {
    place: Place,
    /// The last answer was a ReadyForQuery.
    is_ready: bool,
    /// The message under way is left out.
    left_out: bool,
    tag: Vec<u8>,
    state: Arc<WireState>,
}

impl Messages {
    fn new(state: Arc<WireState>) -> Messages {
        Messages { place: Place::Type, is_ready: false, left_out: false, tag: Vec::new(), state }
    }

    /// Reads on, and moves what stays to the front; answers how much that is.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let end = match &mut self.place {
                Place::Type => match bytes[at..] {
                    // What long results are made of, one after the other: nothing is noted of them.
                    [DATA_ROW, a, b, c, d, ..] if !self.left_out => {
                        self.is_ready = false;
                        self.has_length(DATA_ROW, u32::from_be_bytes([a, b, c, d]));
                        at + 5
                    }
                    _ => {
                        let kind = bytes[at];
                        self.begin(kind);
                        at + 1
                    }
                },
                Place::Length { kind, seen, length } => {
                    *length = *length << 8 | u32::from(bytes[at]);
                    *seen += 1;
                    if *seen == 4 {
                        let (kind, length) = (*kind, *length);
                        self.has_length(kind, length);
                    }
                    at + 1
                }
                Place::Body { kind, left } => {
                    let part = (*left).min(bytes.len() - at);
                    *left -= part;
                    if *kind == COMMAND_COMPLETE && self.tag.len() < TAG_MAX {
                        self.tag.extend_from_slice(&bytes[at..at + part.min(TAG_MAX - self.tag.len())]);
                    }
                    if *left == 0 {
                        let ended = *kind;
                        self.place = Place::Type;
                        self.end(ended);
                    }
                    at + part
                }
            };
            if !self.left_out {
                if kept != at {
                    bytes.copy_within(at..end, kept);
                }
                kept += end - at;
            } else if matches!(self.place, Place::Type) {
                self.left_out = false;
            }
            at = end;
        }
        kept
    }

    fn begin(&mut self, kind: u8) {
        match kind {
            READY_FOR_QUERY => {
                self.state.readies.fetch_add(1, Ordering::AcqRel);
                self.left_out = std::mem::replace(&mut self.is_ready, true);
            }
            // Said without being asked, at any moment.
            NOTICE_RESPONSE | NOTIFICATION_RESPONSE | PARAMETER_STATUS => {}
            _ => self.is_ready = false,
        }
        if kind == ERROR_RESPONSE {
            self.state.saw_error();
        }
        self.tag.clear();
        self.place = Place::Length { kind, seen: 0, length: 0 };
    }

    fn has_length(&mut self, kind: u8, length: u32) {
        if length > MESSAGE_MAX {
            self.state.bloated.store(true, Ordering::Relaxed);
        }
        // It counts itself.
        let left = (length as usize).saturating_sub(4);
        self.place = if left == 0 { Place::Type } else { Place::Body { kind, left } };
    }

    fn end(&mut self, kind: u8) {
        if kind == COMMAND_COMPLETE {
            let text = self.tag.strip_suffix(&[0]).unwrap_or(&self.tag);
            self.state.saw_tag(text);
        }
    }
}

/// What a socket carries.
#[derive(Debug)]
enum Carries {
    /// The one byte that answers the request for TLS comes first.
    TlsAnswer(Messages),
    /// Messages.
    Messages(Messages),
    /// TLS records: the messages are inside.
    Records,
}

/// A stream whose messages are watched.
#[derive(Debug)]
pub(super) struct Wire<S> {
    inner: S,
    carries: Carries,
}

impl<S> Wire<S> {
    /// A socket, which TLS may be negotiated on.
    pub(super) fn before_tls(inner: S, mode: SslMode, state: Arc<WireState>) -> Wire<S> {
        let messages = Messages::new(state);
        let carries = if mode == SslMode::Disable { Carries::Messages(messages) } else { Carries::TlsAnswer(messages) };
        Wire { inner, carries }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let new = &mut buf.filled_mut()[before..];
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let kept = match &mut this.carries {
                Carries::Records => new.len(),
                Carries::Messages(messages) => messages.pass(new),
                Carries::TlsAnswer(messages) => {
                    // It is read alone: whoever asked waits for it before anything else is sent.
                    let (is_tls, length) = (new[0] == b'S', new.len());
                    let messages = Messages::new(Arc::clone(&messages.state));
                    this.carries = if is_tls { Carries::Records } else { Carries::Messages(messages) };
                    length
                }
            };
            if kept > 0 {
                buf.set_filled(before + kept);
                return Poll::Ready(Ok(()));
            }
            // Nothing of it goes on, which would read as the end of the stream.
            buf.set_filled(before);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Wire<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// TLS whose inside is watched.
pub(super) struct WireTls<T> {
    pub(super) tls: T,
    pub(super) state: Arc<WireState>,
}

impl<S, T> TlsConnect<S> for WireTls<T>
where
    T: TlsConnect<S>,
    T::Future: Future + Send + 'static,
{
    type Stream = Wire<T::Stream>;
    type Error = T::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.tls.connect(stream);
        let carries = Carries::Messages(Messages::new(self.state));
        Box::pin(async move { Ok(Wire { inner: connecting.await?, carries }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a short message");
        [&[kind], length.to_be_bytes().as_slice(), body].concat()
    }

    /// What goes on when the stream comes in pieces of this size.
    fn passed(stream: &[u8], piece: usize) -> (Vec<u8>, Arc<WireState>) {
        let state = Arc::new(WireState::default());
        let mut messages = Messages::new(Arc::clone(&state));
        let mut out = Vec::new();
        for piece in stream.chunks(piece) {
            let mut piece = piece.to_vec();
            let kept = messages.pass(&mut piece);
            out.extend_from_slice(&piece[..kept]);
        }
        (out, state)
    }

    #[test]
    fn a_bare_ready_behind_another_is_left_out_and_nothing_else() {
        let (ready, error) = (message(b'Z', b"E"), message(b'E', b"Ssomething\0\0"));
        let (notice, done) = (message(b'N', b"Snotice\0\0"), message(b'C', b"COPY 12\0"));
        let stream = [&error, &ready, &notice, &ready, &ready, &done, &ready, &message(b'I', b""), &ready];
        let kept = [&error, &ready, &notice, &done, &ready, &message(b'I', b""), &ready];
        for piece in [1, 2, 3, 5, 6, 7, 11, 1000] {
            let (out, state) = passed(&stream.concat_all(), piece);
            assert_eq!(out, kept.concat_all(), "in pieces of {piece}");
            assert_eq!((state.errors(), state.take_copied(), state.take_copied()), (1, Some(12), None));
        }
    }

    #[test]
    fn rows_pass_whole_or_in_pieces() {
        let (ready, done) = (message(b'Z', b"I"), message(b'C', b"COPY 7\0"));
        let rows = [message(b'D', b""), message(b'D', b"Z"), message(b'D', &[b'Z'; 300]), message(b'D', b"C1")];
        // Between two rows anything may come, and behind rows a ReadyForQuery answers.
        let stream = [&ready, &rows[0], &ready, &rows[1], &done, &rows[2], &rows[3], &ready, &ready].concat_all();
        let kept = stream.len() - ready.len();
        for piece in [1, 2, 3, 4, 5, 6, 7, 11, 300, 1000] {
            let (out, state) = passed(&stream, piece);
            assert_eq!(out, stream[..kept], "in pieces of {piece}");
            assert_eq!((state.readies(), state.take_copied(), state.has_bloated()), (4, Some(7), false));
        }
        let mut large = message(b'D', b"");
        large[1..5].copy_from_slice(&(MESSAGE_MAX + 1).to_be_bytes());
        for piece in [1, 1000] {
            assert!(passed(&large, piece).1.has_bloated());
        }
    }

    #[test]
    fn only_the_count_of_a_copy_is_kept() {
        for (tag, copied) in [("COPY 0", Some(0)), ("INSERT 0 5", None), ("COPY", None), ("SELECT 3", None)] {
            let (_, state) = passed(&message(b'C', format!("{tag}\0").as_bytes()), 4);
            assert_eq!(state.take_copied(), copied, "{tag}");
        }
    }

    trait ConcatAll {
        fn concat_all(&self) -> Vec<u8>;
    }

    impl ConcatAll for [&Vec<u8>] {
        fn concat_all(&self) -> Vec<u8> {
            self.iter().flat_map(|part| part.iter().copied()).collect()
        }
    }
}
