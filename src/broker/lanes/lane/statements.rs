//! What is prepared on a lane. Nobody waits for it: until it is there, reads run on connections of their own, and before it
//! is too old it is prepared anew.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lru::LruCache;

use super::{Entered, InLine, Lane, LinePlace, keeper::LIMIT, lock};
use crate::{
    broker::{
        known::{Freshness, Known},
        ready::column_specs,
    },
    clock,
    codec::{Columns, Layout},
    postgres::Prepared,
};

/// As many as connections keep, or fewer.
const STATEMENTS: NonZeroUsize = NonZeroUsize::new(256).expect("it is above 0");

/// What could not be prepared is not tried again for so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A statement that is prepared on a lane.
pub(in crate::broker) struct Statement {
    pub(in crate::broker) prepared: Prepared,
    pub(in crate::broker) columns: Columns,
    pub(super) layout: Layout,
    schema: u64,
    is_renewed: AtomicBool,
}

enum Slot {
    Ready(Arc<Statement>),
    /// It is being prepared, or could not be.
    Away(Instant),
}

/// Statements by [`Known::id`].
pub(super) struct Statements(LruCache<u64, Slot>);

impl Statements {
    pub(super) fn new() -> Statements {
        Statements(LruCache::new(STATEMENTS))
    }

    /// Closes them, as far as the connection does not keep them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Lane {
    /// The statement as it is prepared here. None: not yet, or not any more; it will be.
    pub(in crate::broker) fn statement(
        self: &Arc<Self>,
        known: &Arc<Known>,
        fresh: Freshness,
    ) -> Option<Arc<Statement>> {
        let mut statements = lock(&self.statements);
        let mut renewed = false;
        match statements.0.get(&known.id) {
            Some(Slot::Ready(statement)) if statement.schema == fresh.schema => {
                let age = fresh.now.saturating_duration_since(statement.prepared.prepared_at());
                if age < fresh.max_age.mul_f64(0.75) {
                    return Some(Arc::clone(statement));
                }
                if age < fresh.max_age {
                    let statement = Arc::clone(statement);
                    if !statement.is_renewed.swap(true, Ordering::AcqRel) {
                        self.prepare_beside(known, fresh, true);
                    }
                    return Some(statement);
                }
                renewed = true;
            }
            Some(Slot::Away(until)) if fresh.now < *until => return None,
            _ => {}
        }
        statements.0.put(known.id, Slot::Away(fresh.now + LIMIT));
        drop(statements);
        self.prepare_beside(known, fresh, renewed);
        None
    }

    /// By a task of its own, whoever comes or goes meanwhile.
    fn prepare_beside(self: &Arc<Self>, known: &Arc<Known>, fresh: Freshness, anew: bool) {
        let Some(entered) = self.enter(None, usize::MAX) else { return };
        let known = Arc::clone(known);
        tokio::spawn(async move {
            let lane = &entered.lane;
            let slot = match tokio::time::timeout(LIMIT, lane.prepare(&entered, &known, fresh.schema, anew)).await {
                Ok(Some(statement)) => Slot::Ready(Arc::new(statement)),
                Ok(None) | Err(_) => Slot::Away(clock::now() + RETRY_AFTER),
            };
            lock(&lane.statements).0.put(known.id, slot);
        });
    }

    async fn prepare(
        self: &Arc<Self>,
        _entered: &Entered,
        known: &Known,
        schema: u64,
        anew: bool,
    ) -> Option<Statement> {
        let mut seat = self.seat.lock().await;
        let (lease, _) = seat.as_mut()?;
        let read = InLine::new(None, None, None);
        self.put_in_line(&read);
        let _in_line = LinePlace::new(Arc::clone(self), read);
        if anew {
            lease.expire(&known.sql);
        }
        let prepared = lease.prepare(&known.sql).await.ok()?;
        let columns = Columns::of(column_specs(&prepared)).ok()?;
        let layout = Layout::new(column_specs(&prepared)).ok()?;
        Some(Statement { prepared, columns, layout, schema, is_renewed: AtomicBool::new(false) })
    }
}
