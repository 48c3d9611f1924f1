//! A session's open transaction: one pinned connection to the primary, from its begin to its end. What runs in it is
//! `statement`'s, its commit `commit`'s.

use std::sync::Arc;

use tokio::sync::oneshot;
use tracing::Instrument;

use super::{Gone, Session, SessionReply, commit::Commit};
use crate::{
    broker::{
        Failure, Outcome, Reason, Receipt, caller::Caller, database::Seat, overseer::WrittenTo, reach::Reach,
        write::ended_early,
    },
    clock,
    model::{Decision, HostSet, route_write},
    postgres::{Begin, TransactionId},
    telemetry::ActiveGuard,
};

/// The connection of the open transaction.
pub(super) struct Pinned {
    pub(super) seat: Seat,
    pub(super) receipt: Receipt,
    pub(super) written_to: WrittenTo,
    pub(super) read_only: bool,
    /// Known once a write of it has ended: should its COMMIT be lost, the server can be asked.
    pub(super) transaction_id: Option<TransactionId>,
    _open: ActiveGuard,
}

impl Session {
    pub(super) async fn begin(&mut self, id: u64, named: u64, begin: Begin, caller: &Caller) -> Result<(), Gone> {
        if named != 0 {
            let message = "a begin opens a transaction and cannot name one: leave transaction_id unset";
            return self.fail(id, Failure::field(Reason::FieldInvalid, "transaction_id", message)).await;
        }
        // Checked first, on a copy: a begin that fails leaves no transaction open for what is pipelined behind it.
        let mut state = self.state;
        if let Err(error) = state.begin(id) {
            return self.fail(id, error.into()).await;
        }
        match self.pin(begin, caller).await {
            Ok(pinned) => {
                self.state = state;
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                self.answer(id, Some(receipt), SessionReply::Done).await
            }
            Err(failure) => self.fail(id, failure.outcome(Outcome::NotExecuted)).await,
        }
    }

    async fn pin(&self, begin: Begin, caller: &Caller) -> Result<Pinned, Failure> {
        let mut receipt = {
            let snapshot = self.broker.topology.snapshot();
            let view = snapshot.cluster(self.database.cluster);
            match route_write(view, HostSet::EMPTY) {
                Decision::Send { host, reason, required } => {
                    self.broker.receipt(view, host, reason, required, 1, clock::now())
                }
                Decision::Reject(rejection) => {
                    self.broker.metrics.rejected(&self.database.name, rejection.as_str());
                    return Err(Failure::rejected(rejection, &self.database.name));
                }
            }
        };
        let host = self.database.host(receipt.host_id);
        let mut seat = tokio::select! {
            seat = host.write(caller.deadline()) => seat?,
            interrupted = caller.interrupted() => return Err(interrupted.failure()),
        };
        receipt.waited = seat.waited;
        let written_to =
            WrittenTo::of(&seat).filter(|_| self.broker.is_primary(&self.database, receipt.host_id, seat.facts()));
        let Some(written_to) = written_to else {
            // Not released: a connection to a server that was left behind is closed.
            return Err(Failure::outvoted().with_receipt(&receipt));
        };
        let begun = tokio::select! {
            begun = seat.begin(begin) => begun.map_err(|error| Failure::from_exchange(error, Outcome::NotExecuted)),
            interrupted = caller.interrupted() => Err(interrupted.failure()),
        };
        if let Err(failure) = begun {
            seat.rollback().await;
            return Err(failure.with_receipt(&receipt));
        }
        self.broker.count_route(&self.database, &receipt);
        Ok(Pinned {
            seat,
            receipt,
            written_to,
            read_only: begin.read_only,
            transaction_id: None,
            _open: self.broker.metrics.transaction_open(),
        })
    }

    pub(super) async fn commit(&mut self, id: u64, named: u64, caller: &Caller) -> Result<(), Gone> {
        if let Err(error) = self.state.check_commit(named) {
            return self.fail(id, error.into()).await;
        }
        self.state.end();
        let Some(mut pinned) = self.pinned.take() else {
            return self.fail(id, Failure::new(Reason::Internal, "an open transaction without a connection")).await;
        };
        let reach = match Reach::of(&self.broker, &self.database, &self.context) {
            Ok(reach) => reach,
            Err(failure) => {
                pinned.seat.rollback().await;
                return self.fail(id, failure.outcome(Outcome::RolledBack)).await;
            }
        };
        let receipt = pinned.receipt.clone();
        let commit = Commit {
            broker: Arc::clone(&self.broker),
            database: Arc::clone(&self.database),
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
                self.answer(id, Some(receipt), SessionReply::Done).await
            }
            Err(failure) => self.fail(id, failure).await,
        }
    }

    /// Rolls back what is open, if anything is; the connection is free again afterwards.
    pub(super) async fn roll_back(&mut self) {
        self.state.end();
        if let Some(mut pinned) = self.pinned.take() {
            pinned.seat.rollback().await;
        }
    }
}
