//! The connection for a session's transaction: to the primary, or, for one that only reads, to a host that satisfies its
//! consistency, tried like a read until one has begun it.

use std::{sync::Arc, time::Duration};

use super::{Session, transaction::Pinned};
use crate::{
    broker::{
        Failure, Outcome, Reason, Receipt, Settled,
        await_topology::{Kind, Patience},
        caller::Caller,
        choose::{Chooser, needs_primary},
        database::Database,
        placement::{ReadPlan, Side, is_of_followers},
        pools::Seat,
        wait::WaitLimit,
    },
    model::{Consistency, HostSet, Role},
    postgres::{Begin, Isolation},
};

/// How fresh what a transaction reads is to be.
pub(super) struct Freshness {
    pub(super) consistency: Consistency,
    /// Whether the caller said so; a rule may else.
    pub(super) is_stated: bool,
    /// How long it waits for a replica to catch up; None: as configured.
    pub(super) max_wait: Option<Duration>,
}

impl Session {
    /// Goes where its database is now, which a reload may have moved. What is pinned stays where it began.
    pub(super) fn follow_database(&mut self) -> Result<(), Failure> {
        let placed = self.broker.place(&self.context)?;
        self.database = Arc::clone(placed.primary());
        self.context.settled = Some(Settled::of(&placed));
        Ok(())
    }

    /// A connection to the primary on which the transaction has begun, as soon as there is one.
    pub(super) async fn pin_primary(&mut self, begin: &Begin, caller: &Caller) -> Result<Pinned, Failure> {
        loop {
            match self.pin_primary_here(begin, caller).await {
                Err(failure) if self.database.has_left(&failure) => self.follow_database()?,
                pinned => return pinned,
            }
            self.broker.metrics.retried("write");
        }
    }

    async fn pin_primary_here(&self, begin: &Begin, caller: &Caller) -> Result<Pinned, Failure> {
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
        let pinned = self.pinned(Arc::clone(&self.database), seat, receipt);
        Ok(Pinned { written_to: Some(written_to).filter(|_| !begin.read_only), ..pinned })
    }

    /// A connection for a transaction that only reads. Its positions are proved for what it sees first; what comes later
    /// is no older.
    pub(super) async fn pin_for_reading(
        &self,
        begin: &Begin,
        freshness: Freshness,
        caller: &Caller,
    ) -> Result<Pinned, Failure> {
        let Freshness { consistency: asked, is_stated, max_wait } = freshness;
        let (consistency, is_stated) = match begin.isolation {
            // Standbys have none of it.
            Some(Isolation::Serializable) => (Consistency::Strong, true),
            _ => (asked, is_stated),
        };
        let broker = &self.broker;
        loop {
            let ReadPlan { side, otherwise, consistency, by_rule } =
                broker.plan_read(&self.context, consistency, is_stated)?;
            let is_causal = [asked, consistency].contains(&Consistency::Causal);
            let mut limit = WaitLimit::of(broker, &consistency, max_wait, caller);
            let next = otherwise.as_ref().map(|next| next.chooser(broker, &consistency, by_rule, None));
            let first = side.chooser(broker, &consistency, by_rule, next.as_ref());
            let mut on = &side;
            let mut pinned = self.pin_by(&first, &side, begin, &mut limit, caller).await;
            if let (Err(failure), Some(next), Some(other)) = (&pinned, &next, &otherwise)
                && (is_of_followers(failure) || needs_primary(failure))
            {
                // The primary that these hosts follow may run it.
                on = other;
                broker.metrics.placed(&on.database.name, &on.database.cluster_name, "follower");
                pinned = self.pin_by(next, on, begin, &mut limit, caller).await;
            }
            match pinned {
                // A reload has moved the database.
                Err(failure) if on.database.has_left(&failure) => broker.metrics.retried("read"),
                pinned => return pinned.map(|pinned| Pinned { is_causal, stays: on.stays, ..pinned }),
            }
        }
    }

    /// The same on one side.
    async fn pin_by(
        &self,
        chooser: &Chooser<'_>,
        side: &Side,
        begin: &Begin,
        limit: &mut WaitLimit,
        caller: &Caller,
    ) -> Result<Pinned, Failure> {
        let mut patience = Patience::new(&self.broker, &side.database, caller, Kind::Read);
        let mut tried = HostSet::EMPTY;
        let mut last: Option<Failure> = None;
        // Every host once, and once more for the primary when no replica can run it; then when there is another.
        let mut attempts = 0;
        loop {
            attempts += 1;
            if last.is_some() {
                self.broker.metrics.retried("read");
            }
            let receipt = match chooser.choose_in_time(tried, attempts, limit, caller).await {
                Ok(receipt) => receipt,
                Err(interrupted) if interrupted.is_interruption() => return Err(interrupted),
                // Where they follow a primary, that one is asked before anybody waits for them.
                Err(rejected) if chooser.next.is_some() => return Err(last.unwrap_or(rejected)),
                // The reason why hosts were left out says more than that none is left.
                Err(rejected) => {
                    patience.wait_for_a_host(last.take().unwrap_or(rejected), chooser).await?;
                    tried = HostSet::EMPTY;
                    continue;
                }
            };
            let (host, role) = (receipt.host_id, receipt.role);
            let failure = match self.pin_on(chooser, &side.database, receipt, begin, caller).await {
                Ok(pinned) => return Ok(pinned),
                Err(failure) => failure,
            };
            tried = match role {
                Role::Replica if needs_primary(&failure) => chooser.all_replicas(tried),
                _ if failure.is_of_the_host() || failure.reason == Reason::PositionUnproved => tried.with(host),
                _ => return Err(failure),
            };
            last = Some(failure);
        }
    }

    async fn pin_on(
        &self,
        chooser: &Chooser<'_>,
        database: &Arc<Database>,
        mut receipt: Receipt,
        begin: &Begin,
        caller: &Caller,
    ) -> Result<Pinned, Failure> {
        let is_primary = receipt.role == Role::Primary;
        let seat = database.read(receipt.host_id, is_primary, caller);
        let seat = tokio::select! {
            seat = self.broker.seat_in_turn(database, caller, seat) => seat,
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
        Ok(self.pinned(Arc::clone(database), seat, receipt))
    }

    fn pinned(&self, database: Arc<Database>, seat: Seat, receipt: Receipt) -> Pinned {
        let _open = self.broker.metrics.transaction_open();
        Pinned {
            database,
            seat,
            receipt,
            written_to: None,
            is_causal: false,
            stays: false,
            transaction_id: None,
            _open,
        }
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
