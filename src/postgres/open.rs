//! A client with the task that drives it, and the guard that ends both: whoever drops the guard closes the socket, also
//! while a request is unanswered (a client alone would wait for the answer for ever).

use futures_util::future::poll_fn;
use tokio::task::AbortHandle;
use tokio_postgres::{Client, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::ConnectError,
    target::{Peer, Socket, Target},
};

/// Closes the connection when dropped.
#[derive(Debug)]
pub(super) struct DriverGuard(AbortHandle);

impl Drop for DriverGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection that is logged in.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) driver: DriverGuard,
    pub(super) peer: Peer,
    /// The database's encoding is SQL_ASCII, in which any bytes are text.
    pub(super) is_sql_ascii: bool,
}

/// Connects and logs in; unbounded in time.
pub(super) async fn open(target: &Target, tls: &MakeRustlsConnect, options: &str) -> Result<Opened, ConnectError> {
    let (socket, peer) = target.socket().await?;
    let tls_connect = tls_for(tls, target)?;
    let connected = target.config(options).connect_raw(socket, tls_connect).await;
    let (client, mut connection) =
        connected.map_err(|error| ConnectError::from_exchange(&target.address(), error.into()))?;
    let is_sql_ascii = connection.parameter("server_encoding") == Some("SQL_ASCII");
    // The task ends with the connection; notices and parameter changes are nobody's business here.
    let task =
        tokio::spawn(
            async move { while let Some(Ok(_)) = poll_fn(|context| connection.poll_message(context)).await {} },
        );
    Ok(Opened { client, driver: DriverGuard(task.abort_handle()), peer, is_sql_ascii })
}

/// TLS for one socket to the target.
pub(super) fn tls_for(
    tls: &MakeRustlsConnect,
    target: &Target,
) -> Result<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect, ConnectError> {
    let mut tls = tls.clone();
    MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, &target.host)
        .map_err(|error| ConnectError::Unreachable { host: target.address(), reason: error.to_string() })
}
