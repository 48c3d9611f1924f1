//! A read: its options, and the stream of its rows.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::Sleep;
use tonic::Streaming;

use crate::{
    error::Error,
    positions::Positions,
    proto::{self, Column, Consistency, Receipt},
    rows::{Assembly, Batch, Rows},
};

/// How a read is to run. What is not set is as the broker's defaults and the client's have it.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    pub(crate) consistency: Consistency,
    pub(crate) max_staleness: Option<Duration>,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) max_message_bytes: u32,
    pub(crate) timeout: Option<Duration>,
    pub(crate) operation: String,
}

impl ReadOptions {
    /// Nothing set: session consistency.
    pub fn new() -> Self {
        ReadOptions::default()
    }

    /// How fresh the read must be.
    #[must_use]
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// A replica may be this far behind: sets [`Consistency::Bounded`] too.
    #[must_use]
    pub fn max_staleness(mut self, limit: Duration) -> Self {
        self.max_staleness = Some(limit);
        self.consistency = Consistency::Bounded;
        self
    }

    /// How long to wait for a replica to catch up before the primary is asked: for session, causal and bounded consistency.
    /// Not set: as the broker is configured; zero: not at all.
    #[must_use]
    pub fn max_wait(mut self, limit: Duration) -> Self {
        self.max_wait = Some(limit);
        self
    }

    /// The largest message to accept, in bytes.
    #[must_use]
    pub fn max_message_bytes(mut self, bytes: u32) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// How long the read may take, its stream of rows included.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A label for routing rules and metrics.
    #[must_use]
    pub fn operation(mut self, label: impl Into<String>) -> Self {
        self.operation = label.into();
        self
    }

    /// Fills in the client's own settings.
    pub(crate) fn or(mut self, timeout: Option<Duration>, max_message_bytes: u32) -> Self {
        self.timeout = self.timeout.or(timeout);
        if self.max_message_bytes == 0 {
            self.max_message_bytes = max_message_bytes;
        }
        self
    }

    pub(crate) fn to_proto(&self) -> proto::ReadOptions {
        proto::ReadOptions {
            consistency: self.consistency.into(),
            max_staleness: self.max_staleness.and_then(wire_duration),
            max_wait: self.max_wait.and_then(wire_duration),
            max_message_bytes: self.max_message_bytes,
        }
    }
}

/// A duration as the wire has it; nothing for one of more than 292 billion years.
pub(crate) fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// The rows of a read, as they arrive.
#[derive(Debug)]
pub struct ReadStream {
    stream: Streaming<proto::ExecuteReadResponse>,
    deadline: Option<Pin<Box<Sleep>>>,
    assembly: Assembly,
    first: Option<Batch>,
    positions: Arc<Positions>,
    sent: Vec<String>,
}

impl ReadStream {
    /// Waits for the first message, whose failure is the call's failure.
    pub(crate) async fn open(
        stream: Streaming<proto::ExecuteReadResponse>,
        timeout: Option<Duration>,
        positions: Arc<Positions>,
        sent: Vec<String>,
    ) -> Result<Self, Error> {
        let deadline = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        let mut read = ReadStream { stream, deadline, assembly: Assembly::Start, first: None, positions, sent };
        read.first = read.advance().await?;
        Ok(read)
    }

    /// The result's columns.
    pub fn columns(&self) -> &[Column] {
        self.assembly.columns()
    }

    /// Where the read runs, and why there.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.assembly.receipt()
    }

    /// The caller's position token, once the last batch has arrived. Empty: there is none.
    pub fn position(&self) -> Option<&str> {
        self.assembly.position()
    }

    /// The next rows; `None` after the last ones. Dropping the stream before cancels the read.
    ///
    /// # Errors
    /// [`Error::Cut`] if the result ended early; any [`Error`] that a call can have.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        if let Some(batch) = self.first.take() {
            return Ok(Some(batch));
        }
        while self.assembly.position().is_none() {
            if let Some(batch) = self.advance().await? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// All rows, in memory.
    ///
    /// # Errors
    /// As [`Self::next`]
    pub async fn rows(mut self) -> Result<Rows, Error> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        self.assembly.finish(batches)
    }

    async fn advance(&mut self) -> Result<Option<Batch>, Error> {
        let message = self.message().await?.ok_or(Error::Cut)?;
        let batch = self.assembly.accept(message)?;
        if let Some(position) = self.assembly.position() {
            self.positions.answered(&self.sent, position);
            // To the end of the stream: dropping it earlier would reset it, which a broker takes for a caller who left.
            if self.message().await?.is_some() {
                return Err(Error::Protocol("a result goes on after its summary"));
            }
        }
        Ok(batch)
    }

    async fn message(&mut self) -> Result<Option<proto::ExecuteReadResponse>, Error> {
        let message = match &mut self.deadline {
            None => self.stream.message().await,
            Some(deadline) => tokio::select! {
                biased;
                message = self.stream.message() => message,
                () = deadline => return Err(Error::TimedOut),
            },
        };
        message.map_err(|status| {
            let error = Error::from(status);
            self.positions.failed(&self.sent, error.position());
            error
        })
    }
}
