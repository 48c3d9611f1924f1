//! A connection as any program would make it, for measuring what the broker adds: no pool, no reset, no proof.

use futures_util::TryStreamExt;
use tokio_postgres::NoTls;

/// Why a plain read failed.
#[derive(Debug, thiserror::Error)]
#[error("a plain connection failed: {0}")]
pub struct PlainError(#[from] tokio_postgres::Error);

/// Connects, reads all rows of a statement whose columns are int8, text, float8, bool and text, and takes each value
/// out. Answers how many rows there were, and the sum of the first column.
///
/// # Errors
/// The connection's and the statement's, and a column of another type.
pub async fn read_all(url: &str, sql: &str) -> Result<(u64, i64), PlainError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends when the client is dropped, which sees its errors, too.
    tokio::spawn(connection);
    let mut rows = std::pin::pin!(client.query_raw(sql, std::iter::empty::<i64>()).await?);
    let (mut count, mut sum) = (0, 0_i64);
    while let Some(row) = rows.try_next().await? {
        let values: (&str, f64, bool, &str) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        std::hint::black_box(values);
        sum = sum.wrapping_add(row.try_get(0)?);
        count += 1;
    }
    Ok((count, sum))
}
