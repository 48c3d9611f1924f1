//! The choice of a host, and the proof that a connection leads to it: for a write the primary, for a read, or a transaction
//! that only reads, one that sees what it must see.

use std::time::Instant;

use super::{
    Broker, Failure, Receipt, await_topology::dethroned, caller::Caller, database::Database, overseer::WrittenTo,
    pools::Seat, reach::Reach, wait::WaitLimit,
};
use crate::{
    clock,
    model::{
        Binding, ClusterView, Consistency, Decision, HostSet, Lsn, Primacy, Rejection, Role, RouteReason, RouteRequest,
        route, route_write,
    },
    postgres::Vantage,
    topology::Snapshot,
};

impl Broker {
    /// A connection to the primary; `as_transaction` when a session keeps it. Behind a proxy only a transaction will say
    /// whether it leads there.
    pub(super) async fn primary_seat(
        &self,
        database: &Database,
        caller: &Caller,
        attempts: u32,
        as_transaction: bool,
    ) -> Result<(Receipt, Seat), Failure> {
        let now = clock::now();
        let (primacy, mut receipt) = {
            let snapshot = self.topology.snapshot();
            let view = snapshot.cluster(database.cluster);
            let receipt = match route_write(view, HostSet::EMPTY) {
                Decision::Send { host, reason, required } => self.receipt(view, host, reason, required, attempts, now),
                // Only reads wait for a replica.
                Decision::Wait { .. } => return Err(Failure::outvoted()),
                Decision::Reject(rejection) => {
                    database.check()?;
                    self.metrics.rejected(&database.name, rejection.as_str());
                    return Err(Failure::rejected(rejection, &database.name));
                }
            };
            (Primacy::of(view), receipt)
        };
        let seat = database.write(receipt.host_id, as_transaction, caller);
        let seat = tokio::select! {
            biased;
            seat = self.seat_in_turn(database, caller, seat) => seat,
            interrupted = caller.interrupted() => Err(interrupted.failure()),
            () = dethroned(self, database, primacy) => Err(Failure::outvoted()),
        };
        let seat = seat.map_err(|failure| failure.with_receipt(&receipt))?;
        receipt.waited = seat.waited;
        if !seat.is_pooled() && self.written_to(database, &receipt, &seat).is_none() {
            // Not released: a connection to a server that was left behind is closed.
            return Err(Failure::outvoted().with_receipt(&receipt));
        }
        Ok((receipt, seat))
    }

    /// Where what the seat writes goes, if that is the primary.
    pub(super) fn written_to(&self, database: &Database, receipt: &Receipt, seat: &Seat) -> Option<WrittenTo> {
        let is_primary = self.is_primary(database, receipt.host_id, seat.facts());
        WrittenTo::of(seat).filter(|_| is_primary)
    }
}

/// What became of a choice.
pub(super) enum Choice {
    /// A host.
    Host(Box<Receipt>),
    /// None yet: until then one may replay this, or become as fresh as was asked.
    Wait { lsn: Option<Lsn>, until: Instant },
}

/// What a choice rests on.
pub(super) struct Chooser<'a> {
    pub(super) broker: &'a Broker,
    pub(super) database: &'a Database,
    pub(super) reach: &'a Reach,
    pub(super) consistency: &'a Consistency,
    /// A rule keeps the read from replicas.
    pub(super) by_rule: bool,
    /// See [`Receipt::elsewhere`].
    pub(super) elsewhere: Option<&'a str>,
    /// Where these hosts follow another side's primary: the choice there, which is next.
    pub(super) next: Option<&'a Chooser<'a>>,
}

impl Chooser<'_> {
    /// Binds the positions against the present state and chooses a host, or to wait for one.
    pub(super) fn choose(&self, tried: HostSet, attempts: u32, limit: WaitLimit) -> Result<Choice, Failure> {
        let now = clock::now();
        let snapshot = self.broker.topology.snapshot();
        let view = snapshot.cluster(self.database.cluster);
        let request = RouteRequest { wait_until: limit.until, ..self.request(&snapshot, tried, now) };
        let ruled = self.is_ruled(&request);
        match self.route(view, &request) {
            Decision::Send { host, reason, required } => {
                if let (RouteReason::Behind, Some(lsn)) = (reason, required) {
                    self.broker.topology.seek_position(self.database.cluster, lsn);
                }
                let mut receipt = self.broker.receipt(view, host, reason, required, attempts, now);
                let is_fresh = matches!(reason, RouteReason::CaughtUp | RouteReason::NoPosition);
                if limit.waited && is_fresh && receipt.role == Role::Replica {
                    receipt.reason = RouteReason::Waited;
                }
                if ruled {
                    receipt.reason = RouteReason::Rule;
                }
                receipt.elsewhere = self.elsewhere.map(str::to_owned);
                self.broker.count_route(self.database, &receipt);
                Ok(Choice::Host(Box::new(receipt)))
            }
            Decision::Wait { lsn, until } => Ok(Choice::Wait { lsn, until }),
            Decision::Reject(rejection) => {
                self.database.check()?;
                match (self.next, request.binding) {
                    // The primary that these hosts follow takes it: nothing is rejected.
                    (Some(_), Binding::At { lsn, .. }) => {
                        self.broker.topology.seek_position(self.database.cluster, lsn);
                    }
                    (Some(_), _) => {}
                    (None, _) => self.broker.metrics.rejected(&self.database.name, rejection.as_str()),
                }
                Err(Failure::rejected(rejection, &self.database.name))
            }
        }
    }

    /// Where the read goes; nowhere while these hosts are judged by another primary than its positions are meant for.
    fn route(&self, view: &ClusterView, request: &RouteRequest<'_>) -> Decision {
        if self.database.is_judged_by(view) {
            route(view, request)
        } else {
            Decision::Reject(Rejection::NoHostsAvailable)
        }
    }

    /// Whether a rule sends the read elsewhere than what it asks for would.
    pub(super) fn is_ruled(&self, request: &RouteRequest<'_>) -> bool {
        *request.consistency != *self.consistency
    }

    /// Whether any host would do, if none had failed.
    pub(super) fn is_served(&self) -> bool {
        self.served_by(HostSet::EMPTY).is_some()
    }

    /// Whether a replica would.
    pub(super) fn is_served_by_a_replica(&self) -> bool {
        self.served_by(HostSet::EMPTY) == Some(Role::Replica)
    }

    fn served_by(&self, tried: HostSet) -> Option<Role> {
        let snapshot = self.broker.topology.snapshot();
        let view = snapshot.cluster(self.database.cluster);
        match self.route(view, &self.request(&snapshot, tried, clock::now())) {
            Decision::Send { host, .. } if view.primary == Some(host) => Some(Role::Primary),
            Decision::Send { .. } => Some(Role::Replica),
            Decision::Wait { .. } | Decision::Reject(_) => None,
        }
    }

    /// Chooses another replica than the one that did not do, if one would do at once; else leaves it at that.
    pub(super) fn choose_another_replica(&self, receipt: &mut Receipt) {
        let tried = HostSet::EMPTY.with(receipt.host_id);
        if self.served_by(tried) != Some(Role::Replica) {
            return;
        }
        if let Ok(Choice::Host(other)) =
            self.choose(tried, receipt.attempts + 1, WaitLimit { until: None, waited: false })
            && other.role == Role::Replica
        {
            let waited = receipt.waited + other.waited;
            *receipt = Receipt { waited, ..*other };
        }
    }

    /// What routing has to know.
    pub(super) fn request(&self, snapshot: &Snapshot, exclude: HostSet, now: Instant) -> RouteRequest<'_> {
        // Asked first: who is not held any more has it recorded.
        let is_held = *self.consistency == Consistency::Causal && self.reach.is_held(self.broker);
        let binding = match self.reach.binding(self.broker, self.database, snapshot, now) {
            Binding::Ahead => Binding::Ahead,
            _ if is_held => Binding::PrimaryOnly,
            binding => binding,
        };
        // Where the primary was left behind, a rule does not lead there either.
        let by_rule = self.by_rule && binding != Binding::Ahead;
        let settings = self.broker.settings();
        RouteRequest {
            consistency: if by_rule { &Consistency::Strong } else { self.consistency },
            binding,
            exclude,
            balance: &self.database.balance,
            now,
            max_lag: settings.max_lag,
            max_lag_bytes: settings.max_lag_bytes,
            wait_until: None,
        }
    }

    /// These and every replica: what is left is the primary.
    pub(super) fn all_replicas(&self, tried: HostSet) -> HostSet {
        let snapshot = self.broker.topology.snapshot();
        let view = snapshot.cluster(self.database.cluster);
        let replicas = view.hosts.iter().filter(|host| view.primary != Some(host.id));
        replicas.fold(tried, |tried, host| tried.with(host.id))
    }

    /// Whether a connection is proved to see what the receipt says is required.
    pub(super) fn proves(&self, vantage: Vantage<'_>, receipt: &Receipt) -> bool {
        let snapshot: &Snapshot = &self.broker.topology.snapshot();
        self.is_within_bound(snapshot, receipt) && self.is_proved(snapshot, vantage, receipt)
    }

    /// Refuses a connection that is not.
    pub(super) fn prove(&self, seat: &mut Seat, receipt: &Receipt) -> Result<(), Failure> {
        let snapshot: &Snapshot = &self.broker.topology.snapshot();
        if !self.is_within_bound(snapshot, receipt) {
            seat.release_unused();
            return Err(Failure::unproved());
        }
        if self.is_proved(snapshot, seat.vantage(), receipt) {
            return Ok(());
        }
        // Not released: a new connection may be proved, this one will hardly be.
        Err(Failure::unproved())
    }

    /// Whether a bound on the staleness holds now, too: the call may have waited long in line for its connection.
    fn is_within_bound(&self, snapshot: &Snapshot, receipt: &Receipt) -> bool {
        let (Consistency::Bounded { max_staleness }, Role::Replica) = (self.consistency, receipt.role) else {
            return true;
        };
        let view = snapshot.cluster(self.database.cluster);
        let staleness = view.host(receipt.host_id).and_then(|host| view.staleness(host, clock::now()));
        staleness.is_some_and(|staleness| staleness <= *max_staleness)
    }

    /// Rule 5: a cached position counts only on connections that it was measured for. It is looked up again, since the
    /// connection may have been made after the choice.
    fn is_proved(&self, snapshot: &Snapshot, vantage: Vantage<'_>, receipt: &Receipt) -> bool {
        let view = snapshot.cluster(self.database.cluster);
        let Some(host) = view.host(receipt.host_id).filter(|_| self.database.is_judged_by(view)) else { return false };
        match (receipt.role, receipt.required) {
            // It may have been left behind while the call waited in line.
            (Role::Primary, _) => self.broker.is_primary(self.database, receipt.host_id, vantage.facts),
            // Whose replica it is may have come into doubt: then its positions are no measure any more.
            (Role::Replica, _) if host.history.is_none() || host.history != view.history => false,
            (Role::Replica, required) => {
                let needed = match self.consistency {
                    // The bound was judged anew, by what is measured now.
                    Consistency::Bounded { .. } => host.replay,
                    // Without a position the choice rested on the lag, and that on the replay measured then.
                    _ => required.or(receipt.replayed),
                };
                let Some(needed) = needed else { return false };
                // A newer measurement than the one that the choice rested on must itself still suffice.
                let measured_at = host.measured_at.filter(|_| host.replay.is_some_and(|replay| replay >= needed));
                vantage.facts.in_recovery && vantage.sees(needed, host.incarnation, measured_at)
            }
        }
    }
}

/// What a standby cannot do and its primary can: read an unlogged table, run as SERIALIZABLE, call some functions.
pub(super) fn needs_primary(failure: &Failure) -> bool {
    failure.server.as_ref().is_some_and(|error| matches!(error.sqlstate.as_str(), "0A000" | "55000"))
}
