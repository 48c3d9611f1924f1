//! The commit of a transaction, with the WAL position and the reset behind it, in one flush.

use super::{
    connection::Connection,
    error::PgError,
    exchange::{Queued, queue_batch, queue_position},
    reset::queue_reset,
    statements::Statements,
};
use crate::model::Lsn;

/// What is to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitKind {
    /// A transaction that may have written.
    ReadWrite,
    /// One that cannot have.
    ReadOnly,
}

impl CommitKind {
    fn sql(self) -> &'static str {
        match self {
            // The SELECT costs nothing, and fails in a transaction that has failed: a COMMIT of one would answer "done".
            CommitKind::ReadWrite => "SELECT; COMMIT",
            // There it could be the first statement, and a DEFERRABLE one waits for a safe snapshot.
            CommitKind::ReadOnly => "COMMIT",
        }
    }
}

/// What makes a connection fit for the next caller behind a commit.
pub struct PendingReset(Behind);

enum Behind {
    /// The reset, which was sent with it.
    Reset(Queued<Result<bool, PgError>>),
    /// Nothing: all that ran was clean.
    Nothing,
    /// The same, but nothing was committed, and the transaction may be open still.
    Rollback,
}

/// COMMIT, the position and the reset, queued.
pub(super) struct QueuedCommit {
    commit: Queued<Result<(), tokio_postgres::Error>>,
    position: Option<Queued<Result<Lsn, PgError>>>,
    /// None: all that ran was clean.
    reset: Option<Queued<Result<bool, PgError>>>,
}

impl QueuedCommit {
    /// Awaits the commit and the position.
    pub(super) async fn answer(mut self, statements: &mut Statements) -> (Result<Committed, PgError>, PendingReset) {
        let committed = self.commit.answer().await;
        statements.transaction_ended();
        let position = match &mut self.position {
            Some(queued) => queued.answer().await,
            None => None,
        };
        let missing = || PgError::Protocol("no position behind the commit".into());
        let result = match committed {
            Some(Ok(())) => Ok(Committed { position: position.unwrap_or_else(|| Err(missing())) }),
            Some(Err(error)) => Err(PgError::from(error)),
            None => Err(missing()),
        };
        let behind = match self.reset {
            Some(reset) => Behind::Reset(reset),
            None if result.is_ok() => Behind::Nothing,
            None => Behind::Rollback,
        };
        (result, PendingReset(behind))
    }
}

/// What a commit is known to have done.
#[derive(Debug)]
pub struct Committed {
    /// The position read behind it, in the same flush; an error when only that failed.
    pub position: Result<Lsn, PgError>,
}

impl Connection {
    /// COMMIT, the position and, unless the transaction [is clean](super::Begin::is_clean), the reset, in one flush. Must be
    /// awaited to its end: a commit is never interrupted. The reset is [`Connection::settle_commit`]'s: the caller need not
    /// wait for it.
    pub async fn commit(&mut self, commit: CommitKind) -> (Result<Committed, PgError>, PendingReset) {
        self.queue_commit(commit).answer(&mut self.statements).await
    }

    pub(super) fn queue_commit(&self, commit: CommitKind) -> QueuedCommit {
        QueuedCommit {
            commit: queue_batch(&self.client, format!("{}{}", self.before_commit(), commit.sql())),
            position: queue_position(self),
            reset: (!self.transaction_is_clean()).then(|| queue_reset(self, "")),
        }
    }

    /// Awaits the reset behind a commit: the connection is fit for the next caller then, or is closed.
    pub async fn settle_commit(&mut self, reset: PendingReset) {
        match reset.0 {
            Behind::Reset(reset) => self.finish_reset(reset).await,
            Behind::Nothing if !self.is_cancelled() && !self.is_closed() => self.was_used_cleanly(),
            Behind::Nothing | Behind::Rollback => self.rollback().await,
        }
    }
}
