//! The statements that one connection keeps prepared, and when they may no longer be trusted. PostgreSQL plans a prepared
//! statement anew when its tables change, but keeps the types of its parameters: '007' for a column that was an integer
//! and is now text would be stored as '7', without any error (rule 17).

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lru::LruCache;

use super::connection::Prepared;
use crate::sql::SchemaChange;

/// Counts what this broker knows to have changed the schema of one PostgreSQL database. Shared by all connections to it.
#[derive(Debug, Default)]
pub struct SchemaVersion(AtomicU64);

impl SchemaVersion {
    /// The count by now: what was learnt of the schema holds for as long as it stays the same.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// How many statements a connection keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementLimits {
    /// Statements at most; the least recently used goes first.
    pub size: NonZeroUsize,
    /// A statement is prepared anew after this: the longest that a change of the schema by others may go unnoticed.
    pub max_age: Duration,
}

struct Kept {
    prepared: Prepared,
    prepared_at: Instant,
    versions: Versions,
}

/// The state of the schema, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Versions {
    shared: u64,
    own: u64,
}

/// A connection's prepared statements by their text.
pub(super) struct Statements {
    kept: LruCache<Arc<str>, Kept>,
    max_age: Duration,
    shared: Arc<SchemaVersion>,
    /// Advances with what only this connection sees: temporary objects.
    own: u64,
    /// The widest change since the last end of a transaction: only that end makes it visible, or undoes it.
    unsettled: SchemaChange,
}

impl Statements {
    pub(super) fn new(limits: StatementLimits, shared: Arc<SchemaVersion>) -> Statements {
        Statements {
            kept: LruCache::new(limits.size),
            max_age: limits.max_age,
            shared,
            own: 0,
            unsettled: SchemaChange::None,
        }
    }

    /// A statement that was prepared for the schema as it is known to be.
    pub(super) fn get(&mut self, sql: &str, now: Instant) -> Option<Prepared> {
        let (versions, max_age) = (self.versions(), self.max_age);
        let kept = self.kept.get(sql)?;
        if kept.versions == versions && now.saturating_duration_since(kept.prepared_at) < max_age {
            return Some(kept.prepared.again());
        }
        self.kept.pop(sql);
        None
    }

    /// The state to be read before a statement is prepared: what changes meanwhile makes it stale, never the reverse.
    pub(super) fn versions(&self) -> Versions {
        Versions { shared: self.shared.current(), own: self.own }
    }

    /// Keeps a statement. An evicted one is closed on the server when its last user drops it.
    pub(super) fn put(&mut self, sql: &str, prepared: Prepared, now: Instant, versions: Versions) {
        self.kept.put(Arc::from(sql), Kept { prepared, prepared_at: now, versions });
    }

    /// The version of the schema that all share.
    pub(super) fn schema(&self) -> u64 {
        self.shared.current()
    }

    /// The longest that a change of the schema by others may go unnoticed.
    pub(super) fn max_age(&self) -> Duration {
        self.max_age
    }

    pub(super) fn forget(&mut self, sql: &str) {
        self.kept.pop(sql);
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// A statement that changes the schema is about to run.
    pub(super) fn will_change(&mut self, change: SchemaChange) {
        match (self.unsettled, change) {
            (_, SchemaChange::None) | (SchemaChange::Lasting, _) => {}
            (_, wider) => self.unsettled = wider,
        }
        // What its transaction has prepared before is stale behind it.
        self.own += u64::from(change != SchemaChange::None);
    }

    /// Whom to tell of such a change at once, when its statement commits by itself.
    pub(super) fn changing(&self, change: SchemaChange) -> Option<Arc<SchemaVersion>> {
        (change == SchemaChange::Lasting).then(|| Arc::clone(&self.shared))
    }

    /// The transaction has gone back to a savepoint: what was prepared since then may be for what is undone.
    pub(super) fn transaction_went_back(&mut self) {
        self.own += u64::from(self.unsettled != SchemaChange::None);
    }

    /// The transaction has ended, one way or the other: others see its changes from now on, and what was temporary, or
    /// was undone, is gone.
    pub(super) fn transaction_ended(&mut self) {
        self.own += u64::from(self.unsettled != SchemaChange::None);
        if self.unsettled == SchemaChange::Lasting {
            self.shared.advance();
        }
        self.unsettled = SchemaChange::None;
    }
}

impl Drop for Statements {
    /// A connection that is lost may have committed.
    fn drop(&mut self) {
        self.transaction_ended();
    }
}
