//! Cancelling what runs on a connection, without hitting what comes next on it (rule 15).

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_postgres::CancelToken;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::{either::Either, sync::CancellationToken};

use super::{
    error::ConnectError,
    open::tls_for,
    target::{Peer, Socket, Target},
};

/// How long after a cancel it is sent again; doubles each time, up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How often, when nobody says that what ran has ended; and when nobody waits for it any more.
const ATTEMPTS: (u32, u32) = (12, 3);

/// A cancel that is sent again and again, since one that arrives before its statement does is lost.
pub(super) struct Cancelling {
    ended: CancellationToken,
    abandoned: CancellationToken,
    task: Option<JoinHandle<bool>>,
}

impl Cancelling {
    /// Starts in the background; goes on for a few attempts more when this is dropped.
    pub(super) fn start(token: CancelToken, target: Arc<Target>, tls: MakeRustlsConnect, peer: Peer) -> Cancelling {
        let (ended, abandoned) = (CancellationToken::new(), CancellationToken::new());
        let canceller = Canceller { token, target, tls, peer };
        let task = Some(tokio::spawn(canceller.run(ended.clone(), abandoned.clone())));
        Cancelling { ended, abandoned, task }
    }

    /// What ran has ended. True once the server has acted on every cancel, for certain.
    pub(super) async fn finish(mut self) -> bool {
        self.ended.cancel();
        match self.task.take() {
            Some(task) => task.await.unwrap_or(false),
            None => false,
        }
    }
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.abandoned.cancel();
    }
}

struct Canceller {
    token: CancelToken,
    target: Arc<Target>,
    tls: MakeRustlsConnect,
    peer: Peer,
}

impl Canceller {
    async fn run(self, ended: CancellationToken, abandoned: CancellationToken) -> bool {
        let (mut pause, most) = AGAIN;
        let mut certain = true;
        for attempt in 0..ATTEMPTS.0 {
            if abandoned.is_cancelled() && attempt >= ATTEMPTS.1 {
                break;
            }
            let delivery = tokio::time::timeout(self.target.connect_timeout, self.deliver()).await;
            certain &= matches!(delivery, Ok(Ok(())));
            if ended.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            pause = most.min(pause * 2);
        }
        certain
    }

    /// Sends the cancel and reads its stream to the end: the server closes it only after it has sent the signal. It goes
    /// to the address that the connection was made to, whatever its name leads to by now.
    async fn deliver(&self) -> Result<(), ConnectError> {
        let unreachable =
            |reason: String| ConnectError::Unreachable { host: self.target.address(), reason, refused: false };
        let socket = self.target.socket_to(&self.peer).await?;
        let (socket, mut eof) = split_off_reader(socket).map_err(|error| unreachable(error.to_string()))?;
        let tls_connect = tls_for(&self.tls, &self.target)?;
        let sent = self.token.cancel_query_raw(HeldOpen(socket), tls_connect).await;
        sent.map_err(|error| unreachable(error.to_string()))?;
        match tokio::io::copy(&mut eof, &mut tokio::io::sink()).await {
            Ok(_) => Ok(()),
            // A reset instead of an orderly end also says that the server has closed it; a timeout says nothing.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => Ok(()),
            Err(error) => Err(unreachable(error.to_string())),
        }
    }
}

/// A socket that is not shut down behind what is written: PgBouncer 1.18 takes that for a client that has left, and ends
/// itself when the cancel is through. The other handle closes it, at the server's end of the stream.
struct HeldOpen(Socket);

impl AsyncRead for HeldOpen {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for HeldOpen {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Two handles to one socket: the cancel request consumes its own, the other reads on to the end.
fn split_off_reader(socket: Socket) -> std::io::Result<(Socket, Socket)> {
    Ok(match socket {
        Either::Left(tcp) => {
            let tcp = tcp.into_std()?;
            let reader = TcpStream::from_std(tcp.try_clone()?)?;
            (Either::Left(TcpStream::from_std(tcp)?), Either::Left(reader))
        }
        Either::Right(unix) => {
            let unix = unix.into_std()?;
            let reader = UnixStream::from_std(unix.try_clone()?)?;
            (Either::Right(UnixStream::from_std(unix)?), Either::Right(reader))
        }
    })
}
