//! The commit of a session's transaction, seen through to its outcome, whatever becomes of the session meanwhile.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::transaction::Pinned;
use crate::{
    broker::{
        Broker, Failure, Outcome,
        caller::Caller,
        database::Database,
        overseer::{Ended, Overseer},
        reach::Reach,
        settle::Lost,
    },
    postgres::CommitKind,
};

/// The end of a transaction, seen through to its outcome.
pub(super) struct Commit {
    pub(super) broker: Arc<Broker>,
    pub(super) database: Arc<Database>,
    pub(super) reach: Reach,
    pub(super) caller: Caller,
    pub(super) pinned: Pinned,
}

impl Commit {
    /// Answers with the position's token once the outcome is known, or with UNKNOWN at the deadline; and goes on.
    pub(super) async fn run(self, answer: oneshot::Sender<Result<String, Failure>>) {
        let Commit { broker, database, reach, caller, mut pinned } = self;
        let receipt = pinned.receipt.clone();
        let Some(written_to) = pinned.written_to else { return commit_read_only(pinned, &caller, answer).await };
        let overseer =
            Overseer { broker: &broker, database: &database, reach: &reach, caller: &caller, receipt: &receipt };
        let may_commit = broker.may_commit(&database, receipt.host_id, &pinned.seat);
        if let Err(failure) = may_commit {
            let _ = answer.send(Err(failure.with_receipt(&receipt)));
            return pinned.seat.rollback().await;
        }
        let mut answer = Some(answer);
        let mut tell = |result: Result<String, Failure>| {
            // A client that is gone hears nothing.
            answer.take().map(|answer| answer.send(result))
        };
        let committing = pinned.seat.commit(CommitKind::ReadWrite);
        match overseer.see_commit(committing, written_to, |failure| drop(tell(Err(failure)))).await {
            Ended::Well(token, reset) => {
                tell(Ok(token));
                pinned.seat.settle_commit(reset).await;
            }
            Ended::Badly(failure, reset) => {
                tell(Err(failure));
                pinned.seat.settle_commit(reset).await;
            }
            Ended::Unknown(Some(failure)) => {
                let Pinned { seat, transaction_id, .. } = pinned;
                let lost = Lost { facts: seat.facts().clone(), written_to, transaction_id };
                drop(seat);
                tell(overseer.settle(failure, lost).await);
            }
            Ended::Unknown(None) => overseer.watch(pinned.seat.facts()),
        }
    }
}

/// What cannot have written has nothing to lose: it is not awaited beyond its time, and no outcome of it is unknown.
async fn commit_read_only(mut pinned: Pinned, caller: &Caller, answer: oneshot::Sender<Result<String, Failure>>) {
    let (result, reset) = tokio::select! {
        (committed, reset) = pinned.seat.commit(CommitKind::ReadOnly) => {
            let failed = |error| Failure::from_exchange(error, Outcome::RolledBack);
            (committed.map(|_| String::new()).map_err(failed), Some(reset))
        }
        interrupted = caller.gave_up() => (Err(interrupted.failure().outcome(Outcome::RolledBack)), None),
    };
    // A client that is gone hears nothing.
    let _ = answer.send(result.map_err(|failure| failure.with_receipt(&pinned.receipt)));
    // Without its reset the connection stays in use, and is closed.
    if let Some(reset) = reset {
        pinned.seat.settle_commit(reset).await;
    }
}
