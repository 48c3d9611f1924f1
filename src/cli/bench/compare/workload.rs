//! What is asked: each workload as pgbench's script and as the broker's request, from one text of SQL. And the tables.

use prost::Message;
use serde::Serialize;
use tidegate_client::proto;

/// How many rows the tables of single rows have.
pub(super) const ACCOUNTS: u64 = 100_000;
/// The rows of `counters` that one caller has for itself.
pub(super) const OWN_ROWS: u64 = 8;
/// The first row of what is read with a fixed parameter. h2load sends the same bytes each time, so pgbench does, too.
const FIRST: i64 = 4711;

/// Makes and fills the tables. `events` is for long results.
pub(super) fn tables(events: u64) -> String {
    format!(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL) WITH (fillfactor = 70);
         INSERT INTO accounts SELECT n, 'owner ' || n, n % 1000 FROM generate_series(1, {ACCOUNTS}) AS n;
         CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 70);
         INSERT INTO counters SELECT n, 0 FROM generate_series(1, {ACCOUNTS}) AS n;
         CREATE TABLE events (id bigint PRIMARY KEY, name text NOT NULL, price float8 NOT NULL, ok boolean NOT NULL,
                              note text NOT NULL);
         INSERT INTO events SELECT n, 'event ' || n, n / 8.0, n % 3 = 0, 'note ' || n * 7
             FROM generate_series(1, {events}) AS n;
         VACUUM (FREEZE, ANALYZE);"
    )
}

/// The first rows of `events`, as every program asks for them: of types that each hands over as they are, so that none has
/// to make more of a value than another.
pub(super) fn stream_sql(rows: u64) -> String {
    format!("SELECT id, name, price, ok, note FROM events WHERE id <= {rows}")
}

/// What callers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Workload {
    Point,
    TenRows,
    ThousandRows,
    Update,
    WriteThenRead,
    Mixed,
}

/// Where a client without a broker has to send a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Servers {
    Replicas,
    Primary,
}

pub(super) const POINT: &str = "SELECT id, owner, balance FROM accounts WHERE id = :id";
const RANGE: &str = "SELECT id, owner, balance FROM accounts WHERE id BETWEEN :id AND :last";
/// The server chooses the row: h2load cannot, and with one row all callers would wait for its lock.
const UPDATE: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = (SELECT 1 + (random() * 99999)::bigint)";
pub(super) const UPDATE_ID: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = :id";
pub(super) const COUNT: &str = "UPDATE counters SET n = n + 1 WHERE id = :id";
pub(super) const READ_COUNT: &str = "SELECT id, n FROM counters WHERE id = :id";

/// A script of pgbench, and how often it is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) weight: u32,
}

impl Workload {
    pub(super) const ALL: [Workload; 6] = [
        Workload::Point,
        Workload::TenRows,
        Workload::ThousandRows,
        Workload::Update,
        Workload::WriteThenRead,
        Workload::Mixed,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Workload::Point => "point",
            Workload::TenRows => "ten-rows",
            Workload::ThousandRows => "thousand-rows",
            Workload::Update => "update",
            Workload::WriteThenRead => "write-then-read",
            Workload::Mixed => "mixed",
        }
    }

    pub(super) fn parse(name: &str) -> Result<Workload, String> {
        let known = Workload::ALL.map(Workload::name).join(", ");
        let found = Workload::ALL.into_iter().find(|workload| workload.name() == name);
        found.ok_or_else(|| format!("there is no workload {name:?}; there are {known}"))
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Workload::Point => "read of one row",
            Workload::TenRows => "read of 10 rows",
            Workload::ThousandRows => "read of 1,000 rows",
            Workload::Update => "single UPDATE",
            Workload::WriteThenRead => "UPDATE, then read of one's own write",
            Workload::Mixed => "90 % reads, 10 % UPDATEs",
        }
    }

    /// A script of pgbench has one connection: what both writes and reads goes to the primary.
    pub(super) fn servers(self) -> Servers {
        match self {
            Workload::Point | Workload::TenRows | Workload::ThousandRows => Servers::Replicas,
            Workload::Update | Workload::WriteThenRead | Workload::Mixed => Servers::Primary,
        }
    }

    pub(super) fn scripts(self) -> Vec<Script> {
        let one = |text: String| vec![Script { text, weight: 1 }];
        let random = format!("\\set id random(1, {ACCOUNTS})\n");
        match self {
            Workload::Point | Workload::TenRows | Workload::ThousandRows => one(format!("{};\n", self.text())),
            Workload::Update => one(format!("{UPDATE};\n")),
            Workload::WriteThenRead => one(format!(
                "\\set id 1 + :client_id * {OWN_ROWS} + random(0, {})\n{COUNT};\n{READ_COUNT};\n",
                OWN_ROWS - 1
            )),
            Workload::Mixed => vec![
                Script { text: format!("{random}{POINT};\n"), weight: 9 },
                Script { text: format!("{random}{UPDATE_ID};\n"), weight: 1 },
            ],
        }
    }

    /// Parameters that stay the same, as pgbench's `-D` takes them, in the order of the statement's.
    pub(super) fn variables(self) -> Vec<(&'static str, i64)> {
        match self {
            Workload::Point => vec![("id", FIRST)],
            Workload::TenRows => vec![("id", FIRST), ("last", FIRST + 9)],
            Workload::ThousandRows => vec![("id", FIRST), ("last", FIRST + 999)],
            Workload::Update | Workload::WriteThenRead | Workload::Mixed => Vec::new(),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Workload::TenRows | Workload::ThousandRows => RANGE,
            Workload::Update => UPDATE,
            Workload::Point | Workload::WriteThenRead | Workload::Mixed => POINT,
        }
    }

    /// The broker's method and request, as h2load sends it. None: the workload takes a client that reads its answers.
    pub(super) fn request(self) -> Option<Request> {
        let params: Vec<i64> = self.variables().into_iter().map(|(_, value)| value).collect();
        match self {
            Workload::Point | Workload::TenRows | Workload::ThousandRows => Some(Request::read(self.text(), &params)),
            Workload::Update => Some(Request::write_in("", UPDATE, &[])),
            Workload::WriteThenRead | Workload::Mixed => None,
        }
    }

    /// What an answer has at least, in bytes, if it is right: a value of 8 bytes and a text of more for each row.
    pub(super) fn answer_bytes_min(self) -> u64 {
        match self {
            Workload::Point => 20,
            Workload::TenRows => 120,
            Workload::ThousandRows => 12_000,
            Workload::Update | Workload::WriteThenRead | Workload::Mixed => 1,
        }
    }
}

/// A statement of pgbench's as the broker takes it.
fn numbered(sql: &str) -> String {
    sql.replace(":id", "$1").replace(":last", "$2")
}

/// One request of the broker, encoded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// The path of the method that it calls.
    pub(super) path: &'static str,
    /// The body: gRPC's prefix of five bytes, and the message.
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn read(sql: &str, params: &[i64]) -> Request {
        Request::read_in("", sql, params)
    }

    /// A read of a session; an empty name is none.
    pub(super) fn read_in(session: &str, sql: &str, params: &[i64]) -> Request {
        let statement = Some(statement(sql, params));
        let message = proto::ExecuteReadRequest { context: context(session), statement, ..Default::default() };
        Request { path: "/tidegate.v1.BrokerService/ExecuteRead", body: framed(&message) }
    }

    /// A write of a session; an empty name is none.
    pub(super) fn write_in(session: &str, sql: &str, params: &[i64]) -> Request {
        let statements = vec![statement(sql, params)];
        let message = proto::ExecuteWriteRequest { context: context(session), statements, ..Default::default() };
        Request { path: "/tidegate.v1.BrokerService/ExecuteWrite", body: framed(&message) }
    }
}

fn context(session: &str) -> Option<proto::CallContext> {
    (!session.is_empty()).then(|| proto::CallContext { session_id: session.to_owned(), ..Default::default() })
}

fn statement(sql: &str, params: &[i64]) -> proto::Statement {
    let value = |value: &i64| proto::Value { kind: Some(proto::value::Kind::Int64Value(*value)) };
    proto::Statement { sql: numbered(sql), params: params.iter().map(value).collect() }
}

/// Not compressed, its length, and the message.
pub(super) fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tidegate_client::proto;

    use super::Workload;

    #[test]
    fn both_sides_ask_the_same() {
        let request = Workload::TenRows.request().expect("h2load sends it");
        assert_eq!(request.body[..5], [0, 0, 0, 0, (request.body.len() - 5) as u8]);
        let message = proto::ExecuteReadRequest::decode(&request.body[5..]).expect("a message");
        let statement = message.statement.expect("a statement");
        assert_eq!(statement.sql, "SELECT id, owner, balance FROM accounts WHERE id BETWEEN $1 AND $2");
        assert_eq!(statement.params.len(), 2);
        let script = &Workload::TenRows.scripts()[0].text;
        assert_eq!(script, "SELECT id, owner, balance FROM accounts WHERE id BETWEEN :id AND :last;\n");
        assert_eq!(Workload::TenRows.variables(), [("id", 4711), ("last", 4720)]);
    }

    #[test]
    fn every_workload_has_a_name_that_is_understood() {
        for workload in Workload::ALL {
            assert_eq!(Workload::parse(workload.name()), Ok(workload));
        }
        assert!(Workload::parse("pont").expect_err("a mistake").contains("there are point, "));
    }
}
