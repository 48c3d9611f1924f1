//! A COMMIT without an answer: what became of its transaction is asked of the server that it was sent to, by the
//! transaction's id. What cannot be told stays unknown; nothing is repeated here.

use std::time::Duration;

use super::{
    Failure, Outcome,
    overseer::{Overseer, WrittenTo},
};
use crate::{
    model::{Backoff, Lsn},
    postgres::{Facts, Fate, PgError, ProbeConnection, Reading, TransactionId},
};

/// Between two questions: at first, and after a while.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// One question's limit.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// Questions in a row that a server may leave unanswered. A caller whose outcome nobody can tell is not to wait for long.
const UNANSWERED_MAX: u32 = 6;
/// The wait suggested before what was rolled back is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(250);

/// A connection that was lost with a COMMIT on it.
pub(super) struct Lost {
    pub(super) facts: Facts,
    pub(super) written_to: WrittenTo,
    /// None: it is not known, and nothing can be asked.
    pub(super) transaction_id: Option<TransactionId>,
}

/// What a lost COMMIT came to.
enum Settled {
    /// It is committed; the position was read afterwards.
    Committed(Result<Lsn, PgError>),
    RolledBack,
    Unknown,
}

impl Overseer<'_> {
    /// The position's token if the transaction is committed after all; else the failure, with what became of it. Asks until
    /// the server knows, or the caller's time is up.
    pub(super) async fn settle(&self, failure: Failure, lost: Lost) -> Result<String, Failure> {
        // The session may be back with a read meanwhile.
        self.reach.extend_unknown(self.broker);
        let settled = match lost {
            Lost { transaction_id: Some(id), ref facts, .. } => self.ask_fate(facts, id).await,
            _ => Settled::Unknown,
        };
        match settled {
            Settled::Committed(position) => Ok(self.store(lost.written_to, position).await),
            Settled::RolledBack => {
                let failure = Failure { retry_delay: Some(RETRY_DELAY), ..failure.outcome(Outcome::RolledBack) };
                Err(failure.with_receipt(self.receipt))
            }
            Settled::Unknown => {
                let failure = self.unknown(failure);
                self.watch(&lost.facts);
                Err(failure)
            }
        }
    }

    async fn ask_fate(&self, facts: &Facts, id: TransactionId) -> Settled {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut unanswered = 0;
        while unanswered < UNANSWERED_MAX
            && !self.broker.is_superseded(self.database.cluster, self.receipt.host_id, facts)
        {
            let asked = tokio::select! {
                asked = self.ask_once(facts, id) => asked,
                _ = self.caller.interrupted() => return Settled::Unknown,
            };
            match asked {
                Ok((Fate::Committed, position)) => return Settled::Committed(position),
                Ok((Fate::RolledBack, _)) => return Settled::RolledBack,
                Ok((Fate::Unknown, _)) => return Settled::Unknown,
                // Its backend has yet to finish: it may wait for a standby, or for a lock.
                Ok((Fate::InProgress, _)) => unanswered = 0,
                Err(()) => unanswered += 1,
            }
            if self.caller.pause(backoff.next(1.0)).await.is_err() {
                break;
            }
        }
        Settled::Unknown
    }

    /// The fate, and the insert position read after it.
    async fn ask_once(&self, facts: &Facts, id: TransactionId) -> Result<(Fate, Result<Lsn, PgError>), ()> {
        let _one_of_few = self.broker.looks.acquire().await.map_err(drop)?;
        let target = self.database.hosts.target(self.receipt.host_id).ok_or(())?;
        let connection = ProbeConnection::open(&target).await.map_err(drop)?;
        let fate = connection.fate(id, facts, ASK_LIMIT).await.map_err(drop)?;
        let position = match connection.read(ASK_LIMIT).await {
            Ok(Reading::Primary { insert, timeline, .. }) if Some(timeline) == facts.timeline => Ok(insert),
            Ok(_) => Err(PgError::Protocol("the server is not the primary that it was".into())),
            Err(error) => Err(error),
        };
        Ok((fate, position))
    }
}
