//! COPY through the caller: data in, piece by piece, with an eye on the server, which may refuse it at any moment; data
//! out, as the server sends it. Both hold up whoever is faster, by the socket.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_postgres::{CopyInSink, CopyOutStream};

use super::{
    connection::{Connection, Prepared},
    error::PgError,
    wire::WireState,
};

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fed {
    /// It is on its way.
    Taken,
    /// The server has reported an error; [`CopyIn::finish`] says which.
    Refused,
}

/// A `COPY … FROM STDIN` under way. Dropping it fails it: the server keeps nothing of it.
pub struct CopyIn {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    wire: Arc<WireState>,
    errors_before: u64,
}

impl CopyIn {
    /// Starts it; the server takes data then. The connection counts as in use.
    ///
    /// # Errors
    /// [`PgError`]
    pub async fn start(connection: &mut Connection, prepared: &Prepared) -> Result<CopyIn, PgError> {
        connection.take_into_use();
        let wire = Arc::clone(&connection.wire);
        let errors_before = wire.errors();
        let sink = connection.client.copy_in(&prepared.statement).await?;
        Ok(CopyIn { sink: Box::pin(sink), wire, errors_before })
    }

    /// Sends a piece; waits while the server does not take it. Small pieces are collected until [`CopyIn::flush`].
    ///
    /// # Errors
    /// [`PgError::Lost`]
    pub async fn feed(&mut self, data: Bytes) -> Result<Fed, PgError> {
        tokio::select! {
            biased;
            () = self.wire.error_since(self.errors_before) => Ok(Fed::Refused),
            sent = self.sink.feed(data) => Ok(sent.map(|()| Fed::Taken)?),
        }
    }

    /// Sends what was collected.
    ///
    /// # Errors
    /// [`PgError::Lost`]
    pub async fn flush(&mut self) -> Result<Fed, PgError> {
        tokio::select! {
            biased;
            () = self.wire.error_since(self.errors_before) => Ok(Fed::Refused),
            sent = self.sink.flush() => Ok(sent.map(|()| Fed::Taken)?),
        }
    }

    /// Resolves when the server has reported an error.
    pub async fn refused(&self) {
        self.wire.error_since(self.errors_before).await;
    }

    /// Ends the data; answers with the number of rows.
    ///
    /// # Errors
    /// [`PgError`]: the server's error, if it has reported one.
    pub async fn finish(&mut self) -> Result<u64, PgError> {
        Ok(self.sink.as_mut().finish().await?)
    }
}

/// A `COPY … TO STDOUT` under way.
pub struct CopyOut {
    stream: Option<Pin<Box<CopyOutStream>>>,
    wire: Arc<WireState>,
    rows: u64,
}

impl CopyOut {
    /// Starts it. The connection counts as in use.
    ///
    /// # Errors
    /// [`PgError`]
    pub async fn start(connection: &mut Connection, prepared: &Prepared) -> Result<CopyOut, PgError> {
        connection.take_into_use();
        let wire = Arc::clone(&connection.wire);
        wire.take_copied();
        let stream = connection.client.copy_out(&prepared.statement).await?;
        Ok(CopyOut { stream: Some(Box::pin(stream)), wire, rows: 0 })
    }

    /// The next piece, as the server cut it; None at the end, when the statement is known to have succeeded.
    ///
    /// # Errors
    /// [`PgError`]
    pub async fn next(&mut self) -> Result<Option<Bytes>, PgError> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        if let Some(piece) = stream.next().await {
            return Ok(Some(piece?));
        }
        // That was the end of the data. The statement's own end follows, which this stream does not expect: what is no
        // error of the server's is that.
        let end = stream.next().await;
        self.stream = None;
        match (self.wire.take_copied(), end) {
            (Some(rows), _) => {
                self.rows = rows;
                Ok(None)
            }
            (None, Some(Err(error))) => Err(error.into()),
            (None, _) => Err(PgError::Protocol("a COPY that ends without its command tag".into())),
        }
    }

    /// How many rows were copied, once that is known.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}
