//! The stream of messages from a server, watched on its way to tokio-postgres, which hides what COPY needs to know: that
//! an error came while data is still being sent, how many rows were copied, and that a COPY which was refused at once is
//! answered by one ReadyForQuery too many.
//!
//! tokio-postgres sends two Syncs with a COPY FROM: one behind Execute, one behind the data. A server in copy mode skips
//! the first; one that refused the statement answers both, and the second answer would be taken for that of whatever
//! comes next. A bare ReadyForQuery behind another answers nothing that tokio-postgres ever sends, so it is left out.

mod messages;

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

use self::messages::Messages;
use crate::gather::Sharers;

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
