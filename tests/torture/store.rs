//! The tables that sessions write and read, made so that one read shows whether promises were kept: rows that are only added,
//! registers that only rise. And how the end is read.

use tidegate::dev::{DATABASE, DevError, Server};
use tidegate_client::{Error, Rows};

use super::history::{End, SHARED, State};

/// Whom the brokers log in as. Without a password: a hundred of SCRAM's hashes at once, not optimised, would keep a broker of
/// this build busy for seconds after each fault.
pub const ROLE: &str = "torture";

/// No row is unique: a write that is done twice shows.
pub fn schema() -> String {
    format!(
        "CREATE ROLE {ROLE} LOGIN IN ROLE pg_monitor;
         GRANT CREATE ON DATABASE {DATABASE} TO {ROLE};
         CREATE TABLE entries (session bigint NOT NULL, number bigint NOT NULL);
         CREATE INDEX ON entries (session, number);
         CREATE TABLE registers (session bigint PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
         INSERT INTO registers SELECT session, 0 FROM generate_series(0, 999) AS session;
         CREATE TABLE shared (id bigint PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 10);
         INSERT INTO shared SELECT id, 0 FROM generate_series(0, {}) AS id;
         GRANT ALL ON entries, registers, shared TO {ROLE};",
        SHARED - 1
    )
}

/// Adds a row: $1 is the session, $2 the write's number.
pub const ADD_ROW: &str = "INSERT INTO entries (session, number) VALUES ($1, $2)";
/// Raises the session's register: a write that comes late must not lower it.
pub const RAISE: &str = "UPDATE registers SET version = greatest(version, $2) WHERE session = $1";
/// Adds a row, and 1 to the shared register $3; answers what that came to.
pub const ADD_TO_SHARED: &str = "WITH entry AS (INSERT INTO entries (session, number) VALUES ($1, $2)) \
     UPDATE shared SET version = version + 1 WHERE id = $3 RETURNING version";
/// All that one read sees, in one snapshot: $1 is the session.
pub const READ: &str = "SELECT \
     coalesce((SELECT string_agg(number || ':' || rows, ',') FROM (SELECT number, count(*) AS rows FROM entries \
         WHERE session = $1 GROUP BY number) AS counted), ''), \
     (SELECT version FROM registers WHERE session = $1), \
     (SELECT string_agg(version::text, ',' ORDER BY id) FROM shared)";

/// What a read by [`READ`] saw.
pub fn state(rows: &Rows) -> Result<State, Error> {
    let row = rows.iter().next().ok_or(Error::Protocol("the read has no row"))?;
    Ok(State {
        rows: row.get::<&str>(0)?.split(',').filter_map(pair).collect(),
        register: row.get::<i64>(1)?,
        shared: versions(row.get::<&str>(2)?),
    })
}

fn pair(text: &str) -> Option<(u32, u32)> {
    let (number, count) = text.split_once(':')?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

fn versions(text: &str) -> [i64; SHARED] {
    let mut all = [0; SHARED];
    for (at, version) in text.split(',').enumerate() {
        all[at] = version.parse().expect("a version is a number");
    }
    all
}

/// Reads the end from the primary itself.
pub async fn end(primary: &Server) -> Result<End, DevError> {
    let mut end = End::default();
    let number = |text: &str| text.parse::<i64>().expect("a number");
    for line in primary.sql("SELECT session, number, count(*) FROM entries GROUP BY 1, 2").await?.lines() {
        let columns: Vec<i64> = line.split('|').map(number).collect();
        end.rows.insert((columns[0] as u32, columns[1] as u32), columns[2] as u32);
    }
    for line in primary.sql("SELECT session, version FROM registers").await?.lines() {
        let columns: Vec<i64> = line.split('|').map(number).collect();
        end.registers.insert(columns[0] as u32, columns[1]);
    }
    end.shared = versions(&primary.sql("SELECT string_agg(version::text, ',' ORDER BY id) FROM shared").await?);
    Ok(end)
}
