//! The table of idempotency keys in one database: what it is, who may use it, and how it is made.

use std::time::Duration;

use tokio_postgres::Client;

use super::{
    error::{ConnectError, PgError},
    open::{self, DriverGuard, Opened},
    target::Target,
};

/// What makes the table. The index is for the clean-up by age.
pub const KEY_TABLE: [&str; 3] = [
    "CREATE SCHEMA IF NOT EXISTS tidegate",
    "CREATE TABLE IF NOT EXISTS tidegate.idempotency_keys (\n    \
         principal text COLLATE \"C\" NOT NULL,\n    \
         key text COLLATE \"C\" NOT NULL,\n    \
         request_hash bytea NOT NULL,\n    \
         results bytea,\n    \
         created_at timestamptz NOT NULL DEFAULT now(),\n    \
         PRIMARY KEY (principal, key))",
    "CREATE INDEX IF NOT EXISTS idempotency_keys_created_at ON tidegate.idempotency_keys (created_at)",
];

/// Whether the table is there, and may be used, by the catalogue: a name that may not be looked up is an error.
const STATE: &str = "SELECT CASE WHEN c.oid IS NULL THEN 'missing' \
     WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
      AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT') \
      AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') THEN 'usable' ELSE 'forbidden' END, \
     pg_catalog.quote_ident(CURRENT_USER), pg_catalog.quote_ident(pg_catalog.current_database()) \
     FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'tidegate' \
     LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'idempotency_keys'";

/// How the table is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTableState {
    /// It is not there.
    Missing,
    /// It is there, and the login role may not use it.
    Forbidden,
    /// It is there, and the login role may use it.
    Usable,
}

/// A connection to one database of a primary that looks after its table of keys.
pub struct KeyTable {
    client: Client,
    _driver: DriverGuard,
    limit: Duration,
    role: String,
    database: String,
}

impl KeyTable {
    /// Connects, and looks: within the target's `connect_timeout`.
    pub async fn open(target: &Target) -> Result<(KeyTable, KeyTableState), ConnectError> {
        let limit = target.connect_timeout;
        let late = |_| ConnectError::TimedOut { host: target.address(), limit };
        let opening = async {
            let Opened { client, driver, .. } = open::open(target, &target.tls_connector(), "").await?;
            let mut table = KeyTable { client, _driver: driver, limit, role: String::new(), database: String::new() };
            let state = table.look().await.map_err(|error| ConnectError::from_exchange(&target.address(), error))?;
            Ok((table, state))
        };
        tokio::time::timeout(limit, opening).await.map_err(late)?
    }

    async fn look(&mut self) -> Result<KeyTableState, PgError> {
        let row = self.client.query_one(STATE, &[]).await?;
        (self.role, self.database) = (row.try_get(1)?, row.try_get(2)?);
        match row.try_get::<_, &str>(0)? {
            "missing" => Ok(KeyTableState::Missing),
            "forbidden" => Ok(KeyTableState::Forbidden),
            "usable" => Ok(KeyTableState::Usable),
            other => Err(PgError::Protocol(format!("undecodable state of the table of keys: {other}"))),
        }
    }

    /// Makes the table; the login role owns it then. All or nothing.
    pub async fn create(&mut self) -> Result<(), PgError> {
        let late = |_| PgError::Lost(format!("no answer within {}s", self.limit.as_secs_f64()));
        // One message is one transaction.
        let sql = KEY_TABLE.join(";\n");
        let made = tokio::time::timeout(self.limit, self.client.batch_execute(&sql));
        Ok(made.await.map_err(late)??)
    }

    /// What somebody with the right to it must run so that the login role can make the table.
    pub fn right_to_create(&self) -> String {
        format!("GRANT CREATE ON DATABASE {} TO {};", self.database, self.role)
    }

    /// What the table's owner must run so that the login role can use it.
    pub fn grants(&self) -> String {
        let role = &self.role;
        format!(
            "GRANT USAGE ON SCHEMA tidegate TO {role}; \
             GRANT SELECT, INSERT, UPDATE ON tidegate.idempotency_keys TO {role};"
        )
    }
}
