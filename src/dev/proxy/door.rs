//! The proxy's listening port: open, or closed so that the system refuses connections while nobody else can take it.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};

use crate::dev::{error::DevError, ports};

const TRIES: usize = 20;
const BACKLOG: u32 = 1024;

/// The port's state.
pub(super) enum Door {
    Open(TcpListener),
    /// Bound, not listening: a client gets "connection refused", and the port stays ours.
    Closed(TcpSocket),
}

impl Door {
    /// Opens one on a free port.
    pub(super) fn open_anywhere() -> Result<(Self, u16), DevError> {
        let mut last = DevError::NoPort { tries: TRIES };
        for _ in 0..TRIES {
            let port = ports::free()?;
            match bind(port).and_then(|socket| socket.listen(BACKLOG)) {
                Ok(listener) => return Ok((Self::Open(listener), port)),
                Err(source) => last = DevError::Io { action: format!("listen on port {port}"), source },
            }
        }
        Err(last)
    }

    /// The next client; never while closed. Can be dropped at any time without losing one.
    pub(super) async fn accept(&self) -> TcpStream {
        let Self::Open(listener) = self else { return pending().await };
        loop {
            match listener.accept().await {
                Ok((client, _)) => return client,
                // Out of file descriptors, or the client left: neither ends the proxy.
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    pub(super) async fn closed(self) -> Self {
        match self {
            Self::Open(listener) => {
                let Ok(address) = listener.local_addr() else { return Self::Open(listener) };
                drop(listener);
                Self::Closed(retry(address.port(), bind).await)
            }
            closed => closed,
        }
    }

    pub(super) async fn opened(self) -> Self {
        match self {
            Self::Closed(socket) => {
                let port = socket.local_addr().map_or(0, |address| address.port());
                match socket.listen(BACKLOG) {
                    Ok(listener) => Self::Open(listener),
                    Err(_) => Self::Open(retry(port, |port| bind(port)?.listen(BACKLOG)).await),
                }
            }
            open => open,
        }
    }
}

fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Closed connections of this port linger in the system: they must not keep us from it.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}

/// Clients know this port, so there is no other: try until it works. The wait of whoever gave the order shows it.
async fn retry<T>(port: u16, attempt: impl Fn(u16) -> io::Result<T>) -> T {
    loop {
        match attempt(port) {
            Ok(done) => return done,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}
