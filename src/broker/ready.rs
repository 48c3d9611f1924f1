//! A statement made ready on a connection: prepared, or found prepared there, with its parameters encoded for it. What
//! was prepared earlier may refer to tables that have changed since, or to another caller's temporary ones.

use super::{Failure, Outcome, StatementText, pools::Seat};
use crate::{
    codec::{self, CodecError, ColumnSpec, Param},
    postgres::{PgError, Prepared},
};

/// A statement that can be executed.
pub(crate) struct Ready {
    pub(crate) prepared: Prepared,
    pub(crate) params: Vec<Param>,
}

/// Why a statement cannot be executed; it was not.
pub(crate) enum NotReady {
    /// The server, or the connection to it, failed.
    Server(PgError),
    /// The parameters do not fit.
    Codec(CodecError),
}

impl Ready {
    /// Prepares a statement, or finds it prepared, and encodes its parameters.
    pub(crate) async fn make(seat: &mut Seat, statement: &StatementText) -> Result<Ready, NotReady> {
        let prepared = seat.prepare(&statement.sql).await.map_err(NotReady::Server)?;
        match encode(statement, &prepared) {
            Ok(params) => return Ok(Ready { prepared, params }),
            Err(misfit) if !prepared.is_reused() => return Err(NotReady::Codec(misfit)),
            // The types may be of a table that is no more: the server is asked anew.
            Err(_) => seat.forget(&statement.sql),
        }
        let prepared = seat.prepare(&statement.sql).await.map_err(NotReady::Server)?;
        let params = encode(statement, &prepared).map_err(NotReady::Codec)?;
        Ok(Ready { prepared, params })
    }
}

/// A statement's result columns, as the codec takes them.
pub(crate) fn column_specs(prepared: &Prepared) -> impl Iterator<Item = ColumnSpec<'_>> {
    prepared.columns().map(|(name, type_, type_modifier)| ColumnSpec { name, type_, type_modifier })
}

/// The parameters, once it is known that the result's columns can be carried too: nothing runs in vain.
fn encode(statement: &StatementText, prepared: &Prepared) -> Result<Vec<Param>, CodecError> {
    codec::carries(column_specs(prepared))?;
    codec::encode(&statement.params, prepared.params())
}

impl NotReady {
    /// The failure, where nothing else has run on the connection: it is fit for the next caller, if it still stands.
    pub(crate) fn unexecuted(self, seat: &mut Seat) -> Failure {
        match self {
            NotReady::Server(error) => {
                if !error.ends_connection() {
                    seat.release_unused();
                }
                Failure::from_exchange(error, Outcome::NotExecuted).outcome(Outcome::NotExecuted)
            }
            NotReady::Codec(error) => {
                seat.release_unused();
                error.into()
            }
        }
    }
}

/// Whether a statement failed because it was prepared for what is no more: nothing of it ran, and preparing it anew may
/// help (rule 17). The types of its parameters and columns were fixed then, and do not fit now.
pub(crate) fn is_stale(prepared: &Prepared, error: &PgError) -> bool {
    const FIXED_TYPES_DO_NOT_FIT: [&str; 5] = ["0A000", "26000", "42804", "42846", "42883"];
    let Some(error) = error.server().filter(|_| prepared.is_reused()) else { return false };
    // A parameter's text that its type does not take, or whose type is gone, may be what a new type takes.
    let of_parameter = error.context.lines().next().is_some_and(|line| line.contains(" parameter $"));
    // Behind any other context is a function that was running already.
    of_parameter || (error.context.is_empty() && FIXED_TYPES_DO_NOT_FIT.contains(&error.sqlstate.as_str()))
}

/// A parameter's text that only the server could judge is reported as those that are judged here: by `$n` and its types.
pub(crate) fn name_parameter(failure: Failure, statement: &StatementText, prepared: &Prepared) -> Failure {
    let Some(index) = failure.server.as_ref().and_then(|error| error.parameter()) else { return failure };
    let why = failure.message.clone();
    match codec::misfit(&statement.params, prepared.params(), index, why) {
        Some(error) => {
            let Failure { reason, message, field, .. } = error.into();
            Failure { reason, message, field, ..failure }
        }
        None => failure,
    }
}
