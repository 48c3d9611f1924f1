//! Cancelling what runs on a connection, without hitting what comes next on it (rule 15).

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio_postgres::CancelToken;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    connection::tls_for,
    error::ConnectError,
    target::{Socket, Target},
};

/// How long after a cancel it is sent again; doubles each time, up to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Cancels what runs on one connection.
#[derive(Clone)]
pub struct Canceller {
    pub(super) token: CancelToken,
    pub(super) target: Arc<Target>,
    pub(super) tls: MakeRustlsConnect,
}

impl Canceller {
    /// Asks the server to cancel what runs, and returns once the server has acted: it closes the cancel's stream only
    /// after it has sent the signal. Bounded by the target's connect timeout.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let limit = self.target.connect_timeout;
        let timed_out = ConnectError::TimedOut { host: self.target.address(), limit };
        tokio::time::timeout(limit, self.cancel_unbounded()).await.unwrap_or(Err(timed_out))
    }

    /// Cancels until what runs has ended: a cancel that arrives before its statement does is lost. A cancel is always
    /// awaited to its end, and one may still be on its way to whatever is sent next.
    pub async fn until<T>(&self, ended: impl Future<Output = T>) -> T {
        let mut ended = pin!(ended);
        let (mut pause, most) = AGAIN;
        loop {
            if let Err(error) = self.cancel().await {
                tracing::debug!(%error, "a cancel request could not be delivered");
            }
            if let Ok(ended) = tokio::time::timeout(pause, &mut ended).await {
                return ended;
            }
            pause = most.min(pause * 2);
        }
    }

    async fn cancel_unbounded(&self) -> Result<(), ConnectError> {
        let unreachable = |reason: String| ConnectError::Unreachable { host: self.target.address(), reason };
        let (socket, mut eof) =
            split_off_reader(self.target.socket().await?).map_err(|e| unreachable(e.to_string()))?;
        let tls_connect = tls_for(&self.tls, &self.target)?;
        self.token.cancel_query_raw(socket, tls_connect).await.map_err(|e| unreachable(e.to_string()))?;
        let read = tokio::io::copy(&mut eof, &mut tokio::io::sink()).await;
        // A reset instead of an orderly end also says that the server has closed it.
        drop(read);
        Ok(())
    }
}

/// Two handles to one socket: the cancel request consumes its own, the other reads on to the end.
fn split_off_reader(socket: Socket) -> std::io::Result<(Socket, Socket)> {
    use tokio::net::{TcpStream, UnixStream};
    use tokio_util::either::Either;
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
