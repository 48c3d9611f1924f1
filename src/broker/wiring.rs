//! What the broker serves, changed while it runs: databases and their hosts come and go, and so do their moves to clusters
//! of their own; settings and rules change. Calls that run keep the database that they began with.

use std::{collections::HashMap, sync::Arc};

use super::{
    Broker, DatabaseSpec, Settings,
    database::{Database, Wiring},
    hosts::same_pools,
    placement::{Rollout, Served, Trail},
};
use crate::{
    admission::{Limiter, Turns},
    model::{Balance, HostId, Rules},
};

/// What callers may name.
pub(super) type Databases = HashMap<String, Arc<Served>>;

impl Broker {
    /// Goes by these settings from now on. Databases that are served already get pools for the hosts that came in, and new
    /// ones where a login or a limit has changed; what is unchanged keeps its own. Hosts that are to leave stay until
    /// [`Broker::retire`]. Must be called inside a tokio runtime, by one caller at a time.
    pub fn admit(&self, settings: Settings, specs: &[DatabaseSpec]) {
        let anew = !same_pools(&self.settings(), &settings);
        self.budgets.set_limits(settings.budget_limits());
        let databases = self.databases.load();
        databases.values().flat_map(|served| served.sides()).for_each(|side| side.set_limits(&settings));
        for spec in specs.iter().flat_map(DatabaseSpec::sides) {
            let served = databases.get(&spec.name);
            if let Some(database) = served.and_then(|served| served.side_of(spec)) {
                database.hosts.admit(&spec.hosts, &self.wiring(database, &settings), anew);
            }
        }
        self.settings.store(Arc::new(settings));
    }

    /// Serves these databases by these rules from now on: those that came in are made, each side of one that is being moved.
    /// A side that was served by the same name stays, also as the other one. Those that are not among them are known to
    /// nobody who comes, and stay for who is there until [`Broker::retire`].
    pub fn serve(&self, specs: &[DatabaseSpec], rules: Rules, settings: &Settings) {
        let known = self.databases.load();
        let mut databases = Databases::with_capacity(specs.len());
        let mut sides: Vec<Arc<Database>> = known.values().flat_map(|served| served.sides()).cloned().collect();
        let before = sides.len();
        for spec in specs {
            let served = self.served(spec, known.get(&spec.name).map(Arc::as_ref), &mut sides, settings);
            databases.insert(spec.name.clone(), Arc::new(served));
        }
        sides.truncate(before);
        let stays = |side: &Arc<Database>| {
            let now = databases.get(&*side.name).map(|served| served.sides());
            now.is_some_and(|mut sides| sides.any(|now| Arc::ptr_eq(now, side)))
        };
        for (name, served) in known.iter() {
            // Before anybody finds that a side is not served any more.
            if let Some(next) = databases.get(name) {
                served.make_way_for(next);
            }
        }
        self.leaving().extend(sides.into_iter().filter(|side| !stays(side)));
        self.rules.store(Arc::new(rules));
        self.databases.store(Arc::new(databases));
        for served in self.databases.load().values() {
            served.end_trails();
        }
    }

    /// One database with its move, of what there is of it: `known` are all sides that are, or were until now, served by any
    /// name.
    fn served(
        &self,
        spec: &DatabaseSpec,
        before: Option<&Served>,
        known: &mut Vec<Arc<Database>>,
        settings: &Settings,
    ) -> Served {
        // One call a key, and so many calls, whichever side they are placed on.
        let turns = before.map(|served| (Arc::clone(&served.origin.key_turns), Arc::clone(&served.origin.calls)));
        let turns = turns.unwrap_or_else(|| {
            let key_turns = Arc::new(Turns::new(settings.admission.max_queue));
            (key_turns, Limiter::new(settings.call_limits()))
        });
        let mut side = |spec: &DatabaseSpec| {
            let same = before.and_then(|served| served.side_of(spec)).cloned();
            same.unwrap_or_else(|| {
                let made = Arc::new(self.make(spec, known, &turns, settings));
                known.push(Arc::clone(&made));
                made
            })
        };
        let origin = side(spec);
        let rollout = spec.rollout.as_ref().map(|rollout| {
            let own = side(&rollout.own);
            // Before anybody is led by it.
            [&origin, &own].into_iter().for_each(|side| Trail::begin(side));
            Rollout::new(own, rollout.state, before.and_then(|served| served.rollout.as_ref()))
        });
        Served { origin, rollout }
    }

    fn make(
        &self,
        spec: &DatabaseSpec,
        known: &[Arc<Database>],
        (key_turns, calls): &(Arc<Turns>, Arc<Limiter>),
        settings: &Settings,
    ) -> Database {
        // Several names may lead to one PostgreSQL database; replicas have the schema of the primary that they follow.
        let home = spec.follows.as_ref().map_or(spec.cluster, |(leader, _)| *leader);
        let twin = known.iter().find(|other| other.positions_in == home && other.dbname == spec.dbname);
        let schema = twin.map(|database| Arc::clone(&database.schema)).unwrap_or_default();
        // What a host has in hand counts whichever database it is for.
        let beside = known.iter().find(|other| other.cluster == spec.cluster);
        let balance = beside.map(|database| Arc::clone(&database.balance));
        let balance = balance.unwrap_or_else(|| Arc::new(Balance::new(settings.balance)));
        let turns = (Arc::clone(key_turns), Arc::clone(calls));
        let database = Database::new(spec, schema, balance, turns, settings);
        database.hosts.admit(&spec.hosts, &self.wiring(&database, settings), false);
        database
    }

    /// Closes what is not among `specs` any more, once the topology leads nobody there: idle connections at once, those in
    /// use when they come back.
    pub fn retire(&self, specs: &[DatabaseSpec]) {
        for database in std::mem::take(&mut *self.leaving()) {
            database.removed.cancel();
            database.hosts.retain(&[]);
        }
        let databases = self.databases.load();
        for spec in specs.iter().flat_map(DatabaseSpec::sides) {
            let hosts: Vec<HostId> = spec.hosts.iter().map(|host| host.id).collect();
            if let Some(database) = databases.get(&spec.name).and_then(|served| served.side_of(spec)) {
                database.hosts.retain(&hosts);
            }
        }
    }

    fn wiring<'a>(&'a self, database: &'a Database, settings: &'a Settings) -> Wiring<'a> {
        Wiring {
            name: &database.name,
            cluster: database.cluster,
            cluster_name: &database.cluster_name,
            dbname: &database.dbname,
            schema: &database.schema,
            balance: &database.balance,
            topology: &self.topology,
            settings,
            budgets: &self.budgets,
            metrics: &self.metrics,
            lane_counts: &database.lane_counts,
        }
    }
}

impl DatabaseSpec {
    /// Itself, and the one that it is being moved to.
    fn sides(&self) -> impl Iterator<Item = &DatabaseSpec> {
        std::iter::once(self).chain(self.rollout.as_ref().map(|rollout| &*rollout.own))
    }
}
