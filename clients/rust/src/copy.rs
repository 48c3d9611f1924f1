//! COPY in a session: data in, piece by piece, and out, as it arrives. Both wait for whoever is slower.

use std::time::Duration;

use crate::{
    error::Error,
    proto::{self, Receipt, session_request::Request, session_response::Response},
    session::{Session, unexpected},
    transaction::Transaction,
};

impl Session {
    /// Starts a `COPY … FROM STDIN` that is a transaction of its own, on the primary. The session's timeout covers all
    /// of it: see [`Session::set_timeout`].
    ///
    /// # Errors
    /// Any [`Error`] that a call can have, later.
    pub fn copy_in(&mut self, sql: impl Into<String>) -> Result<CopyIn<'_>, Error> {
        CopyIn::start(self, 0, sql.into())
    }

    /// Runs a `COPY … TO STDOUT`; returns once its first data is there. The session's timeout covers all of it.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn copy_out(&mut self, sql: impl Into<String>) -> Result<CopyOut<'_>, Error> {
        CopyOut::start(self, 0, sql.into()).await
    }
}

impl Transaction<'_> {
    /// Starts a `COPY … FROM STDIN` in the transaction.
    ///
    /// # Errors
    /// As [`Session::copy_in`]
    pub fn copy_in(&mut self, sql: impl Into<String>) -> Result<CopyIn<'_>, Error> {
        CopyIn::start(self.session, self.id, sql.into())
    }

    /// Runs a `COPY … TO STDOUT` in the transaction.
    ///
    /// # Errors
    /// As [`Session::copy_out`]
    pub async fn copy_out(&mut self, sql: impl Into<String>) -> Result<CopyOut<'_>, Error> {
        CopyOut::start(self.session, self.id, sql.into()).await
    }
}

/// A COPY that takes data. Dropped before [`CopyIn::finish`] it is aborted, and keeps nothing.
#[derive(Debug)]
pub struct CopyIn<'a> {
    session: &'a mut Session,
    id: u64,
    timeout: Option<Duration>,
    open: bool,
}

impl<'a> CopyIn<'a> {
    fn start(session: &'a mut Session, transaction: u64, sql: String) -> Result<Self, Error> {
        let timeout = session.timeout();
        let id = session.raw_mut().send(transaction, timeout, Request::CopyIn(proto::SessionCopy { sql }))?;
        Ok(CopyIn { session, id, timeout, open: true })
    }

    /// Sends some data: pieces need not end where rows do, and must be smaller than the broker's largest request (4 MiB
    /// unless configured). Waits while the server is busy.
    ///
    /// # Errors
    /// What the COPY failed with, as soon as that is known: nothing of it was kept. [`Error::CopyFailed`] afterwards.
    pub async fn send(&mut self, data: impl Into<Vec<u8>>) -> Result<(), Error> {
        if !self.open {
            return Err(Error::CopyFailed);
        }
        let data = data.into();
        let raw = self.session.raw_mut();
        let sending = raw.send_copy_data(self.id, data);
        let early = tokio::select! {
            biased;
            early = raw.receive_for(self.id) => early,
            sent = sending => return sent,
        };
        // Its failure is the only answer that comes before its end.
        self.abort("the COPY has failed");
        Err(early.map_or_else(|error| error, |response| unexpected(response.response)))
    }

    /// Ends the data, and waits until it is kept; answers with the number of rows. In a transaction it is kept with that.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; [`Error::outcome`] says what became of the data.
    pub async fn finish(mut self) -> Result<u64, Error> {
        if !self.open {
            return Err(Error::CopyFailed);
        }
        self.open = false;
        self.session.raw_mut().end_copy(self.id, String::new())?;
        match self.session.answer(self.id, self.timeout).await?.response {
            Some(Response::Done(done)) => Ok(done.rows_affected),
            other => Err(unexpected(other)),
        }
    }

    /// Aborts the COPY: nothing of it is kept, and a transaction that it is in has failed.
    pub fn cancel(mut self, reason: &str) {
        self.abort(reason);
    }

    fn abort(&mut self, reason: &str) {
        if std::mem::replace(&mut self.open, false) {
            // Its answer is passed over by the next request. If it cannot be sent, the session has ended.
            let _ = self.session.raw_mut().end_copy(self.id, reason.to_owned());
        }
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        self.abort("dropped by its client");
    }
}

/// The data of a COPY, as it arrives. While it lives, the session waits; dropped early, the rest is received and thrown
/// away before the next request's answer.
#[derive(Debug)]
pub struct CopyOut<'a> {
    session: &'a mut Session,
    id: u64,
    timeout: Option<Duration>,
    first: Option<Vec<u8>>,
    rows: Option<u64>,
    receipt: Option<Receipt>,
}

impl<'a> CopyOut<'a> {
    async fn start(session: &'a mut Session, transaction: u64, sql: String) -> Result<Self, Error> {
        let timeout = session.timeout();
        let id = session.raw_mut().send(transaction, timeout, Request::CopyOut(proto::SessionCopy { sql }))?;
        let mut copy = CopyOut { session, id, timeout, first: None, rows: None, receipt: None };
        copy.first = copy.advance().await?;
        Ok(copy)
    }

    /// The next piece; `None` after the last one. Pieces need not end where rows do.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.first.take() {
            Some(piece) => Ok(Some(piece)),
            None if self.rows.is_some() => Ok(None),
            None => self.advance().await,
        }
    }

    /// How many rows were copied, once all data has arrived.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Where it ran, once all data has arrived.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    async fn advance(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let response = self.session.answer(self.id, self.timeout).await?;
        match response.response {
            Some(Response::CopyData(piece)) => Ok(Some(piece.data)),
            Some(Response::Done(done)) => {
                (self.rows, self.receipt) = (Some(done.rows_affected), response.receipt);
                Ok(None)
            }
            other => Err(unexpected(other)),
        }
    }
}
