//! A connection on which the clean reads of many callers are pipelined: none of them has it to itself, so nothing here sets,
//! cancels or closes anything for one of them. What a read leaves unread the driver reads to its end.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio_postgres::{Client, RowStream};

use super::{
    connection::{Connection, Prepared, Vantage},
    error::PgError,
    exchange::{Queued, queue_batch},
    facts::Facts,
    reset::queue_reset,
    rows::RawRow,
    wire::WireState,
};
use crate::{codec::Param, gather::Sharer};

/// What many callers have of a connection while it is a lane. The connection itself is kept beside it, and given back by
/// [`Connection::end_lane`].
pub struct Lane {
    client: Arc<Client>,
    wire: Arc<WireState>,
    facts: Facts,
    established_at: std::time::Instant,
    epoch: u64,
}

/// The answer to what makes a connection a lane.
pub struct LaneBegun {
    reset: Queued<Result<bool, PgError>>,
    limit: Queued<Result<(), tokio_postgres::Error>>,
}

impl LaneBegun {
    /// Resolves once the server has answered; cancel-safe.
    ///
    /// # Errors
    /// What the server said, or how the connection was lost.
    pub async fn answer(&mut self) -> Result<(), PgError> {
        match self.reset.answer().await {
            Some(Err(error)) => return Err(error),
            Some(Ok(false)) => return Err(PgError::Lost("it could not be reset".into())),
            Some(Ok(true)) | None => {}
        }
        match self.limit.answer().await {
            Some(Err(error)) => Err(error.into()),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

impl Connection {
    /// Makes it a lane, as new as a connection can be: clean reads before may have left what a later change of the schema
    /// let them. From now on a statement may take so long. Nothing is awaited: reads may be sent right behind it.
    pub fn begin_lane(&mut self, statement_timeout: Duration) -> (Lane, LaneBegun) {
        self.take_into_use();
        let reset = queue_reset(self, "");
        let limit = queue_batch(&self.client, format!("SET statement_timeout = {}", statement_timeout.as_millis()));
        let lane = Lane {
            client: Arc::clone(&self.client),
            wire: Arc::clone(&self.wire),
            facts: self.facts.clone(),
            established_at: self.established_at,
            epoch: self.epoch(),
        };
        (lane, LaneBegun { reset, limit })
    }

    /// Resets what was a lane; nothing may be in flight on it. One that cannot be proved clean stays soiled, and is closed.
    pub async fn end_lane(&mut self) {
        let reset = queue_reset(self, "");
        self.finish_reset(reset).await;
    }
}

impl Lane {
    /// What it can be proved to see.
    pub fn vantage(&self) -> Vantage<'_> {
        Vantage { facts: &self.facts, established_at: self.established_at }
    }

    /// The epoch of its host's role for which it was made.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// True when nothing can be sent on it any more.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Counts the requests that the server has answered, whoever sent them: while it stands still, one request keeps the
    /// server busy.
    pub fn progress(&self) -> u64 {
        self.wire.readies()
    }

    /// Runs a statement by itself: the first poll of the first row sends it. Reads are answered in the order in which they
    /// were sent; one whose rows are not taken holds up those behind it, one that is dropped does not.
    pub fn run(&self, prepared: &Prepared, params: Vec<Param>) -> LaneRows {
        let (client, statement) = (Arc::clone(&self.client), prepared.statement.clone());
        LaneRows { client, statement, params, rows: None, _sharer: self.wire.sharers().enter() }
    }
}

/// The rows of a read on a lane.
pub struct LaneRows {
    client: Arc<Client>,
    statement: tokio_postgres::Statement,
    params: Vec<Param>,
    rows: Option<Pin<Box<RowStream>>>,
    _sharer: Sharer,
}

impl LaneRows {
    /// The next row; None at the end, when the statement is known to have succeeded. Not cancel-safe before the first.
    ///
    /// # Errors
    /// What the server said, or how the connection was lost.
    pub async fn next(&mut self) -> Result<Option<RawRow>, PgError> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => {
                let params = std::mem::take(&mut self.params);
                none.insert(Box::pin(self.client.query_raw(&self.statement, params).await?))
            }
        };
        Ok(rows.next().await.transpose()?.map(RawRow::new))
    }
}
