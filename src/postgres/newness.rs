//! How new a connection is: whether it was reset since somebody used it, and whom it may serve before it is again. What is
//! clean leaves nothing behind but the sequences that it drew from, and sees nothing of what others left: it needs no reset
//! behind it, and none before it. Whatever else runs, and could see something, finds the connection reset.

use std::time::{Duration, Instant};

use super::{connection::Connection, error::PgError, exchange::Queued, reset::queue_reset, transaction::Begin};
use crate::clock;

/// What ran on a connection since its last reset.
#[derive(Debug)]
pub(super) struct Newness {
    /// When it was as new for the last time.
    reset_at: Instant,
    /// The version of the schema by then.
    schema: u64,
    /// Nothing has run since.
    is_as_new: bool,
    /// All that runs in the transaction that is open is clean.
    transaction_is_clean: bool,
}

impl Newness {
    pub(super) fn new(reset_at: Instant, schema: u64) -> Newness {
        Newness { reset_at, schema, is_as_new: true, transaction_is_clean: false }
    }

    /// Whether what runs next may run at once. Should a verdict have been wrong, because the schema has changed, what that
    /// left behind stays no longer than the change is unknown.
    fn is_enough(&self, for_clean: bool, now: Instant, schema: u64, max_age: Duration) -> bool {
        let is_recent = || self.schema == schema && now.saturating_duration_since(self.reset_at) < max_age;
        self.is_as_new || (for_clean && is_recent())
    }
}

/// A reset that stands before what runs next, and the schema's version when it was sent: what runs behind it may have been
/// judged by that one, and no newer.
pub(super) struct Renewal(Option<(Queued<Result<bool, PgError>>, u64)>);

impl Connection {
    /// Everything that ran is known to have ended, and a reset behind it found it clean.
    pub(super) fn was_reset(&mut self) {
        // What ran before the reset is gone, whatever the schema was then.
        self.newness = Newness::new(clock::now(), self.statements.schema());
        self.settled();
    }

    /// Everything that ran is known to have ended, and all of it was clean.
    pub(super) fn was_used_cleanly(&mut self) {
        self.newness.is_as_new = false;
        self.newness.transaction_is_clean = false;
        self.settled();
    }

    /// Whether what runs next, which may be clean, may run at once: it would see nothing of what ran before.
    pub fn is_new_enough(&self, for_clean: bool) -> bool {
        let (schema, max_age) = (self.statements.schema(), self.statements.max_age());
        self.newness.is_enough(for_clean, clock::now(), schema, max_age)
    }

    /// Resets the connection, in use and with nothing on it, unless it is new enough for what runs next.
    ///
    /// # Errors
    /// [`PgError`]; the connection stays in use then.
    pub async fn renew(&mut self, for_clean: bool) -> Result<(), PgError> {
        self.take_into_use();
        let renewal = self.queue_renewal(for_clean);
        self.renewed(renewal).await
    }

    /// The same before a transaction, whose BEGIN may be sent right behind it: nothing runs before both are answered.
    pub(super) fn queue_renewal_before(&mut self, begin: &Begin) -> Renewal {
        self.newness.transaction_is_clean = begin.leaves_nothing();
        self.queue_renewal(begin.leaves_nothing())
    }

    fn queue_renewal(&self, for_clean: bool) -> Renewal {
        let schema = self.statements.schema();
        Renewal((!self.is_new_enough(for_clean)).then(|| (queue_reset(self, ""), schema)))
    }

    pub(super) async fn renewed(&mut self, renewal: Renewal) -> Result<(), PgError> {
        let Some((mut reset, schema)) = renewal.0 else { return Ok(()) };
        let lost = || PgError::Lost("it could not be reset".into());
        if !reset.answer().await.ok_or_else(lost)?? {
            return Err(lost());
        }
        let transaction_is_clean = self.newness.transaction_is_clean;
        self.newness = Newness { transaction_is_clean, ..Newness::new(clock::now(), schema) };
        Ok(())
    }

    /// Whether the open transaction needs no reset behind it.
    pub(super) fn transaction_is_clean(&self) -> bool {
        self.newness.transaction_is_clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_clean_goes_on_behind_what_was_clean_for_a_while_and_nothing_else_does() {
        let (reset_at, age) = (clock::now(), Duration::from_secs(60));
        let used = Newness { is_as_new: false, ..Newness::new(reset_at, 7) };
        let (soon, late) = (reset_at + age / 2, reset_at + age);
        let enough = |for_clean, now, schema| used.is_enough(for_clean, now, schema, age);
        assert!(enough(true, soon, 7));
        assert!(!enough(false, soon, 7), "what is not clean could see something");
        assert!(!enough(true, soon, 8), "the schema has changed: the verdicts may have been wrong before");
        assert!(!enough(true, late, 7), "others may have changed it");
        let new = Newness::new(reset_at, 7);
        assert!([true, false].into_iter().all(|for_clean| new.is_enough(for_clean, late, 8, age)), "nothing has run");
    }
}
