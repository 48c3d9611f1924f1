//! `tidegate sql`: runs a statement through a broker; prints its rows, the receipt and the position token.

use std::{
    error::Error as _,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use tidegate_client::{
    Batch, Client, Column, Consistency, Error, Outcome, ReadOptions, Receipt, Statement, Value, ValueRef, WriteOptions,
};

use super::{
    receipt::{receipt_json, receipt_text},
    table::{self, Table},
};

/// Run a statement through a broker, and print its rows, where it ran and why.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate sql 'SELECT id, name FROM tags ORDER BY id'
  tidegate sql --write --param blue 'INSERT INTO tags (name) VALUES ($1) RETURNING id'
  tidegate sql --position TOKEN 'SELECT count(*) FROM tags'     # sees the write that returned TOKEN
  tidegate sql --max-staleness 2s --json 'SELECT count(*) FROM tags'

Exit codes: 0 the statement ran; 1 it failed; 2 the arguments are wrong; 3 no broker could be reached.")]
pub(super) struct SqlArgs {
    /// The broker's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7432", value_parser = broker_url)]
    broker: String,
    /// The logical database [default: the broker's]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    database: String,
    /// The session whose writes the statement sees
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    session: String,
    /// A position token that the statement must see; may be given several times
    #[arg(long, value_name = "TOKEN")]
    position: Vec<String>,
    /// How fresh a read must be
    #[arg(long, value_name = "LEVEL", conflicts_with = "write")]
    consistency: Option<Level>,
    /// How far behind a replica may be, such as 500ms or 2s: means --consistency bounded
    #[arg(
        long, value_name = "DURATION", value_parser = duration, conflicts_with = "write",
        required_if_eq("consistency", "bounded")
    )]
    max_staleness: Option<Duration>,
    /// How long a read may wait for a replica to catch up before the primary is asked, such as 200ms
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "write")]
    max_wait: Option<Duration>,
    /// Run it on the primary, as a transaction of its own; else it is a read
    #[arg(long)]
    write: bool,
    /// Makes the write safe to repeat: with the same key and statement it is done once
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true, requires = "write")]
    idempotency_key: String,
    /// The value of $1, $2, …, as text; give it once a parameter
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    param: Vec<String>,
    /// How long to wait for the whole result
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    timeout: Duration,
    /// Print one JSON document: columns, rows (lists), row_count, receipt, position; errors as JSON too
    #[arg(long)]
    json: bool,
    /// The statement
    sql: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Sees the writes of the session and of the tokens
    Session,
    /// The same, and what the session's reads at this level have seen
    Causal,
    /// The primary
    Strong,
    /// Any healthy replica
    Eventual,
    /// A replica at most --max-staleness behind
    Bounded,
}

/// Why the command stops early.
enum Stop {
    Usage(&'static str),
    Call(Error),
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Call(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}

/// Runs the command: rows to standard output, errors to standard error. The exit code is as the help says.
pub(super) async fn run(args: SqlArgs) -> ExitCode {
    let out = io::BufWriter::new(io::stdout()); // flushed a batch at a time
    let stopped = execute(&args, &mut Output { out, json: args.json }).await;
    let mut err = io::stderr();
    let (code, _) = match stopped {
        Ok(()) => (0, Ok(())),
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => (0, Ok(())), // as for `| head`
        Err(Stop::Output(error)) => (1, writeln!(err, "error: cannot write the result: {error}")),
        Err(Stop::Usage(message)) => (2, writeln!(err, "error: {message}")),
        Err(Stop::Call(error)) => {
            let printed = if args.json {
                writeln!(err, "{}", error_json(&error))
            } else {
                print_error(&mut err, &args.broker, &error)
            };
            (if error.is_unreachable() { 3 } else { 1 }, printed)
        }
    };
    ExitCode::from(code)
}

async fn execute(args: &SqlArgs, output: &mut Output<impl Write>) -> Result<(), Stop> {
    let options = read_options(args)?;
    let mut builder = Client::builder().database(&args.database).session_id(&args.session).timeout(args.timeout);
    for token in &args.position {
        builder = builder.position(token);
    }
    let client = builder.connect(&args.broker).await?;
    let params = args.param.iter().map(Value::from);
    if args.write {
        let options = WriteOptions::new().idempotency_key(&args.idempotency_key);
        let written = client.write_with([Statement::new(&args.sql).bind_all(params)], options).await?;
        for result in &written.results {
            let mut rows = output.begin(result.rows.columns())?;
            output.rows(&mut rows, &result.rows)?;
            output.end(rows, result.rows_affected, &written.receipt, &written.position)?;
        }
        return Ok(());
    }
    let mut stream = client.read_with(&args.sql, params, options).await?;
    let mut rows = output.begin(stream.columns())?;
    while let Some(batch) = stream.next().await? {
        output.rows(&mut rows, &batch)?;
    }
    let receipt = stream.receipt().cloned().unwrap_or_default();
    let count = rows.count;
    output.end(rows, count, &receipt, stream.position().unwrap_or(""))?;
    Ok(())
}

fn read_options(args: &SqlArgs) -> Result<ReadOptions, Stop> {
    let level = match args.consistency {
        None if args.max_staleness.is_some() => Level::Bounded,
        None => Level::Session,
        Some(level) => level,
    };
    let options = match (level, args.max_staleness) {
        (Level::Bounded, Some(limit)) => ReadOptions::new().max_staleness(limit),
        (_, Some(_)) => return Err(Stop::Usage("--max-staleness is for --consistency bounded only")),
        (Level::Causal, None) => ReadOptions::new().consistency(Consistency::Causal),
        (Level::Strong, None) => ReadOptions::new().consistency(Consistency::Strong),
        (Level::Eventual, None) => ReadOptions::new().consistency(Consistency::Eventual),
        (Level::Session | Level::Bounded, None) => ReadOptions::new(), // BOUNDED without a limit: clap refuses it
    };
    Ok(match args.max_wait {
        Some(limit) => options.max_wait(limit),
        None => options,
    })
}

/// Where results go, and in which form. Rows are printed as they arrive.
struct Output<W> {
    out: W,
    json: bool,
}

/// What is known of a result while it is printed.
struct Printing {
    table: Table,
    has_columns: bool,
    count: u64,
}

impl<W: Write> Output<W> {
    fn begin(&mut self, columns: &[Column]) -> io::Result<Printing> {
        if self.json {
            let columns: Vec<_> =
                columns.iter().map(|column| json!({ "name": column.name, "type": column.type_name })).collect();
            write!(self.out, "{{\"columns\":{},\"rows\":[", json!(columns))?;
        }
        Ok(Printing { table: Table::new(columns), has_columns: !columns.is_empty(), count: 0 })
    }

    fn rows(&mut self, printing: &mut Printing, batch: &Batch) -> io::Result<()> {
        if self.json {
            for (index, row) in batch.rows().enumerate() {
                let values: Vec<_> = row.values().map(value_json).collect();
                let comma = if printing.count == 0 && index == 0 { "" } else { "," };
                write!(self.out, "{comma}\n{}", json!(values))?;
            }
        } else if printing.has_columns {
            printing.table.print(&mut self.out, batch)?;
        }
        printing.count += batch.len() as u64;
        self.out.flush()
    }

    fn end(&mut self, printing: Printing, affected: u64, receipt: &Receipt, position: &str) -> io::Result<()> {
        let out = &mut self.out;
        if self.json {
            let (receipt, position) = (receipt_json(receipt), json!(position));
            writeln!(out, "],\"row_count\":{affected},\"receipt\":{receipt},\"position\":{position}}}")?;
            return out.flush();
        }
        if printing.has_columns {
            printing.table.finish(out)?;
        } else {
            writeln!(out, "({affected} row{} affected)", if affected == 1 { "" } else { "s" })?;
        }
        writeln!(out, "{}", receipt_text(receipt))?;
        if !position.is_empty() {
            writeln!(out, "position: {position}")?;
        }
        out.flush()
    }
}

fn value_json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Bool(it) => json!(it),
        ValueRef::Int64(it) => json!(it),
        ValueRef::Double(it) if it.is_finite() => json!(it),
        ValueRef::Text(it) => json!(it),
        ValueRef::Double(_) | ValueRef::Bytes(_) | ValueRef::Raw(_) | ValueRef::Nested(_) => json!(table::text(value)),
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    outcome.as_str_name().trim_start_matches("OUTCOME_")
}

pub(super) fn print_error(err: &mut impl Write, broker: &str, error: &Error) -> io::Result<()> {
    if error.is_unreachable() {
        writeln!(err, "error: no broker answers at {broker}: {}", causes(error))?;
        return writeln!(err, "hint: `tidegate dev` starts a broker with a local PostgreSQL cluster");
    }
    writeln!(err, "error: {error}")?;
    writeln!(err, "outcome: {}", outcome_name(error.outcome()))?;
    let Some(failure) = error.failure() else { return Ok(()) };
    if !failure.field.is_empty() {
        writeln!(err, "field: {}", failure.field)?;
    }
    if let Some(postgres) = &failure.postgres {
        for (label, text) in [("detail", &postgres.detail), ("hint", &postgres.hint)] {
            if !text.is_empty() {
                writeln!(err, "{label}: {text}")?;
            }
        }
    }
    match failure.retry_delay {
        Some(delay) => writeln!(err, "a retry can help after {delay:?}"),
        None => Ok(()),
    }
}

pub(super) fn error_json(error: &Error) -> serde_json::Value {
    json!({ "error": {
        "code": format!("{:?}", error.code()),
        "message": error.failure().map_or_else(|| causes(error), |failure| failure.message.clone()),
        "reason": error.reason(),
        "outcome": outcome_name(error.outcome()),
        "field": error.failure().map_or("", |failure| &failure.field),
        "sqlstate": error.sqlstate(),
    }})
}

/// An error with what caused it, in one line.
fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// `http://host:port`, also without its scheme. The broker speaks plain text: a URL that promises more is refused.
pub(super) fn broker_url(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("the broker speaks plain text; write http://, or reach it through a proxy that ends TLS".into());
    }
    let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains([' ', '/']) && port.parse::<u16>().is_ok() => {
            Ok(format!("http://{address}"))
        }
        _ => Err("write http://host:port, such as http://127.0.0.1:7432".into()),
    }
}

/// A duration such as `500ms`, `2s`, `1.5s` or `3m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = match &text[digits..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("needs a unit: 500ms, 2s or 3m".to_owned()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| "is not a number with a unit, such as 2s".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| "is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{SqlArgs, broker_url, duration};
    use clap::{Args, Command};

    #[test]
    fn a_broker_is_named_by_host_and_port_in_plain_text() {
        assert_eq!(broker_url("http://db:7432/").as_deref(), Ok("http://db:7432"));
        assert_eq!(broker_url("127.0.0.1:7432").as_deref(), Ok("http://127.0.0.1:7432"));
        for wrong in ["https://db:7432", "db", "http://db", "rubbish url", "db:port", ":1"] {
            assert!(broker_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        let parse = |args: &[&str]| {
            let command = SqlArgs::augment_args(Command::new("sql").no_binary_name(true));
            command.try_get_matches_from(args).is_ok()
        };
        SqlArgs::augment_args(Command::new("sql")).debug_assert();
        assert!(parse(&["SELECT 1"]));
        assert!(parse(&["--max-staleness", "2s", "SELECT 1"]));
        assert!(parse(&["--write", "--param", "-1", "--param", "b", "UPDATE t SET a = $1"]));
        assert!(!parse(&["--consistency", "bounded", "SELECT 1"]));
        assert!(parse(&["--consistency", "causal", "--max-wait", "200ms", "SELECT 1"]));
        assert!(!parse(&["--consistency", "monotonic", "SELECT 1"]));
        assert!(!parse(&["--write", "--max-wait", "1s", "SELECT 1"]));
        assert!(!parse(&["--write", "--consistency", "strong", "SELECT 1"]));
        assert!(!parse(&["--timeout", "10", "SELECT 1"]));
        assert!(!parse(&[]));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        for wrong in ["", "2", "s", "2h", "-1s", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
