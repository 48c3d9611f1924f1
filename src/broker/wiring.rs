//! What the broker serves, changed while it runs: databases and their hosts come and go, settings change. Calls that run
//! keep the database that they began with.

use std::{collections::HashMap, sync::Arc};

use super::{
    Broker, DatabaseSpec, Settings,
    database::{Database, Wiring},
    hosts::same_pools,
};
use crate::model::{Balance, HostId};

/// What callers may name.
pub(super) type Databases = HashMap<String, Arc<Database>>;

impl Broker {
    /// Goes by these settings from now on. Databases that are served already get pools for the hosts that came in, and new
    /// ones where a login or a limit has changed; what is unchanged keeps its own. Hosts that are to leave stay until
    /// [`Broker::retire`]. Must be called inside a tokio runtime, by one caller at a time.
    pub fn admit(&self, settings: Settings, specs: &[DatabaseSpec]) {
        let anew = !same_pools(&self.settings(), &settings);
        self.budgets.set_limits(settings.budget_limits());
        let databases = self.databases.load();
        databases.values().for_each(|database| database.set_limits(&settings));
        for spec in specs {
            if let Some(database) = databases.get(&spec.name).filter(|database| is_same(database, spec)) {
                database.hosts.admit(&spec.hosts, &self.wiring(database, &settings), anew);
            }
        }
        self.settings.store(Arc::new(settings));
    }

    /// Serves these databases from now on: those that came in are made. Those that are not among them are known to nobody
    /// who comes, and stay for who is there until [`Broker::retire`].
    pub fn serve(&self, specs: &[DatabaseSpec], settings: &Settings) {
        let known = self.databases.load();
        let mut databases = Databases::with_capacity(specs.len());
        for spec in specs {
            let same = known.get(&spec.name).filter(|database| is_same(database, spec)).cloned();
            let database = same.unwrap_or_else(|| {
                // Several names may lead to one PostgreSQL database.
                let there = |other: &&Arc<Database>| other.cluster == spec.cluster && other.dbname == spec.dbname;
                let twin = databases.values().chain(known.values()).find(there);
                let schema = twin.map(|database| Arc::clone(&database.schema)).unwrap_or_default();
                // What a host has in hand counts whichever database it is for.
                let beside = databases.values().chain(known.values()).find(|other| other.cluster == spec.cluster);
                let balance = beside.map(|database| Arc::clone(&database.balance));
                let balance = balance.unwrap_or_else(|| Arc::new(Balance::new(settings.balance)));
                let database = Database::new(spec, schema, balance, settings);
                database.hosts.admit(&spec.hosts, &self.wiring(&database, settings), false);
                Arc::new(database)
            });
            databases.insert(spec.name.clone(), database);
        }
        let is_served = |database: &Arc<Database>| {
            databases.get(&*database.name).is_some_and(|served| Arc::ptr_eq(served, database))
        };
        self.leaving().extend(known.values().filter(|database| !is_served(database)).cloned());
        self.databases.store(Arc::new(databases));
    }

    /// Closes what is not among `specs` any more, once the topology leads nobody there: idle connections at once, those in
    /// use when they come back.
    pub fn retire(&self, specs: &[DatabaseSpec]) {
        for database in std::mem::take(&mut *self.leaving()) {
            database.removed.cancel();
            database.hosts.retain(&[]);
        }
        let databases = self.databases.load();
        for spec in specs {
            let hosts: Vec<HostId> = spec.hosts.iter().map(|host| host.id).collect();
            if let Some(database) = databases.get(&spec.name) {
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
        }
    }
}

fn is_same(database: &Database, spec: &DatabaseSpec) -> bool {
    database.cluster == spec.cluster && database.dbname == spec.dbname
}
