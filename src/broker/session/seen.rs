//! What binds a session's later reads: the tokens that it carries on, and what is seen inside a CAUSAL transaction, where
//! beside its statements a COPY sees something.

use super::{Session, transaction::Pinned};
use crate::broker::{
    Broker, Context, Failure,
    caller::Caller,
    reach::Reach,
    seen::{Hold, SeenOn},
};

impl Session {
    /// Whom what is seen in this transaction binds; None: it is not CAUSAL.
    pub(super) fn reach_of(&self, pinned: &Pinned) -> Result<Option<Reach>, Failure> {
        let reach = || {
            let mut reach = Reach::of(&self.broker, &pinned.database, &self.context)?;
            if pinned.stays {
                reach.leave_no_trail();
            }
            Ok(reach)
        };
        pinned.is_causal.then(reach).transpose()
    }

    /// Keeps the session's CAUSAL reads on the primary while a COPY shows what is not recorded yet.
    pub(super) fn held<'a>(&self, pinned: &Pinned, broker: &'a Broker) -> Option<Hold<'a>> {
        let hold = self.reach_of(pinned).ok()?.map(|reach| reach.hold(broker));
        hold.inspect(Hold::begin)
    }

    /// A COPY has told the client what it saw.
    pub(super) async fn copied_out(&mut self, pinned: &mut Pinned, caller: &Caller) {
        if let Ok(Some(reach)) = self.reach_of(pinned) {
            let seen = tokio::select! {
                seen = pinned.seat.seen() => seen,
                _ = caller.interrupted() => None,
            };
            let on = SeenOn { host: pinned.receipt.host_id, facts: pinned.seat.facts() };
            self.carry(&reach.record_seen(&self.broker, &pinned.database, on, seen));
        }
    }

    /// A COPY was cut after it had told something.
    pub(super) fn cut_short(&self, pinned: &Pinned, failure: &mut Failure) {
        if let Ok(Some(reach)) = self.reach_of(pinned) {
            failure.position = reach.mark_unknown(&self.broker, &pinned.database);
        }
    }

    /// Merges a request's tokens with the session's. One that is refused changes nothing but its own request.
    pub(super) fn take_positions(&mut self, tokens: Vec<String>) -> Result<(), Failure> {
        if tokens.is_empty() {
            return Ok(());
        }
        let positions = [tokens, self.context.positions.clone()].concat();
        let context = Context { positions, ..self.context.clone() };
        let merged = Reach::of(&self.broker, &self.database, &context)?.token(&self.broker);
        self.context.positions = vec![merged];
        Ok(())
    }

    /// A token that holds all the session's positions stands for the ones before it.
    pub(super) fn carry(&mut self, token: &str) {
        if !token.is_empty() {
            self.context.positions = vec![token.to_owned()];
        }
    }
}
