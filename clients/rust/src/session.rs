//! The session for people: one request at a time, each awaited.

use std::time::Duration;

use crate::{
    error::Error,
    proto::{
        self, Column, Receipt, SessionNotice, SessionOpened, SessionResponse, session_request::Request,
        session_response::Response,
    },
    read::ReadOptions,
    rows::{Assembly, Batch, Rows},
    session_raw::RawSession,
    transaction::{Begin, Transaction},
    value::Value,
    write::{Statement, StatementResult},
};

/// How much longer than a request's time limit its answer is awaited: the broker's own account of a timeout is worth it.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// An interactive session; from [`crate::Client::session`]. Dropping it ends it; the broker rolls back what is open.
#[derive(Debug)]
pub struct Session {
    pub(crate) raw: RawSession,
    pub(crate) timeout: Option<Duration>,
}

impl Session {
    pub(crate) fn new(raw: RawSession, timeout: Option<Duration>) -> Self {
        Session { raw, timeout }
    }

    /// How long each of the next requests may take; a COPY with all its data. None: the broker's default timeout.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// The session's limits.
    pub fn opened(&self) -> &SessionOpened {
        self.raw.opened()
    }

    /// The oldest notice that arrived so far.
    pub fn take_notice(&mut self) -> Option<SessionNotice> {
        self.raw.take_notice()
    }

    /// Runs a read outside of a transaction, routed by its options. Its `operation` is not used in a session.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn read(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
        options: ReadOptions,
    ) -> Result<SessionReadStream<'_>, Error> {
        let options = options.or(self.timeout, self.raw.max_message_bytes());
        let timeout = options.timeout;
        let statement = Statement::new(sql).bind_all(params);
        SessionReadStream::open(self, 0, timeout, read_request(statement, (&options).into())).await
    }

    /// Runs a write, as a transaction of its own.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn write(
        &mut self,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<StatementResult, Error> {
        Ok(self.write_in(0, Statement::new(sql).bind_all(params), String::new()).await?.0)
    }

    /// The same, with an idempotency key: as in [`crate::WriteOptions::idempotency_key`]. Whether the result is that of an
    /// earlier write with the key is said beside it.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn write_once(
        &mut self,
        idempotency_key: impl Into<String>,
        sql: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<(StatementResult, bool), Error> {
        self.write_in(0, Statement::new(sql).bind_all(params), idempotency_key.into()).await
    }

    /// Begins a transaction, on the primary unless [`Begin::on_replica`] says otherwise. Dropped without a commit, it is rolled back.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn begin(&mut self, begin: Begin) -> Result<Transaction<'_>, Error> {
        let request = begin.into_proto();
        let id = self.raw.send(0, self.timeout, Request::Begin(request))?;
        // Dropped while waiting: rolled back.
        let mut transaction = Transaction { session: self, id, open: true, receipt: None };
        match transaction.session.done(id).await {
            Ok(receipt) => transaction.receipt = receipt,
            Err(error) => {
                // Without the broker's own word it may begin yet: then it is rolled back behind that.
                transaction.open = !matches!(error, Error::Failed(_));
                return Err(error);
            }
        }
        Ok(transaction)
    }

    /// Ends the session and waits until the broker has ended it too.
    ///
    /// # Errors
    /// What ends a stream other than OK.
    pub async fn close(self) -> Result<(), Error> {
        self.raw.close().await
    }

    /// The session without help. Answers to requests that were given up may still arrive.
    pub fn into_raw(self) -> RawSession {
        self.raw
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn raw_mut(&mut self) -> &mut RawSession {
        &mut self.raw
    }

    pub(crate) async fn write_in(
        &mut self,
        transaction: u64,
        statement: Statement,
        idempotency_key: String,
    ) -> Result<(StatementResult, bool), Error> {
        let write = proto::SessionWrite { statement: Some(statement.into_proto()), idempotency_key };
        let id = self.raw.send(transaction, self.timeout, Request::Write(write))?;
        let answer = self.answer(id, self.timeout).await?;
        match answer.response {
            Some(Response::Write(result)) => Ok((StatementResult::from_proto(result)?, answer.replayed)),
            other => Err(unexpected(other)),
        }
    }

    pub(crate) async fn done(&mut self, id: u64) -> Result<Option<Receipt>, Error> {
        let answer = self.answer(id, self.timeout).await?;
        match answer.response {
            Some(Response::Done(_)) => Ok(answer.receipt),
            other => Err(unexpected(other)),
        }
    }

    /// The next answer to this request; answers to earlier ones, which were given up, are passed over.
    pub(crate) async fn answer(&mut self, id: u64, timeout: Option<Duration>) -> Result<SessionResponse, Error> {
        let answer = self.raw.receive_for(id);
        match timeout {
            Some(timeout) => {
                tokio::time::timeout(timeout.saturating_add(ANSWER_GRACE), answer).await.map_err(|_| Error::TimedOut)?
            }
            None => answer.await,
        }
    }
}

pub(crate) fn read_request(statement: Statement, options: proto::ReadOptions) -> Request {
    Request::Read(proto::SessionRead { statement: Some(statement.into_proto()), options: Some(options) })
}

pub(crate) fn unexpected(response: Option<Response>) -> Error {
    match response {
        Some(Response::Failure(failure)) => failure.into(),
        _ => Error::Protocol("an answer of another kind than its request"),
    }
}

/// The rows of a read in a session, as they arrive. While it lives, the session waits; dropped early, the rest of the
/// rows is received and thrown away before the next request's answer.
#[derive(Debug)]
pub struct SessionReadStream<'a> {
    session: &'a mut Session,
    id: u64,
    timeout: Option<Duration>,
    assembly: Assembly,
    first: Option<Batch>,
    receipt: Option<Receipt>,
}

impl<'a> SessionReadStream<'a> {
    pub(crate) async fn open(
        session: &'a mut Session,
        transaction: u64,
        timeout: Option<Duration>,
        request: Request,
    ) -> Result<Self, Error> {
        let id = session.raw.send(transaction, timeout, request)?;
        let mut read =
            SessionReadStream { session, id, timeout, assembly: Assembly::Start, first: None, receipt: None };
        read.first = read.advance().await?;
        Ok(read)
    }

    /// The result's columns.
    pub fn columns(&self) -> &[Column] {
        self.assembly.columns()
    }

    /// Where the read runs, and why there.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref().or(self.assembly.receipt())
    }

    /// The next rows; `None` after the last ones.
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

    /// Stops the read, and waits until it has stopped. Inside a transaction that fails the transaction, unless the read
    /// had ended already.
    ///
    /// # Errors
    /// What ends a session.
    pub async fn cancel(self) -> Result<(), Error> {
        let raw = &mut self.session.raw;
        let mut open = vec![raw.cancel(self.id)?];
        if self.assembly.position().is_none() {
            open.push(self.id);
        }
        let stopping = async {
            while !open.is_empty() {
                let response = raw.receive().await?;
                open.retain(|id| !(response.last && response.request_id == *id));
            }
            Ok(())
        };
        tokio::time::timeout(self.timeout.unwrap_or(Duration::MAX), stopping).await.map_err(|_| Error::TimedOut)?
    }

    async fn advance(&mut self) -> Result<Option<Batch>, Error> {
        let response = self.session.answer(self.id, self.timeout).await?;
        let last = response.last;
        self.receipt = self.receipt.take().or(response.receipt);
        let batch = match response.response {
            Some(Response::Read(read)) => self.assembly.accept(read)?,
            other => return Err(unexpected(other)),
        };
        if last && self.assembly.position().is_none() {
            return Err(Error::Cut);
        }
        Ok(batch)
    }
}
