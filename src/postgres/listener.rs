//! A connection that listens: LISTEN and UNLISTEN on a primary, what is notified handed on as it comes, and a way to find
//! out whether the server is still there. Who listens to what is `broker::listen`'s.

use std::time::Duration;

use tokio_postgres::{AsyncMessage, Client};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Facts, Purpose},
    error::{ConnectError, PgError},
    open::{self, DriverGuard, Opened},
    pool::HostIdentity,
    target::Target,
};

/// One NOTIFY, as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The channel.
    pub channel: String,
    /// The payload; empty: none.
    pub payload: String,
}

/// A listening connection. Dropping it closes the socket at once.
pub struct Listener {
    client: Client,
    _driver: DriverGuard,
    facts: Facts,
    ended: CancellationToken,
}

impl Listener {
    /// Connects to a primary, within the target's `connect_timeout`. `hear` is called for each notification, in the
    /// order of the server, and must not wait: until it returns nothing else is read.
    ///
    /// # Errors
    /// [`ConnectError`]; also when the server is a standby, or not the one that the host is known to be.
    pub async fn open(
        target: &Target,
        identity: &HostIdentity,
        hear: impl Fn(Heard) + Send + 'static,
    ) -> Result<Listener, ConnectError> {
        let limit = target.connect_timeout;
        match tokio::time::timeout(limit, Self::open_unbounded(target, identity, hear)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::TimedOut { host: target.address(), limit }),
        }
    }

    async fn open_unbounded(
        target: &Target,
        identity: &HostIdentity,
        hear: impl Fn(Heard) + Send + 'static,
    ) -> Result<Listener, ConnectError> {
        let ended = CancellationToken::new();
        // Dropped with the driver, however that ends.
        let ending = ended.clone().drop_guard();
        let hear = move |message| {
            let _ending = &ending;
            if let AsyncMessage::Notification(heard) = message {
                hear(Heard { channel: heard.channel().to_owned(), payload: heard.payload().to_owned() });
            }
        };
        let Opened { client, driver, .. } = open::open_hearing(target, &target.tls_connector(), "", hear).await?;
        let facts = Facts::ask(&client).await.map_err(|error| ConnectError::from_exchange(&target.address(), error))?;
        identity.check(target, Purpose::Write, &facts)?;
        Ok(Listener { client, _driver: driver, facts, ended })
    }

    /// What the server said when the connection was made.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Resolves when the connection has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// LISTEN and UNLISTEN, together; once it is answered, what is notified on the new channels arrives.
    ///
    /// # Errors
    /// [`PgError`]; also when there is no answer within `limit`.
    pub async fn change<'a>(
        &self,
        listen: impl IntoIterator<Item = &'a str>,
        unlisten: impl IntoIterator<Item = &'a str>,
        limit: Duration,
    ) -> Result<(), PgError> {
        let listen = listen.into_iter().map(|channel| format!("LISTEN {};", quoted(channel)));
        let unlisten = unlisten.into_iter().map(|channel| format!("UNLISTEN {};", quoted(channel)));
        let sql: String = listen.chain(unlisten).collect();
        self.ask(&sql, limit).await
    }

    /// Asks for nothing, to hear whether the server still answers.
    ///
    /// # Errors
    /// [`PgError`]; also when there is no answer within `limit`.
    pub async fn ping(&self, limit: Duration) -> Result<(), PgError> {
        self.ask("", limit).await
    }

    async fn ask(&self, sql: &str, limit: Duration) -> Result<(), PgError> {
        let late = || PgError::Lost(format!("no answer within {}s", limit.as_secs_f64()));
        Ok(tokio::time::timeout(limit, self.client.batch_execute(sql)).await.map_err(|_| late())??)
    }
}

/// A name in quotes: any text without a NUL character is one.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        for (name, sql) in [("a", r#""a""#), (r#"a"b"#, r#""a""b""#), ("A; DROP TABLE t", r#""A; DROP TABLE t""#)] {
            assert_eq!(quoted(name), sql);
        }
    }
}
