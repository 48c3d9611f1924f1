//! Which of a logical database's two clusters a call goes to while the database is being moved (rule 12), and what the
//! rules by operation say of a read. The choices themselves are `model`'s; here they meet positions and connections.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::{Broker, Context, DatabaseSpec, Failure, Reason, Settings, database::Database, reach::Reach};
use crate::{
    clock,
    model::{Asked, Balance, ClusterId, Consistency, Percentage, Placement, RolloutState, Site, place_call},
    postgres::SchemaVersion,
    telemetry::Metrics,
    topology::Topology,
};

/// The move of a database to a cluster of its own, as the application wires it.
#[derive(Debug, Clone)]
pub struct RolloutSpec {
    /// The database there.
    pub own: Box<DatabaseSpec>,
    /// How far it is.
    pub state: RolloutState,
}

/// The same at work.
pub(crate) struct Rollout {
    pub(crate) own: Arc<Database>,
    state: ArcSwap<RolloutState>,
}

/// What several databases share while they are wired.
#[derive(Default)]
pub(super) struct Shared {
    /// What was prepared for which PostgreSQL database: several names may lead to one.
    schemas: HashMap<(ClusterId, String), Arc<SchemaVersion>>,
    /// What a host has in hand counts whichever database it is for.
    balances: HashMap<ClusterId, Arc<Balance>>,
}

/// A database, and the one that it is being moved to.
pub(super) fn wire(
    spec: &DatabaseSpec,
    shared: &mut Shared,
    topology: &Topology,
    settings: &Settings,
    metrics: &Metrics,
) -> Database {
    let mut make = |spec: &DatabaseSpec| {
        // Replicas have the schemas of the cluster that they follow.
        let home = spec.follows.as_ref().map_or(spec.cluster, |(leader, _)| *leader);
        let schema = shared.schemas.entry((home, spec.dbname.clone())).or_default();
        let new_balance = || Arc::new(Balance::new(settings.balance));
        let balance = shared.balances.entry(spec.cluster).or_insert_with(new_balance);
        Database::new(spec, schema, balance, topology, settings, metrics)
    };
    let mut database = make(spec);
    if let Some(rollout) = &spec.rollout {
        let mut own = make(&rollout.own);
        // What a session has written to this database, and to no other of the same cluster: see `Reach`.
        for side in [&mut database, &mut own] {
            side.trail = Some(format!("{}/{}", side.positions_name, spec.name).into());
        }
        // One call a key, whichever side it is placed on.
        own.key_turns = Arc::clone(&database.key_turns);
        database.rollout = Some(Rollout { own: Arc::new(own), state: ArcSwap::from_pointee(rollout.state) });
    }
    database
}

/// A call's database, and where the call goes.
pub(crate) struct Placed {
    origin: Arc<Database>,
    pub(crate) placement: Placement,
}

impl Placed {
    fn side(&self, site: Site) -> &Arc<Database> {
        match (site, &self.origin.rollout) {
            (Site::Own, Some(rollout)) => &rollout.own,
            _ => &self.origin,
        }
    }

    /// The side that writes go to.
    pub(crate) fn primary(&self) -> &Arc<Database> {
        self.side(self.placement.primary)
    }
}

/// Where a write goes.
pub(crate) struct PlacedWrite {
    pub(crate) database: Arc<Database>,
    pub(crate) reach: Reach,
    /// The other side, if that has a primary of its own.
    pub(crate) beside: Option<Beside>,
}

/// The side that a write does not go to.
pub(crate) struct Beside {
    pub(crate) database: Arc<Database>,
    pub(crate) reach: Reach,
    pub(crate) is_origin: bool,
}

/// Where a read goes, and under which rule.
pub(crate) struct ReadPlan {
    pub(crate) side: Side,
    /// Where it goes when no host of the first will do: set where these follow the primary of the second.
    pub(crate) otherwise: Option<Side>,
    pub(crate) consistency: Consistency,
    /// A rule keeps it from replicas.
    pub(crate) by_rule: bool,
}

/// One side of a database, and what binds the caller's reads there.
pub(crate) struct Side {
    pub(crate) database: Arc<Database>,
    pub(crate) reach: Reach,
    /// The cluster of the other side, if the caller has an unexpired position there as well.
    pub(crate) elsewhere: Option<Arc<str>>,
}

impl Broker {
    /// Where a call goes. Its session id decides, and nothing else that could change from one call to the next.
    pub(super) fn place(&self, context: &Context) -> Result<Placed, Failure> {
        let origin = self.database(&context.database)?;
        let placement = match (&origin.rollout, context.placement) {
            (None, _) => Placement::ORIGIN,
            (Some(_), Some(decided)) => decided,
            (Some(rollout), None) => place_call(**rollout.state.load(), &origin.name, &context.session_id).placement,
        };
        Ok(Placed { origin, placement })
    }

    /// The side that a write goes to, and what its caller must see; and the other one, if its idempotency key may have
    /// been claimed there, before the database, or the session, was moved.
    pub(super) fn place_write(&self, context: &Context) -> Result<PlacedWrite, Failure> {
        let placed = self.place(context)?;
        let database = Arc::clone(placed.primary());
        if placed.origin.rollout.is_some() {
            self.metrics.placed(&placed.origin.name, &database.cluster_name, "write");
        }
        let reach = Reach::of(self, &database, context)?;
        let other = placed.side(placed.placement.primary.other());
        let is_other = placed.origin.rollout.as_ref().is_some_and(|rollout| !rollout.own.follows);
        let beside = match is_other {
            true => Some(Beside {
                reach: Reach::of(self, other, context)?,
                database: Arc::clone(other),
                is_origin: placed.placement.primary == Site::Own,
            }),
            false => None,
        };
        Ok(PlacedWrite { database, reach, beside })
    }

    /// The side that a read goes to. One whose session has an unexpired position on the other side only stays there:
    /// what it wrote is not here. With positions on both sides it goes where the session's writes go by now, and its
    /// receipt names the other.
    pub(super) fn plan_read(
        &self,
        context: &Context,
        consistency: Consistency,
        is_stated: bool,
    ) -> Result<ReadPlan, Failure> {
        let placed = self.place(context)?;
        let asked = Asked {
            database: &placed.origin.name,
            operation: &context.operation,
            session_id: &context.session_id,
            consistency,
            is_stated,
        };
        let ruled = self.rules.judge(&asked, rand::random);
        if let Some(rule) = ruled.rule {
            self.metrics.ruled(&rule.name, if ruled.primary_only { "primary" } else { "replicas" });
        }
        let to_primary = ruled.primary_only || ruled.consistency == Consistency::Strong;
        let site = if to_primary { placed.placement.primary } else { placed.placement.replica };
        let side = |site| -> Result<Side, Failure> {
            let database = Arc::clone(placed.side(site));
            let reach = Reach::of(self, &database, context)?;
            Ok(Side { database, reach, elsewhere: None })
        };
        let mut here = side(site)?;
        let mut otherwise = None;
        let mut why = "placed";
        if placed.origin.rollout.is_some() {
            // BOUNDED and EVENTUAL reads did not ask for what the session wrote.
            let heeds = to_primary || ruled.consistency.heeds_positions();
            if here.database.follows {
                otherwise = Some(side(site.other())?);
            } else if heeds && !placed.side(site.other()).follows {
                let mut there = side(site.other())?;
                match (self.is_held(&here), self.is_held(&there)) {
                    (false, true) => {
                        std::mem::swap(&mut here, &mut there);
                        why = "position";
                    }
                    (true, true) => {
                        here.elsewhere = Some(Arc::clone(&there.database.cluster_name));
                        why = "both";
                    }
                    _ => {}
                }
            }
            self.metrics.placed(&placed.origin.name, &here.database.cluster_name, why);
        }
        Ok(ReadPlan { side: here, otherwise, consistency: ruled.consistency, by_rule: ruled.primary_only })
    }

    fn is_held(&self, side: &Side) -> bool {
        side.reach.is_held(self, &side.database, &self.topology.snapshot(), clock::now())
    }

    /// Sets how far a database has been moved, from the next call on. Open sessions stay where they are.
    ///
    /// # Errors
    /// A database that does not exist, or is not being moved.
    pub fn set_rollout(
        &self,
        database: &str,
        use_own: Option<bool>,
        percentage: Percentage,
    ) -> Result<RolloutState, Failure> {
        let database = self.database(database)?;
        let Some(rollout) = &database.rollout else {
            let message = format!("database {:?} is not being moved: it has no own_cluster", database.name);
            return Err(Failure::field(Reason::FieldInvalid, "database", message));
        };
        let before = **rollout.state.load();
        let state = RolloutState { use_own, percentage, ..before };
        tracing::info!(database = %database.name, ?use_own, %percentage, "rollout set");
        rollout.state.store(Arc::new(state));
        Ok(state)
    }
}

impl Database {
    /// Itself, and the one that it is being moved to.
    pub(super) fn sides(&self) -> impl Iterator<Item = &Database> {
        std::iter::once(self).chain(self.rollout.as_ref().map(|rollout| &*rollout.own))
    }
}

/// Whether hosts that follow another's primary are to blame: that one's own may do better.
pub(super) fn is_of_followers(failure: &Failure) -> bool {
    matches!(failure.reason, Reason::NoHostsAvailable | Reason::NoPrimaryAvailable | Reason::PositionUnproved)
        || failure.is_of_the_host()
}
