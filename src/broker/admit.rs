//! Admission as calls see it: a call's turn to run, and what the configuration says of it all.

use std::time::Duration;

use super::{Broker, Failure, Settings, caller::Caller, database::Database, pools::Seat};
use crate::{
    admission::{BudgetLimits, CallLimits, CallPermit, CallerId, Shed},
    clock,
    model::Deadline,
    postgres::PoolLimits,
    telemetry::CallGauges,
};

/// Who may have a connection, and who may run.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionSettings {
    /// Connections to one host, over all its databases and purposes.
    pub connections_per_host: u32,
    /// The part of the primary's that reads may use: above 0, below 1.
    pub primary_read_share: f64,
    /// The part of the writes' connections that sessions' transactions may hold: above 0, below 1.
    pub transaction_share: f64,
    /// Callers that may wait in one queue.
    pub max_queue: usize,
    /// How long one may wait in it.
    pub max_queue_age: Duration,
    /// Calls that run at a time on one database; None: any number.
    pub database_concurrency: Option<usize>,
    /// Of these, one caller's; None: any number.
    pub caller_concurrency: Option<usize>,
}

impl Settings {
    pub(super) fn budget_limits(&self) -> BudgetLimits {
        BudgetLimits {
            connections: self.admission.connections_per_host as usize,
            primary_read_share: self.admission.primary_read_share,
            transaction_share: self.admission.transaction_share,
            max_queue: self.admission.max_queue,
            max_queue_age: self.admission.max_queue_age,
        }
    }

    pub(super) fn pool_limits(&self) -> PoolLimits {
        PoolLimits { idle_timeout: self.idle_timeout, max_lifetime: self.max_lifetime }
    }

    pub(super) fn call_limits(&self) -> CallLimits {
        CallLimits {
            database: self.admission.database_concurrency,
            caller: self.admission.caller_concurrency,
            max_queue: self.admission.max_queue,
            max_queue_age: self.admission.max_queue_age,
        }
    }
}

impl Broker {
    /// A connection, once it is the call's turn to run, which it has for as long as it has the connection: whoever waits for
    /// a host takes nobody's turn. One that has its turn already needs no other.
    pub(super) async fn seat_in_turn(
        &self,
        database: &Database,
        caller: &Caller,
        seat: impl Future<Output = Result<Seat, Failure>>,
    ) -> Result<Seat, Failure> {
        if caller.has_turn() {
            return seat.await;
        }
        let turn = self.turn(database, caller).await?;
        Ok(seat.await?.in_turn(turn))
    }

    async fn turn(&self, database: &Database, caller: &Caller) -> Result<CallPermit, Failure> {
        let began = clock::now();
        let permit = tokio::select! {
            // What may run at once is not kept from it by a look at the clock.
            biased;
            entered = database.calls.enter(caller.id()) => entered.map_err(|shed| self.shed(database, shed))?,
            interrupted = caller.interrupted() => return Err(interrupted.failure()),
        };
        if permit.is_limited() {
            self.metrics.waited("turn", clock::now() - began);
        }
        Ok(permit)
    }

    /// The same for a call that is awaited in place: who leaves drops it.
    pub(super) async fn turn_until(
        &self,
        database: &Database,
        caller: &CallerId,
        deadline: Deadline,
    ) -> Result<CallPermit, Failure> {
        let began = clock::now();
        let entering = tokio::time::timeout_at(deadline.instant().into(), database.calls.enter(caller));
        let entered = entering.await.map_err(|_| Failure::deadline("before the call was done"))?;
        let permit = entered.map_err(|shed| self.shed(database, shed))?;
        if permit.is_limited() {
            self.metrics.waited("turn", clock::now() - began);
        }
        Ok(permit)
    }

    fn shed(&self, database: &Database, shed: Shed) -> Failure {
        self.metrics.shed(&database.name, "call", shed.cause());
        shed.into()
    }

    /// What runs, and what waits for its turn, by database.
    pub(super) fn call_gauges(&self) -> Vec<CallGauges> {
        let now = clock::now();
        let databases = self.databases.load();
        // Both sides of one that is being moved share them.
        let gauges = databases.values().map(|served| &served.origin).map(|database| {
            let (running, queue) = database.calls.figures();
            let oldest = queue.oldest.map(|since| now.saturating_duration_since(since));
            CallGauges { database: database.name.to_string(), running, waiting: queue.waiting, oldest }
        });
        gauges.collect()
    }

    /// What every host's budget is used for, and the calls of every database, for gauges.
    pub fn admission_gauges(&self) -> crate::telemetry::AdmissionGauges {
        crate::telemetry::AdmissionGauges { budgets: self.budgets.gauges(), calls: self.call_gauges() }
    }
}
