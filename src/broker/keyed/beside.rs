//! A key while its database is being moved: the two sides have a table each, and a write may be repeated on the side that
//! it did not go to before.

use super::{Answer, Beside, IdempotencyKey, Receipt, Seat, Write, WrittenTo};

/// A key whose row is inserted, and not committed: whoever else wants it there waits.
pub(super) struct Claimed {
    pub(super) receipt: Receipt,
    pub(super) seat: Seat,
    pub(super) written_to: WrittenTo,
}

/// What goes are for.
pub(super) enum Aim<'a> {
    /// The write; with the key claimed already, and the connection on which it is claimed on the database's other side.
    Write(Option<(Box<Claimed>, &'a Seat)>),
    /// Only the key, if nobody has committed it.
    Claim(&'a mut Option<Claimed>),
}

/// The same once the key that was claimed is in hand.
pub(super) enum Aiming<'a> {
    Write(Option<&'a Seat>),
    Claim(&'a mut Option<Claimed>),
}

impl Write<'_> {
    /// While a database is being moved, a key may have been claimed on the side that the write does not go to now: it is
    /// claimed on both, and kept there until the write is through. Always on the origin first, or two calls would each
    /// wait for what the other has.
    pub(super) async fn run_beside(&self, key: &IdempotencyKey, beside: Beside, answer: &mut Answer) {
        let Beside { database, reach, is_origin } = beside;
        let (broker, request) = (self.broker, self.request);
        let other = Write {
            broker,
            database: &database,
            reach,
            request,
            kinds: self.kinds.clone(),
            caller: self.caller.clone(),
        };
        let (first, second) = if is_origin { (&other, self) } else { (self, &other) };
        let (mut one, mut two) = (None, None);
        first.run_goes(key, Aim::Claim(&mut one), answer).await;
        let Some(mut one) = one else { return };
        second.run_goes(key, Aim::Claim(&mut two), answer).await;
        let Some(two) = two else { return one.seat.rollback().await };
        let (mine, mut theirs) = if is_origin { (two, one) } else { (one, two) };
        self.run_goes(key, Aim::Write(Some((Box::new(mine), &theirs.seat))), answer).await;
        theirs.seat.rollback().await;
    }
}
