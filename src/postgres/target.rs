//! Where a connection leads and how it is made: address, login, TLS, start-up options.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::net::{TcpStream, UnixStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use super::{error::ConnectError, tls::Tls};

/// A socket to PostgreSQL: TCP, or a Unix-domain socket.
pub(super) type Socket = Either<TcpStream, UnixStream>;

/// Where a socket leads, once the name is resolved.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    Unix(String),
}

/// One server and one login on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// A name, an address, or the folder of a Unix-domain socket (starts with `/`).
    pub host: String,
    /// The address to connect to when the name was resolved already; certificates are held against `host` all the same.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The login role.
    pub user: String,
    /// Its password, if one is to be sent.
    pub password: Option<String>,
    /// The PostgreSQL database.
    pub dbname: String,
    /// Encryption.
    pub tls: Tls,
    /// A bound on the whole set-up of a connection: resolve, connect, TLS, log in, first questions.
    pub connect_timeout: Duration,
    /// What `pg_stat_activity.application_name` shows.
    pub application_name: String,
}

impl Target {
    /// `host:port`, for messages; with the address that it was found at.
    pub fn address(&self) -> String {
        if let Some(ip) = self.ip.filter(|ip| ip.to_string() != self.host) {
            format!("{}:{} ({ip})", self.host, self.port)
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The same server and login, another database.
    pub fn with_database(&self, dbname: &str) -> Target {
        Target { dbname: dbname.to_owned(), ..self.clone() }
    }

    pub(super) fn tls_connector(&self) -> MakeRustlsConnect {
        self.tls.connector()
    }

    pub(super) fn config(&self, options: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.user)
            .dbname(&self.dbname)
            .application_name(&self.application_name)
            .ssl_mode(self.tls.ssl_mode());
        // A proxy refuses the very name.
        if !options.is_empty() {
            config.options(options);
        }
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }

    /// Opens a socket, tuned to notice a dead peer: keepalive after 20 s, unanswered data for 30 s at most. Also says
    /// which of the name's addresses answered.
    pub(super) async fn socket(&self) -> Result<(Socket, Peer), ConnectError> {
        if self.host.starts_with('/') {
            let peer = Peer::Unix(format!("{}/.s.PGSQL.{}", self.host, self.port));
            return Ok((self.socket_to(&peer).await?, peer));
        }
        if let Some(ip) = self.ip {
            let peer = Peer::Tcp(SocketAddr::new(ip, self.port));
            return Ok((self.socket_to(&peer).await?, peer));
        }
        let resolved = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut failure = self.unreachable("the name has no address");
        for address in resolved.map_err(|error| self.unreachable(error))? {
            let peer = Peer::Tcp(address);
            match self.socket_to(&peer).await {
                Ok(socket) => return Ok((socket, peer)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Opens a socket to that very address.
    pub(super) async fn socket_to(&self, peer: &Peer) -> Result<Socket, ConnectError> {
        match peer {
            Peer::Unix(path) => {
                Ok(Either::Right(UnixStream::connect(path).await.map_err(|error| self.not_connected(&error))?))
            }
            Peer::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| self.not_connected(&error))?;
                tune(&stream).map_err(|error| self.unreachable(error))?;
                Ok(Either::Left(stream))
            }
        }
    }

    fn unreachable(&self, reason: impl fmt::Display) -> ConnectError {
        ConnectError::Unreachable { host: self.address(), reason: reason.to_string(), refused: false }
    }

    fn not_connected(&self, error: &std::io::Error) -> ConnectError {
        let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
        ConnectError::Unreachable { host: self.address(), reason: error.to_string(), refused }
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(5))
        .with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(30)))?;
    Ok(())
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the password.
        write!(f, "{}@{}/{}", self.user, self.address(), self.dbname)
    }
}
