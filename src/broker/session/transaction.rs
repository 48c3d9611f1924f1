//! A session's open transaction: one pinned connection, from its begin to its end. Which connection is `pin`'s, what
//! runs on it `statement`'s, its commit `commit`'s.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Instrument;

use super::{Gone, Session, SessionReply, commit::Commit, pin::Freshness, statement::unpinned};
use crate::{
    broker::{
        Failure, Outcome, Reason, Receipt, caller::Caller, database::Database, overseer::WrittenTo, pools::Seat,
        reach::Reach, write::ended_early,
    },
    postgres::{Begin, TransactionId},
    telemetry::ActiveGuard,
};

/// The connection of the open transaction.
pub(super) struct Pinned {
    /// The side of the database that it is on.
    pub(super) database: Arc<Database>,
    pub(super) seat: Seat,
    pub(super) receipt: Receipt,
    /// Where its writes go; None: it cannot write.
    pub(super) written_to: Option<WrittenTo>,
    /// Whether what it sees binds its session's later reads.
    pub(super) is_causal: bool,
    /// See [`crate::broker::placement::Side::stays`].
    pub(super) stays: bool,
    /// Known once a write of it has ended: should its COMMIT be lost, the server can be asked.
    pub(super) transaction_id: Option<TransactionId>,
    pub(super) _open: ActiveGuard,
}

impl Session {
    pub(super) async fn begin(
        &mut self,
        id: u64,
        named: u64,
        begin: Begin,
        freshness: Option<Freshness>,
        caller: &Caller,
    ) -> Result<(), Gone> {
        if named != 0 {
            let message = "a begin opens a transaction and cannot name one: leave transaction_id unset";
            return self.fail(id, Failure::field(Reason::FieldInvalid, "transaction_id", message)).await;
        }
        // Checked first, on a copy: a begin that fails leaves no transaction open for what is pipelined behind it.
        let mut state = self.state;
        if let Err(error) = state.begin(id) {
            return self.fail(id, error.into()).await;
        }
        let begin = Begin { settings: self.context.settings.clone(), ..begin };
        let pinned = match freshness {
            Some(freshness) => self.pin_for_reading(&begin, freshness, caller).await,
            None => self.pin_primary(&begin, caller).await,
        };
        match pinned {
            Ok(mut pinned) => {
                self.state = state;
                self.notices = Some(pinned.seat.notices());
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                self.answer(id, Some(receipt), SessionReply::Done).await
            }
            Err(failure) => self.fail(id, failure.outcome(Outcome::NotExecuted)).await,
        }
    }

    pub(super) async fn commit(&mut self, id: u64, named: u64, caller: &Caller) -> Result<(), Gone> {
        if let Err(error) = self.state.check_commit(named) {
            return self.fail(id, error.into()).await;
        }
        self.state.end();
        let Some(pinned) = self.pinned.take() else { return self.fail(id, unpinned()).await };
        let answered = self.commit_pinned(id, pinned, SessionReply::Done, caller).await;
        self.notices = None;
        answered
    }

    /// Commits, and answers with this when it is done.
    pub(super) async fn commit_pinned(
        &mut self,
        id: u64,
        mut pinned: Pinned,
        reply: SessionReply,
        caller: &Caller,
    ) -> Result<(), Gone> {
        let reach = match Reach::of(&self.broker, &pinned.database, &self.context) {
            Ok(reach) => reach,
            Err(failure) => {
                pinned.seat.rollback().await;
                return self.fail(id, failure.outcome(Outcome::RolledBack)).await;
            }
        };
        let receipt = pinned.receipt.clone();
        let commit = Commit {
            broker: Arc::clone(&self.broker),
            database: Arc::clone(&pinned.database),
            reach,
            caller: caller.clone(),
            pinned,
        };
        let (answer, answered) = oneshot::channel();
        // A task of its own: a client whose deadline passes, or that leaves, does not end the wait for the outcome.
        self.broker.tasks.spawn(commit.run(answer).in_current_span());
        match answered.await.unwrap_or_else(|_| Err(ended_early())) {
            Ok(token) => {
                self.carry(&token);
                self.answer(id, Some(receipt), reply).await
            }
            Err(failure) => self.fail(id, failure).await,
        }
    }

    /// Rolls back what is open, if anything is; the connection is free again afterwards.
    pub(super) async fn roll_back(&mut self) {
        self.state.end();
        self.notices = None;
        if let Some(mut pinned) = self.pinned.take() {
            pinned.seat.rollback().await;
        }
    }
}
