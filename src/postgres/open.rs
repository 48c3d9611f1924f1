//! A client with the task that drives it, and the guard that ends both: whoever drops the guard closes the socket, also
//! while a request is unanswered (a client alone would wait for the answer for ever).

use std::sync::Arc;

use futures_util::future::poll_fn;
use tokio::task::AbortHandle;
use tokio_postgres::{AsyncMessage, Client, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::{ConnectError, ServerError},
    notices::{EndOfNotices, Listener},
    target::{Peer, Socket, Target},
    wire::{Wire, WireState, WireTls},
};
use crate::gather::Gather;

type TlsConnector = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// Closes the connection when dropped.
#[derive(Debug)]
pub(super) struct DriverGuard(AbortHandle);

impl Drop for DriverGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection that is logged in: a client with all that belongs to it.
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) driver: DriverGuard,
    pub(super) peer: Peer,
    pub(super) wire: Arc<WireState>,
    /// What the server says besides.
    pub(super) listener: Listener,
    /// The database's encoding is SQL_ASCII, in which any bytes are text.
    pub(super) is_sql_ascii: bool,
}

/// Connects and logs in; unbounded in time.
pub(super) async fn open(target: &Target, tls: &MakeRustlsConnect, options: &str) -> Result<Opened, ConnectError> {
    // Notices and parameter changes are nobody's business here.
    open_hearing(target, tls, options, |_| {}).await
}

/// The same; `hear` is given what the server says without being asked, and is dropped when the connection has ended.
pub(super) async fn open_hearing(
    target: &Target,
    tls: &MakeRustlsConnect,
    options: &str,
    mut hear: impl FnMut(AsyncMessage) + Send + 'static,
) -> Result<Opened, ConnectError> {
    let (socket, peer) = target.socket().await?;
    let wire = Arc::new(WireState::default());
    let socket =
        Wire::before_tls(Gather::new(socket, wire.sharers().clone()), target.tls.ssl_mode(), Arc::clone(&wire));
    let tls_connect = WireTls { tls: tls_for(tls, target)?, state: Arc::clone(&wire) };
    let connected = target.config(options).connect_raw(socket, tls_connect).await;
    let (client, connection) =
        connected.map_err(|error| ConnectError::from_exchange(&target.address(), error.into()))?;
    let is_sql_ascii = connection.parameter("server_encoding") == Some("SQL_ASCII");
    let listener = Listener::default();
    let (told, end) = (listener.clone(), EndOfNotices(listener.clone()));
    // The task ends with the connection.
    let task = tokio::spawn(async move {
        // Declared last, dropped first: what is heard ends before the requests under way do.
        let mut connection = connection;
        let _end = end;
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notice(notice))) => told.say(ServerError::from(&notice)),
                Some(Ok(message)) => hear(message),
                Some(Err(error)) => {
                    if let Some(error) = error.as_db_error() {
                        told.say(error.into());
                    }
                    return;
                }
                None => return,
            }
        }
    });
    Ok(Opened { client, driver: DriverGuard(task.abort_handle()), peer, wire, listener, is_sql_ascii })
}

/// TLS for one socket to the target.
pub(super) fn tls_for(tls: &MakeRustlsConnect, target: &Target) -> Result<TlsConnector, ConnectError> {
    let mut tls = tls.clone();
    MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, &target.host).map_err(|error| ConnectError::Unreachable {
        host: target.address(),
        reason: error.to_string(),
        refused: false,
    })
}
