//! Which of a logical database's two clusters a call goes to while the database is being moved (rule 12), and what the
//! rules by operation say of a read. The choices themselves are `model`'s; here they meet positions and connections.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;

use super::{Broker, Context, DatabaseSpec, Failure, Reason, choose::Chooser, database::Database, reach::Reach};
use crate::{
    clock,
    model::{Asked, ClusterId, ClusterView, Consistency, Percentage, Placement, RolloutState, Site, place_call},
};

/// The move of a database to a cluster of its own, as the application wires it.
#[derive(Debug, Clone)]
pub struct RolloutSpec {
    /// The database there.
    pub own: Box<DatabaseSpec>,
    /// How far it is.
    pub state: RolloutState,
}

/// What callers know by one name: a database, and the one that it is being moved to.
pub(crate) struct Served {
    pub(super) origin: Arc<Database>,
    pub(super) rollout: Option<Rollout>,
}

/// How far a database has been moved to a cluster of its own.
#[derive(Debug, Clone)]
pub struct RolloutReport {
    /// The database.
    pub database: String,
    /// The cluster where it is.
    pub origin: String,
    /// The cluster of its own.
    pub own: String,
    /// How far it is.
    pub state: RolloutState,
}

impl Served {
    fn moving(&self) -> Result<&Rollout, Failure> {
        self.rollout.as_ref().ok_or_else(|| {
            let message = format!("database {:?} is not being moved: it has no own_cluster", self.origin.name);
            Failure::field(Reason::FieldInvalid, "database", message)
        })
    }
}

/// A move at work.
pub(super) struct Rollout {
    own: Arc<Database>,
    /// How far it is by the configuration.
    configured: RolloutState,
    /// How far it is.
    state: Arc<ArcSwap<RolloutState>>,
}

impl Rollout {
    /// What was set by [`Broker::set_rollout`] lasts until the configuration says something else than it did.
    pub(super) fn new(own: Arc<Database>, configured: RolloutState, before: Option<&Rollout>) -> Rollout {
        let same = before.filter(|before| before.configured == configured);
        let state = same.map_or_else(|| Arc::new(ArcSwap::from_pointee(configured)), |same| Arc::clone(&same.state));
        Rollout { own, configured, state }
    }
}

impl Served {
    /// The database, and the one that it is being moved to.
    pub(super) fn sides(&self) -> impl Iterator<Item = &Arc<Database>> {
        std::iter::once(&self.origin).chain(self.rollout.as_ref().map(|rollout| &rollout.own))
    }

    /// The side with that part; the only one, without a move.
    pub(super) fn at(&self, site: Site) -> &Arc<Database> {
        match (site, &self.rollout) {
            (Site::Own, Some(rollout)) => &rollout.own,
            _ => &self.origin,
        }
    }

    /// The side that is this one already.
    pub(super) fn side_of(&self, spec: &DatabaseSpec) -> Option<&Arc<Database>> {
        let leader = spec.follows.as_ref().map_or(spec.cluster, |(leader, _)| *leader);
        self.sides().find(|side| side.leads_to() == (spec.cluster, leader, spec.dbname.as_str()))
    }

    /// What is not being moved any more needs no trails.
    pub(super) fn end_trails(&self) {
        if self.rollout.is_none() {
            self.origin.trail.store(None);
        }
    }
}

/// Under which name it is kept what sessions wrote to a database on one side of its move.
#[derive(Debug)]
pub(crate) struct Trail {
    /// The cluster's name, a slash, the database's: no cluster is called so.
    pub(crate) name: Arc<str>,
    /// What was written before is not on it.
    pub(crate) since: Instant,
}

impl Trail {
    /// Keeps one of what is written to that side from now on.
    pub(super) fn begin(side: &Database) {
        if side.trail.load().is_none() {
            let name = format!("{}/{}", side.positions_name, side.name).into();
            side.trail.store(Some(Arc::new(Trail { name, since: clock::now() })));
        }
    }
}

/// A call's database, and where the call goes.
pub(crate) struct Placed {
    served: Arc<Served>,
    pub(crate) placement: Placement,
}

impl Placed {
    fn side(&self, site: Site) -> &Arc<Database> {
        self.served.at(site)
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

/// The same with its reasons.
pub(super) struct Planned {
    pub(super) plan: ReadPlan,
    /// The name of the rule that it meets.
    pub(super) rule: Option<Arc<str>>,
    /// Why it goes there, if its database is being moved.
    why: Option<&'static str>,
}

/// One side of a database, and what binds the caller's reads there.
pub(crate) struct Side {
    pub(crate) database: Arc<Database>,
    pub(crate) reach: Reach,
    /// The cluster of the other side, if the caller has an unexpired position there as well.
    pub(crate) elsewhere: Option<Arc<str>>,
    /// It is not where the caller is placed: only what it wrote keeps the read here.
    pub(crate) stays: bool,
}

impl Side {
    /// How a host is chosen on this side.
    pub(super) fn chooser<'a>(
        &'a self,
        broker: &'a Broker,
        consistency: &'a Consistency,
        by_rule: bool,
        next: Option<&'a Chooser<'a>>,
    ) -> Chooser<'a> {
        let Side { database, reach, elsewhere, .. } = self;
        Chooser { broker, database, reach, consistency, by_rule, elsewhere: elsewhere.as_deref(), next }
    }

    fn stay(&mut self) {
        self.stays = true;
        self.reach.leave_no_trail();
    }
}

impl Broker {
    /// Where a call goes. Its session id decides, and nothing else that could change from one call to the next; or, where a
    /// session is settled, its side.
    pub(super) fn place(&self, context: &Context) -> Result<Placed, Failure> {
        let served = self.database(&context.database)?;
        let placement = match (&served.rollout, &context.settled) {
            (None, _) => Placement::ORIGIN,
            (Some(_), Some(settled)) => settled.placement_in(&served),
            (Some(rollout), None) => {
                place_call(**rollout.state.load(), &served.origin.name, &context.session_id).placement
            }
        };
        Ok(Placed { served, placement })
    }

    /// The side that a write goes to, and what its caller must see; and the other one, if its idempotency key may have
    /// been claimed there, before the database, or the session, was moved.
    pub(super) fn place_write(&self, context: &Context) -> Result<PlacedWrite, Failure> {
        let placed = self.place(context)?;
        let database = Arc::clone(placed.primary());
        if placed.served.rollout.is_some() {
            self.metrics.placed(&database.name, &database.cluster_name, "write");
        }
        let reach = Reach::of(self, &database, context)?;
        let other = placed.side(placed.placement.primary.other());
        let is_other = placed.served.rollout.as_ref().is_some_and(|rollout| !rollout.own.follows());
        let beside = match is_other {
            true => Some(Beside {
                reach: reach.beside(self, other, context),
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
        let Planned { plan, rule, why } = self.plan(context, consistency, is_stated)?;
        if let Some(rule) = &rule {
            self.metrics.ruled(rule, if plan.by_rule { "primary" } else { "replicas" });
        }
        if let Some(why) = why {
            let database = &plan.side.database;
            self.metrics.placed(&database.name, &database.cluster_name, why);
        }
        Ok(plan)
    }

    /// The same, counted nowhere.
    pub(super) fn plan(
        &self,
        context: &Context,
        consistency: Consistency,
        is_stated: bool,
    ) -> Result<Planned, Failure> {
        let placed = self.place(context)?;
        let asked = Asked {
            database: &placed.served.origin.name,
            operation: &context.operation,
            session_id: &context.session_id,
            consistency,
            is_stated,
        };
        let rules = self.rules.load();
        let ruled = rules.judge(&asked, rand::random);
        let rule = ruled.rule.map(|rule| Arc::clone(&rule.name));
        let to_primary = ruled.primary_only || ruled.consistency == Consistency::Strong;
        let site = if to_primary { placed.placement.primary } else { placed.placement.replica };
        let database = Arc::clone(placed.side(site));
        let reach = Reach::of(self, &database, context)?;
        let mut here = Side { database, reach, elsewhere: None, stays: false };
        let other = |here: &Side| {
            let database = Arc::clone(placed.side(site.other()));
            let reach = here.reach.beside(self, &database, context);
            Side { database, reach, elsewhere: None, stays: false }
        };
        let mut otherwise = None;
        let mut why = None;
        if placed.served.rollout.is_some() {
            why = Some("placed");
            // BOUNDED and EVENTUAL reads did not ask for what the session wrote.
            let heeds = to_primary || ruled.consistency.heeds_positions();
            if here.database.follows() {
                otherwise = Some(other(&here));
            } else if heeds && !placed.side(site.other()).follows() {
                let mut there = other(&here);
                match (self.is_bound(&here), self.is_bound(&there)) {
                    (false, true) => {
                        std::mem::swap(&mut here, &mut there);
                        here.stay();
                        why = Some("position");
                    }
                    (true, true) => {
                        here.elsewhere = Some(Arc::clone(&there.database.cluster_name));
                        why = Some("both");
                    }
                    _ => {}
                }
            }
        }
        let (consistency, by_rule) = (ruled.consistency, ruled.primary_only);
        Ok(Planned { plan: ReadPlan { side: here, otherwise, consistency, by_rule }, rule, why })
    }

    fn is_bound(&self, side: &Side) -> bool {
        side.reach.is_bound(self, &side.database, &self.topology.snapshot(), clock::now())
    }

    /// How far a database has been moved.
    ///
    /// # Errors
    /// A database that does not exist, or is not being moved.
    pub fn rollout(&self, database: &str) -> Result<RolloutReport, Failure> {
        let served = self.database(database)?;
        let rollout = served.moving()?;
        Ok(RolloutReport {
            database: served.origin.name.to_string(),
            origin: served.origin.cluster_name.to_string(),
            own: rollout.own.cluster_name.to_string(),
            state: **rollout.state.load(),
        })
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
        let served = self.database(database)?;
        let name = &served.origin.name;
        let rollout = served.moving()?;
        let before = **rollout.state.load();
        let state = RolloutState { use_own, percentage, ..before };
        tracing::info!(database = %name, ?use_own, %percentage, "rollout set");
        rollout.state.store(Arc::new(state));
        Ok(state)
    }
}

impl Database {
    /// What makes it the same for callers, by whatever connections: the cluster, the one that positions refer to, and the
    /// PostgreSQL database there.
    pub(super) fn leads_to(&self) -> (ClusterId, ClusterId, &str) {
        (self.cluster, self.positions_in, &self.dbname)
    }

    /// Whether its hosts follow another cluster's primary.
    pub(crate) fn follows(&self) -> bool {
        self.positions_in != self.cluster
    }

    /// Whether the topology judges its hosts as its positions are meant: by the primary of the same cluster. A reload may
    /// have changed whom they follow, while this call goes on.
    pub(super) fn is_judged_by(&self, view: &ClusterView) -> bool {
        view.follows == self.follows().then_some(self.positions_in)
    }
}

/// Whether hosts that follow another's primary are to blame: that one's own may do better.
pub(super) fn is_of_followers(failure: &Failure) -> bool {
    matches!(failure.reason, Reason::NoHostsAvailable | Reason::NoPrimaryAvailable | Reason::PositionUnproved)
        || failure.is_of_the_host()
}
