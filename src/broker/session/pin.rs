//! The connection for a session's transaction: to the primary, or, for one that only reads, to a host that satisfies its
//! consistency, tried like a read until one has begun it.

use std::time::Duration;

use super::{Session, transaction::Pinned};
use crate::{
    broker::{
        Failure, Outcome, Reason, Receipt,
        await_topology::{Kind, Patience},
        caller::Caller,
        choose::{Chooser, needs_primary},
        overseer::WrittenTo,
        pools::Seat,
        reach::Reach,
        wait::WaitLimit,
    },
    model::{Consistency, HostSet, Rejection, Role},
    postgres::{Begin, Isolation},
};

impl Session {
    /// A connection to the primary on which the transaction has begun, as soon as there is one.
    pub(super) async fn pin_primary(&self, begin: &Begin, caller: &Caller) -> Result<Pinned, Failure> {
        let mut patience = Patience::new(&self.broker, &self.database, caller, Kind::Write);
        loop {
            match self.begin_on_primary(begin, caller, patience.attempts).await {
                Ok(pinned) => return Ok(pinned),
                Err(failure) => patience.wait_for_change(failure).await?,
            }
        }
    }

    async fn begin_on_primary(&self, begin: &Begin, caller: &Caller, attempts: u32) -> Result<Pinned, Failure> {
        let (receipt, seat) = self.broker.primary_seat(&self.database, caller, attempts, true).await?;
        let seat = begun(seat, begin, caller).await.map_err(|failure| failure.with_receipt(&receipt))?;
        // Behind a proxy only the transaction says which server it is on.
        let written_to = self.broker.written_to(&self.database, &receipt, &seat);
        let written_to = written_to.ok_or_else(|| Failure::outvoted().with_receipt(&receipt))?;
        self.broker.count_route(&self.database, &receipt);
        Ok(self.pinned(seat, receipt, Some(written_to).filter(|_| !begin.read_only)))
    }

    /// A connection for a transaction that only reads. Its positions are proved for what it sees first; what comes later
    /// is no older.
    pub(super) async fn pin_for_reading(
        &self,
        begin: &Begin,
        (asked, max_wait): (&Consistency, Option<Duration>),
        caller: &Caller,
    ) -> Result<Pinned, Failure> {
        let reach = Reach::of(&self.broker, &self.database, &self.context)?;
        let consistency = match begin.isolation {
            // Standbys have none of it.
            Some(Isolation::Serializable) => &Consistency::Strong,
            _ => asked,
        };
        let chooser = Chooser { broker: &self.broker, database: &self.database, reach: &reach, consistency };
        let mut patience = Patience::new(&self.broker, &self.database, caller, Kind::Read);
        let mut limit = WaitLimit::of(&self.broker, consistency, max_wait, caller);
        let mut tried = HostSet::EMPTY;
        let mut last: Option<Failure> = None;
        // Every host once, and once more for the primary when no replica can run it; then when there is another.
        for attempts in 1.. {
            if last.is_some() {
                self.broker.metrics.retried("read");
            }
            let receipt = match chooser.choose_in_time(tried, attempts, &mut limit, caller).await {
                Ok(receipt) => receipt,
                Err(interrupted) if interrupted.is_interruption() => return Err(interrupted),
                // The reason why hosts were left out says more than that none is left.
                Err(rejected) => {
                    patience.wait_for_a_host(last.take().unwrap_or(rejected), &chooser).await?;
                    tried = HostSet::EMPTY;
                    continue;
                }
            };
            let (host, role) = (receipt.host_id, receipt.role);
            let failure = match self.pin_on(&chooser, receipt, begin, caller).await {
                Ok((seat, receipt)) => {
                    let pinned = self.pinned(seat, receipt, None);
                    return Ok(Pinned { is_causal: *asked == Consistency::Causal, ..pinned });
                }
                Err(failure) => failure,
            };
            tried = match role {
                Role::Replica if needs_primary(&failure) => chooser.all_replicas(tried),
                _ if failure.is_of_the_host() || failure.reason == Reason::PositionUnproved => tried.with(host),
                _ => return Err(failure),
            };
            last = Some(failure);
        }
        Err(last.unwrap_or_else(|| Failure::rejected(Rejection::NoHostsAvailable, &self.database.name)))
    }

    async fn pin_on(
        &self,
        chooser: &Chooser<'_>,
        mut receipt: Receipt,
        begin: &Begin,
        caller: &Caller,
    ) -> Result<(Seat, Receipt), Failure> {
        let is_primary = receipt.role == Role::Primary;
        let seat = self.database.read(receipt.host_id, is_primary, caller);
        let seat = tokio::select! {
            seat = self.broker.seat_in_turn(&self.database, caller, seat) => seat,
            interrupted = caller.interrupted() => Err(interrupted.failure()),
        };
        let mut seat = seat.map_err(|failure| failure.with_receipt(&receipt))?;
        receipt.waited += seat.waited;
        self.broker.metrics.waited("connection", seat.waited);
        // What was proved holds from then on; and a standby that cannot run it says so now.
        let begin = Begin { snapshot: true, ..begin.clone() };
        let pooled = seat.is_pooled();
        let begun = match chooser.prove(&mut seat, &receipt) {
            Err(unproved) if !pooled => Err(unproved),
            _ => begun(seat, &begin, caller).await,
        };
        let mut seat = begun.map_err(|failure| failure.with_receipt(&receipt))?;
        let proved = if pooled { chooser.prove(&mut seat, &receipt) } else { Ok(()) };
        if let Err(unproved) = proved {
            // The facts, read in front of the first snapshot, are of another server, or of too little replay.
            seat.leave().await;
            return Err(unproved.with_receipt(&receipt));
        }
        Ok((seat, receipt))
    }

    fn pinned(&self, seat: Seat, receipt: Receipt, written_to: Option<WrittenTo>) -> Pinned {
        let _open = self.broker.metrics.transaction_open();
        Pinned { seat, receipt, written_to, is_causal: false, transaction_id: None, _open }
    }
}

/// Begins the transaction; a connection on which that fails is made fit for the next caller, or closed.
async fn begun(mut seat: Seat, begin: &Begin, caller: &Caller) -> Result<Seat, Failure> {
    let begun = tokio::select! {
        begun = seat.begin(begin) => begun,
        interrupted = caller.interrupted() => {
            seat.abandon().await;
            return Err(interrupted.failure());
        }
    };
    match begun {
        Ok(()) => Ok(seat),
        Err(error) => {
            seat.rollback().await;
            Err(Failure::from_exchange(error, Outcome::NotExecuted).outcome(Outcome::NotExecuted).of_begin(begin))
        }
    }
}
