//! Which writes are clean: known to leave nothing behind but what a later reset removes, and to see nothing of what others
//! left. They are committed without a reset behind them; until their verdicts are there they run like any other.

use super::{Failure, Outcome, clean::Deed, pools::Seat, write::Write};
use crate::postgres::KEY_STATEMENTS;

impl Write<'_> {
    /// Whether all that it will run on this connection is clean, and with `keyed` what is done for its key. Statements of
    /// which that is not known yet are asked about, beside it.
    pub(super) fn is_clean(&self, seat: &Seat, keyed: bool) -> bool {
        let (broker, database, request) = (self.broker, self.database, self.request);
        if !broker.wants_verdicts(database) || request.outside_transaction || !request.context.settings.is_empty() {
            return false;
        }
        let fresh = broker.freshness(database);
        let snapshot = broker.topology.snapshot();
        let view = snapshot.cluster(database.cluster);
        let branch = view.primary.and(view.system_identifier.zip(view.timeline));
        let texts = request.statements.iter().map(|statement| &*statement.sql);
        let of_key = KEY_STATEMENTS.into_iter().filter(|_| keyed);
        // All of them, so that one that is not clean does not keep the others from being known.
        texts.chain(of_key).fold(true, |is_clean, text| {
            let known = database.judge.enter(Deed::Write, text);
            if known.runs(fresh, branch) {
                broker.judge_beside(database, &known);
            }
            is_clean && known.proof(fresh).is_some_and(|proof| proof.holds_on_primary(view, seat.facts()))
        })
    }

    /// Has the connection reset, if what runs next needs that.
    pub(super) async fn renew(&self, seat: &mut Seat, is_clean: bool) -> Result<(), Failure> {
        if seat.is_new_enough(is_clean) {
            return Ok(());
        }
        tokio::select! {
            biased;
            // The connection stays in use, and so is closed when it goes back.
            interrupted = self.caller.interrupted() => Err(interrupted.failure()),
            renewed = seat.renew(is_clean) => {
                renewed.map_err(|error| Failure::from_exchange(error, Outcome::NotExecuted).outcome(Outcome::NotExecuted))
            }
        }
    }
}
