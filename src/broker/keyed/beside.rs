//! A key while its database is being moved: the two sides have a table each, and a write may be repeated on the side that
//! it did not go to before.

use super::{Answer, Beside, Course, IdempotencyKey, Receipt, Seat, Write, WrittenTo};

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
    pub(super) async fn run_beside(&self, key: &IdempotencyKey, beside: Beside, answer: &mut Answer) -> Course {
        let Beside { database, reach, is_origin } = beside;
        let theirs = Write { database: &database, reach, ..self.again() };
        let (mut one, mut two) = (None, None);
        let first = if is_origin { &theirs } else { self };
        let course = first.run_goes(key, Aim::Claim(&mut one), answer).await;
        let Some(mut one) = one else { return course };
        // The call's turn to run goes for both: another one might come only once this one is over.
        let _turn = one.seat.take_turn();
        let caller = self.caller.clone().in_turn();
        let (mine, theirs) = (Write { caller: caller.clone(), ..self.again() }, Write { caller, ..theirs });
        let second = if is_origin { &mine } else { &theirs };
        let course = second.run_goes(key, Aim::Claim(&mut two), answer).await;
        let Some(two) = two else {
            one.seat.rollback().await;
            return course;
        };
        let (claimed, mut held) = if is_origin { (two, one) } else { (one, two) };
        let course = mine.run_goes(key, Aim::Write(Some((Box::new(claimed), &held.seat))), answer).await;
        held.seat.rollback().await;
        course
    }

    fn again(&self) -> Write<'_> {
        let Write { broker, database, reach, request, kinds, caller } = self;
        let (reach, kinds, caller) = (reach.clone(), kinds.clone(), caller.clone());
        Write { broker, database, reach, request, kinds, caller }
    }
}
