//! The reset: what makes a connection as new for whoever has it next, and proves that it is.

use std::{sync::Arc, time::Duration};

use tokio_postgres::SimpleQueryMessage;

use super::{connection::Connection, error::PgError, exchange::Queued, facts::NAMED_BY};

/// What is left of one caller must be gone before the next comes (rule 14). `RESET ALL` alone leaves a changed role;
/// `DISCARD ALL` would drop the statement cache. A fresh seed undoes `setseed`. The last answer counts prepared
/// statements made in SQL: they cannot be dropped by a fixed text, so such a connection is closed instead.
/// So is one whose server has read another `search_path` since it was made: its facts would be another's.
const RESET: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ";
const COUNT_PREPARED: &str = "SELECT pg_catalog.count(*) FILTER (WHERE from_sql), \
     pg_catalog.count(*) FILTER (WHERE NOT from_sql)";

/// How long an interrupted statement may take to end after its cancel before its connection is given up.
pub(super) const SETTLE_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn queue_reset(connection: &Connection, before: &str) -> Queued<Result<bool, PgError>> {
    if connection.is_pooled() {
        return connection.queue_no_reset();
    }
    let seed: f64 = rand::random_range(-1.0..1.0);
    let settings = connection.session_settings;
    let seed = format!("SELECT pg_catalog.setseed({seed:.17}); ");
    let sql =
        format!("{before}{RESET}{settings}{seed}{COUNT_PREPARED}, {NAMED_BY} FROM pg_catalog.pg_prepared_statements");
    let client = Arc::clone(&connection.client);
    let kept = connection.prepared_count();
    let search_path = Arc::clone(&connection.facts.search_path);
    Queued::new(async move {
        let messages = client.simple_query(&sql).await?;
        let answer: Option<(bool, usize, bool)> = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((row.get(0)? == "0", row.get(1)?.parse().ok()?, row.get(2)? == &*search_path))
            }
            _ => None,
        });
        // None of SQL's own are left, and none of the connection's was taken away (DEALLOCATE in a function).
        Ok(answer.is_some_and(|(none_of_sql, of_protocol, same_path)| none_of_sql && of_protocol >= kept && same_path))
    })
}

/// Swallows a cancel that may still be on its way, then rolls back and resets. True when the connection is clean.
pub(super) async fn reset_after_cancel(connection: &mut Connection) -> Result<bool, PgError> {
    if !connection.cancel_delivered().await {
        return Ok(false);
    }
    // The cancel's stream was read to its end, so the signal was sent; this is where it lands.
    let _ = connection.client.simple_query("").await;
    queue_reset(connection, "ROLLBACK; ").answer().await.unwrap_or(Ok(false))
}

impl Connection {
    /// ROLLBACK and the reset, in one flush.
    pub async fn rollback(&mut self) {
        if self.is_pooled() {
            return self.rollback_pooled().await;
        }
        let reset = queue_reset(self, "ROLLBACK; ");
        self.finish_reset(reset).await;
        self.statements.transaction_ended();
    }

    pub(super) async fn finish_reset(&mut self, mut reset: Queued<Result<bool, PgError>>) {
        let finish = async {
            let clean = reset.answer().await;
            if self.is_cancelled() { reset_after_cancel(self).await } else { clean.unwrap_or(Ok(false)) }
        };
        if matches!(tokio::time::timeout(SETTLE_LIMIT, finish).await, Ok(Ok(true))) {
            self.was_reset();
        }
    }
}
