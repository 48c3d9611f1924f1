//! The budgets of all hosts: one a server of a cluster, shared by the databases on it, gone with the last of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Settings, pools::HostBudget};
use crate::{
    admission::{BudgetLimits, Use},
    clock,
    telemetry::{BudgetGauges, QueueGauges},
};

/// Cluster and host, by name.
type Key = (Arc<str>, String);

/// Finds, or makes, the budget of a host.
pub(crate) struct HostBudgets {
    limits: BudgetLimits,
    budgets: Mutex<HashMap<Key, Weak<HostBudget>>>,
}

impl HostBudgets {
    pub(crate) fn new(settings: &Settings) -> HostBudgets {
        HostBudgets { limits: settings.budget_limits(), budgets: Mutex::default() }
    }

    /// The budget of a host, for as long as anybody keeps it.
    pub(crate) fn of(&self, cluster: &Arc<str>, host: &str) -> Arc<HostBudget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(cluster), host.to_owned());
        if let Some(budget) = budgets.get(&key).and_then(Weak::upgrade) {
            return budget;
        }
        budgets.retain(|_, budget| budget.strong_count() > 0);
        let budget = HostBudget::new(self.limits);
        budgets.insert(key, Arc::downgrade(&budget));
        budget
    }

    /// What every budget is used for.
    pub(crate) fn gauges(&self) -> Vec<BudgetGauges> {
        let now = clock::now();
        let budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let living = budgets.iter().filter_map(|(key, budget)| Some((key, budget.upgrade()?)));
        let gauges = living.map(|((cluster, host), budget)| {
            let figures = budget.figures();
            let uses = Use::ALL.into_iter().zip(figures.uses).map(|(usage, of)| QueueGauges {
                usage: usage.as_str(),
                in_use: of.in_use,
                limit: of.limit,
                waiting: of.queue.waiting,
                oldest: of.queue.oldest.map(|since| now.saturating_duration_since(since)),
            });
            BudgetGauges {
                cluster: cluster.to_string(),
                host: host.clone(),
                limit: figures.calls,
                idle: figures.idle.iter().sum(),
                uses: uses.collect(),
            }
        });
        gauges.collect()
    }
}
