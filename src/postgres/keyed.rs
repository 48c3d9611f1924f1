//! A write's idempotency key on its connection: the key's row is the first thing that the transaction inserts, and the
//! last that it updates. What a key means is the request path's matter; the table is made by `key_table`.

use std::sync::Arc;

use postgres_types::Type;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::{
    commit::{CommitKind, Committed, PendingReset},
    connection::Connection,
    error::PgError,
    exchange::Queued,
    transaction::Begin,
};

/// What the columns of [`claim_sql`]'s answers are called: several statements answer in one message.
const TAKEN: &str = "tidegate_key_taken";
const STORED: &str = "tidegate_key_stored";

/// Division by zero unless the row is there: what a transaction did to its own key must not commit without it.
const STORE: &str = "WITH stored AS (UPDATE tidegate.idempotency_keys SET results = $3 \
     WHERE principal OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 RETURNING 1) \
     SELECT 1 OPERATOR(pg_catalog./) pg_catalog.count(*) FROM stored";

/// A key, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who owns it.
    pub principal: String,
    /// Its text: no NUL.
    pub key: String,
    /// The hash of what was asked for.
    pub request_hash: [u8; 32],
}

/// What is done with the table of keys, as statements that can be judged: with what somebody has made of the table, they
/// might leave something behind.
pub const KEY_STATEMENTS: [&str; 2] = [
    "INSERT INTO tidegate.idempotency_keys (principal, key, request_hash) VALUES ($1, $2, $3) \
     ON CONFLICT (principal, key) DO NOTHING RETURNING true",
    "UPDATE tidegate.idempotency_keys SET results = $3 WHERE principal = $1 AND key = $2",
];

/// What became of claiming a key.
#[derive(Debug)]
pub enum Claim {
    /// It is this transaction's: whoever held it before has rolled back, for certain.
    Taken,
    /// A transaction has committed it. This one has done nothing but lock its row: its COMMIT waits for whatever that one's
    /// had to wait for (a synchronous standby), which a crash or an administrator may have cut short.
    Stored(StoredWrite),
    /// A row was in the way that is no more, or has no results. This transaction has done nothing.
    Gone,
}

/// What the transaction left that committed a key.
#[derive(Debug)]
pub struct StoredWrite {
    /// The hash of what was asked for.
    pub request_hash: Vec<u8>,
    /// Its results.
    pub results: Vec<u8>,
}

impl Connection {
    /// Begins a transaction and claims the key in it: one message, of which PostgreSQL runs nothing behind an error. Waits
    /// while another transaction holds the key, until that has ended.
    pub async fn begin_with_key(&mut self, begin: &Begin, key: &IdempotencyKey) -> Result<Claim, PgError> {
        self.take_into_use();
        let renewal = self.queue_renewal_before(begin);
        let (client, sql) = (Arc::clone(&self.client), format!("{}; {}", begin.sql(), claim_sql(key)));
        let mut claimed = Queued::new(async move { client.simple_query(&sql).await });
        self.renewed(renewal).await?;
        let messages = claimed.answer().await.ok_or_else(|| PgError::Lost("BEGIN has no answer".into()))??;
        for message in &messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            match row.columns().first().map(|column| column.name()) {
                Some(TAKEN) => return Ok(Claim::Taken),
                Some(STORED) => return decode(row).map(Claim::Stored),
                _ => {}
            }
        }
        Ok(Claim::Gone)
    }

    /// Stores the results in the key's row, then [`Connection::commit`]: all in one flush. If they cannot be stored
    /// nothing is committed: the COMMIT is behind a statement that fails in a failed transaction.
    pub async fn commit_with_key(
        &mut self,
        key: &IdempotencyKey,
        results: Vec<u8>,
    ) -> (Result<Committed, PgError>, PendingReset) {
        let client = Arc::clone(&self.client);
        let (principal, key) = (key.principal.clone(), key.key.clone());
        let mut stored = Queued::new(async move {
            let params: [(&(dyn postgres_types::ToSql + Sync), Type); 3] =
                [(&principal, Type::TEXT), (&key, Type::TEXT), (&results, Type::BYTEA)];
            client.execute_typed(STORE, &params).await
        });
        let commit = self.queue_commit(CommitKind::ReadWrite);
        let stored = stored.answer().await;
        let (committed, reset) = commit.answer(&mut self.statements).await;
        match (committed, stored) {
            // The commit's own error says no more than that the transaction had failed before.
            (Err(PgError::Server(_)), Some(Err(error))) if error.as_db_error().is_some() => (Err(error.into()), reset),
            (committed, _) => (committed, reset),
        }
    }
}

/// `ON CONFLICT` waits for a transaction that holds the key; what the SELECT then finds has committed before. The values
/// are hexadecimal digits, whatever the key holds: there is nothing to quote, and no setting to depend on.
fn claim_sql(key: &IdempotencyKey) -> String {
    let text =
        |text: &str| format!("pg_catalog.convert_from(pg_catalog.decode('{}', 'hex'), 'UTF8')", hex(text.as_bytes()));
    let (principal, name, hash) = (text(&key.principal), text(&key.key), hex(&key.request_hash));
    format!(
        "INSERT INTO tidegate.idempotency_keys (principal, key, request_hash) \
         VALUES ({principal}, {name}, pg_catalog.decode('{hash}', 'hex')) \
         ON CONFLICT (principal, key) DO NOTHING RETURNING true AS {TAKEN}; \
         SELECT pg_catalog.encode(request_hash, 'hex') AS {STORED}, pg_catalog.encode(results, 'hex') \
         FROM tidegate.idempotency_keys \
         WHERE principal OPERATOR(pg_catalog.=) {principal} AND key OPERATOR(pg_catalog.=) {name} \
         AND results IS NOT NULL FOR KEY SHARE"
    )
}

fn decode(row: &SimpleQueryRow) -> Result<StoredWrite, PgError> {
    let undecodable = |what: &str| PgError::Protocol(format!("undecodable {what} in tidegate.idempotency_keys"));
    let bytes = |index: usize, what: &str| row.get(index).and_then(unhex).ok_or_else(|| undecodable(what));
    Ok(StoredWrite { request_hash: bytes(0, "request_hash")?, results: bytes(1, "results")? })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hexadecimal_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }

        #[test]
        fn nothing_of_a_key_reaches_the_text_as_it_is(key: String, principal: String) {
            let key = IdempotencyKey { principal, key, request_hash: [7; 32] };
            let sql = claim_sql(&key);
            let plain = claim_sql(&IdempotencyKey { principal: String::new(), key: String::new(), request_hash: [7; 32] });
            let digits = |text: &str| text.replace(|c: char| c.is_ascii_hexdigit(), "");
            prop_assert_eq!(digits(&sql), digits(&plain));
        }
    }

    #[test]
    fn what_is_not_hexadecimal_is_refused() {
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("abc"), None);
    }
}
