//! How a transaction begins, and the savepoints in it. Its end, which carries position and reset, is `exchange`'s.

use super::{connection::Connection, error::PgError, exchange::queue_batch};
use crate::sql::LocalSettings;

/// How a transaction is to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    /// None: the server's default.
    pub isolation: Option<Isolation>,
    /// READ ONLY.
    pub read_only: bool,
    /// DEFERRABLE (has an effect with SERIALIZABLE and READ ONLY only).
    pub deferrable: bool,
    /// Made right behind the BEGIN, for the transaction's length.
    pub settings: LocalSettings,
    /// Whether all that is going to run in it is known to be clean (rule 14): it is committed without a reset then.
    pub is_clean: bool,
    /// Whether the first snapshot (with REPEATABLE READ and above the only one) is taken at once, not by the first statement.
    pub snapshot: bool,
}

/// Transaction isolation levels, as PostgreSQL names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// READ COMMITTED
    ReadCommitted,
    /// REPEATABLE READ
    RepeatableRead,
    /// SERIALIZABLE
    Serializable,
}

/// What to do with a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Savepoint {
    /// SAVEPOINT
    Set,
    /// RELEASE SAVEPOINT
    Release,
    /// ROLLBACK TO SAVEPOINT
    RollbackTo,
}

impl Begin {
    /// One batch: PostgreSQL stops at its first error, and the transaction, if it has begun, has failed then.
    pub(super) fn sql(&self) -> String {
        self.sql_after("")
    }

    /// The same, with statements (each with its semicolon) right behind the BEGIN.
    pub(super) fn sql_after(&self, first: &str) -> String {
        let mut sql = String::from("BEGIN");
        if let Some(isolation) = self.isolation {
            sql.push_str(match isolation {
                Isolation::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
                Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
                Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
            });
        }
        sql.push_str(if self.read_only { " READ ONLY" } else { " READ WRITE" });
        if self.deferrable {
            sql.push_str(" DEFERRABLE");
        }
        sql.push_str("; ");
        sql.push_str(first);
        sql.push_str(self.settings.sql());
        if self.snapshot {
            sql.push_str("; SELECT");
        }
        sql
    }

    /// Settings end with the transaction, but a name of a caller's own stays known.
    pub(super) fn leaves_nothing(&self) -> bool {
        self.is_clean && self.settings.is_empty()
    }
}

impl Connection {
    /// Begins a transaction and awaits the answer: nothing may be sent behind a BEGIN that could fail (rule 14).
    pub async fn begin(&mut self, begin: &Begin) -> Result<(), PgError> {
        self.take_into_use();
        if self.is_pooled() {
            return self.begin_pooled(begin).await;
        }
        let renewal = self.queue_renewal_before(begin);
        let mut begun = queue_batch(&self.client, begin.sql());
        self.renewed(renewal).await?;
        let lost = || PgError::Lost("BEGIN has no answer".into());
        Ok(begun.answer().await.ok_or_else(lost)??)
    }

    /// Sets or releases a savepoint of the open transaction, or goes back to it. The name is any text of 1 to 63 bytes
    /// without NUL: PostgreSQL would cut a longer one, and take two for one.
    pub async fn savepoint(&mut self, savepoint: Savepoint, name: &str) -> Result<(), PgError> {
        let command = match savepoint {
            Savepoint::Set => "SAVEPOINT",
            Savepoint::Release => "RELEASE SAVEPOINT",
            Savepoint::RollbackTo => "ROLLBACK TO SAVEPOINT",
        };
        let name = name.replace('"', "\"\"");
        self.client.batch_execute(&format!("{command} \"{name}\"")).await?;
        if savepoint == Savepoint::RollbackTo {
            self.statements.transaction_went_back();
        }
        Ok(())
    }
}
