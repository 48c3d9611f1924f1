//! The budgets of all hosts: one a server of a cluster, shared by whatever connects to it, gone with the last of that.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{HostSpec, Settings, pools::HostBudget};
use crate::{
    admission::{BudgetLimits, Use},
    clock,
    model::ClusterId,
    telemetry::{BudgetGauges, QueueGauges},
};

/// A server by its address: a host that is taken out and comes back, or gets another name, has what it still has in use.
/// One that gets another address is another server.
type Key = (ClusterId, String);

/// Finds, or makes, the budget of a host.
pub(crate) struct HostBudgets(Mutex<Inside>);

struct Inside {
    limits: BudgetLimits,
    budgets: HashMap<Key, Known>,
}

struct Known {
    cluster: Arc<str>,
    /// As it was named last.
    host: String,
    budget: Weak<HostBudget>,
}

impl HostBudgets {
    pub(crate) fn new(settings: &Settings) -> HostBudgets {
        HostBudgets(Mutex::new(Inside { limits: settings.budget_limits(), budgets: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The budget of a host, for as long as anybody keeps it.
    pub(crate) fn of(&self, (cluster, name): (ClusterId, &Arc<str>), host: &HostSpec) -> Arc<HostBudget> {
        let mut inside = self.lock();
        inside.budgets.retain(|_, known| known.budget.strong_count() > 0);
        let limits = inside.limits;
        let key = (cluster, host.target.address());
        let living = inside.budgets.get(&key).and_then(|known| known.budget.upgrade());
        let budget = living.unwrap_or_else(|| HostBudget::new(limits));
        let (cluster, host, known) = (Arc::clone(name), host.name.clone(), Arc::downgrade(&budget));
        inside.budgets.insert(key, Known { cluster, host, budget: known });
        budget
    }

    /// All budgets go by these limits from now on.
    pub(crate) fn set_limits(&self, limits: BudgetLimits) {
        let living: Vec<_> = {
            let mut inside = self.lock();
            inside.limits = limits;
            inside.budgets.values().filter_map(|known| known.budget.upgrade()).collect()
        };
        living.iter().for_each(|budget| budget.set_limits(limits));
    }

    /// What every budget is used for; not those of hosts that have left.
    pub(crate) fn gauges(&self) -> Vec<BudgetGauges> {
        let now = clock::now();
        let inside = self.lock();
        let living = inside.budgets.values().filter_map(|known| Some((known, known.budget.upgrade()?)));
        let gauges = living.filter(|(_, budget)| budget.is_joined()).map(|(known, budget)| {
            let figures = budget.figures();
            let uses = Use::ALL.into_iter().zip(figures.uses).map(|(usage, of)| QueueGauges {
                usage: usage.as_str(),
                in_use: of.in_use,
                limit: of.limit,
                waiting: of.queue.waiting,
                oldest: of.queue.oldest.map(|since| now.saturating_duration_since(since)),
            });
            BudgetGauges {
                cluster: known.cluster.to_string(),
                host: known.host.clone(),
                limit: figures.calls,
                idle: figures.idle.iter().sum(),
                uses: uses.collect(),
            }
        });
        gauges.collect()
    }
}
