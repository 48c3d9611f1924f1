//! Owns the transaction state of a session: which requests may run in which state. It executes nothing.

use std::error::Error;
use std::fmt;

/// A session's transaction. It is named by the request id of its begin, which is never 0; 0 stands for "outside a
/// transaction".
///
/// PostgreSQL's driver hides the server's own state (a COMMIT of a failed transaction even reports success), so it is
/// kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionState {
    /// None is open.
    #[default]
    Idle,
    /// One is open and usable.
    Open {
        /// Its name.
        id: u64,
    },
    /// A statement failed in it: only a rollback is left, of all of it or to a savepoint.
    Failed {
        /// Its name.
        id: u64,
    },
}

impl TransactionState {
    /// Whether a statement that names transaction `named` may run. 0 runs outside, on a connection of
    /// its own, whatever is open.
    ///
    /// # Errors
    /// [`TransactionError::NotOpen`] when the named one is not the open one, [`TransactionError::Failed`] when it has
    /// failed.
    pub const fn check(&self, named: u64) -> Result<(), TransactionError> {
        if named == 0 {
            return Ok(());
        }
        match *self {
            Self::Open { id } if id == named => Ok(()),
            Self::Failed { id } if id == named => Err(TransactionError::Failed { id }),
            _ => Err(TransactionError::NotOpen { named }),
        }
    }

    /// Whether `named` may be committed.
    ///
    /// # Errors
    /// As for [`TransactionState::check`]; and there is nothing to commit outside a transaction.
    pub const fn check_commit(&self, named: u64) -> Result<(), TransactionError> {
        if named == 0 { Err(TransactionError::NotOpen { named }) } else { self.check(named) }
    }

    /// Whether a savepoint may be set or released in `named`.
    ///
    /// # Errors
    /// As for [`TransactionState::check_commit`]: there are none outside a transaction.
    pub const fn check_savepoint(&self, named: u64) -> Result<(), TransactionError> {
        self.check_commit(named)
    }

    /// Whether `named` may be rolled back, as a whole or to a savepoint: also when it has failed.
    ///
    /// # Errors
    /// [`TransactionError::NotOpen`] when it is not the open one.
    pub const fn check_rollback(&self, named: u64) -> Result<(), TransactionError> {
        match *self {
            Self::Open { id } | Self::Failed { id } if id == named => Ok(()),
            _ => Err(TransactionError::NotOpen { named }),
        }
    }

    /// Opens transaction `id`.
    ///
    /// # Errors
    /// [`TransactionError::Open`] while one is open, failed or not; [`TransactionError::NotOpen`] for the name 0, which
    /// none can have.
    pub const fn begin(&mut self, id: u64) -> Result<(), TransactionError> {
        match *self {
            Self::Open { id: open } | Self::Failed { id: open } => Err(TransactionError::Open { id: open }),
            Self::Idle if id == 0 => Err(TransactionError::NotOpen { named: 0 }),
            Self::Idle => {
                *self = Self::Open { id };
                Ok(())
            }
        }
    }

    /// A statement failed inside the open transaction.
    pub const fn statement_failed(&mut self) {
        if let Self::Open { id } = *self {
            *self = Self::Failed { id };
        }
    }

    /// A rollback to a savepoint succeeded: PostgreSQL accepts statements again.
    pub const fn rolled_back_to_savepoint(&mut self) {
        if let Self::Failed { id } = *self {
            *self = Self::Open { id };
        }
    }

    /// The transaction was committed or rolled back, or its connection is gone.
    pub const fn end(&mut self) {
        *self = Self::Idle;
    }

    /// The name of the open or failed transaction.
    #[must_use]
    pub const fn id(&self) -> Option<u64> {
        match *self {
            Self::Idle => None,
            Self::Open { id } | Self::Failed { id } => Some(id),
        }
    }
}

/// Why a request does not fit the session's transaction. Nothing was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionError {
    /// The named transaction is not open: it never began, or it has ended.
    NotOpen {
        /// The name in the request.
        named: u64,
    },
    /// Another one is open.
    Open {
        /// The open one's name.
        id: u64,
    },
    /// An earlier statement failed in it; roll it back.
    Failed {
        /// Its name.
        id: u64,
    },
}

impl fmt::Display for TransactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen { named: 0 } => f.write_str("the request names no transaction"),
            Self::NotOpen { named } => write!(f, "transaction {named} is not open"),
            Self::Open { id } => write!(f, "transaction {id} is open already"),
            Self::Failed { id } => write!(f, "transaction {id} has failed: roll it back, or back to a savepoint"),
        }
    }
}

impl Error for TransactionError {}

#[cfg(test)]
mod tests {
    use super::*;
    use TransactionError as E;
    use TransactionState as S;

    #[test]
    fn every_state_answers_every_request() {
        let (idle, open, failed) = (S::Idle, S::Open { id: 7 }, S::Failed { id: 7 });
        // (state, named, statement, commit, rollback)
        let not_open = |named| Err(E::NotOpen { named });
        for (state, named, statement, commit, rollback) in [
            (idle, 0, Ok(()), not_open(0), not_open(0)),
            (idle, 7, not_open(7), not_open(7), not_open(7)),
            (open, 0, Ok(()), not_open(0), not_open(0)),
            (open, 7, Ok(()), Ok(()), Ok(())),
            (open, 8, not_open(8), not_open(8), not_open(8)),
            (failed, 0, Ok(()), not_open(0), not_open(0)),
            (failed, 7, Err(E::Failed { id: 7 }), Err(E::Failed { id: 7 }), Ok(())),
            (failed, 8, not_open(8), not_open(8), not_open(8)),
        ] {
            assert_eq!(state.check(named), statement, "{state:?} {named}");
            assert_eq!(state.check_commit(named), commit, "{state:?} {named}");
            assert_eq!(state.check_savepoint(named), commit, "{state:?} {named}");
            assert_eq!(state.check_rollback(named), rollback, "{state:?} {named}");
        }
    }

    #[test]
    fn a_transaction_lives_and_ends() {
        let mut state = S::default();
        assert_eq!(state.begin(0), Err(E::NotOpen { named: 0 }));
        assert_eq!(state.begin(7), Ok(()));
        assert_eq!(state.begin(9), Err(E::Open { id: 7 }));
        state.statement_failed();
        assert_eq!((state, state.id()), (S::Failed { id: 7 }, Some(7)));
        assert_eq!(state.begin(9), Err(E::Open { id: 7 }));
        state.rolled_back_to_savepoint();
        assert_eq!(state, S::Open { id: 7 });
        state.end();
        assert_eq!((state, state.id()), (S::Idle, None));
        state.statement_failed();
        state.rolled_back_to_savepoint();
        assert_eq!(state, S::Idle);
        assert_eq!(state.check(7), Err(E::NotOpen { named: 7 }));
    }
}
