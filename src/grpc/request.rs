//! The wire's messages as typed requests. A field that this version does not honour is refused by name, never ignored.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use super::status::POSITION;
use crate::{
    broker::{Begin, CallerId, Context, Failure, Isolation, ReadRequest, Reason, StatementText, WriteRequest},
    model::{Consistency, Deadline},
    proto,
    sql::LocalSettings,
};

/// The least that a client may say it accepts: header, receipt and summary need room, too.
const MESSAGE_BYTES_MIN: u32 = 64 << 10;

fn invalid(field: &str, message: impl Into<String>) -> Failure {
    Failure::field(Reason::FieldInvalid, field, message)
}

/// The context, with the position tokens of the call's metadata.
pub(super) fn context(context: Option<proto::CallContext>, metadata: &MetadataMap) -> Result<Context, Failure> {
    let context = context.unwrap_or_default();
    let settings = LocalSettings::new(context.settings)?;
    let mut positions = context.positions;
    for value in metadata.get_all(POSITION) {
        let text = value.to_str().map_err(|_| {
            Failure::field(
                Reason::PositionMalformed,
                POSITION,
                "the metadata tidegate-position is not a position token",
            )
        })?;
        // Values of the same name may have been joined on the way.
        positions.extend(text.split(',').map(|token| token.trim().to_owned()));
    }
    let proto::CallContext { database, session_id, operation, .. } = context;
    let caller = CallerId::Unknown;
    Ok(Context { database, session_id, positions, operation, settled: None, settings, caller })
}

/// `within` is the part of the request that it is in: empty, or such as `read.`.
fn statement(within: &str, statement: Option<proto::Statement>) -> Result<StatementText, Failure> {
    let missing = || {
        let message = format!("{within}statement is missing; give its sql, and params if it has any");
        Failure::field(Reason::FieldMissing, format!("{within}statement"), message)
    };
    let proto::Statement { sql, params } = statement.ok_or_else(missing)?;
    Ok(StatementText { sql, params })
}

/// A read.
pub(super) fn read(
    request: proto::ExecuteReadRequest,
    metadata: &MetadataMap,
    deadline: Deadline,
    message_bytes_max: usize,
) -> Result<ReadRequest, Failure> {
    let consistency_is_stated = states_consistency(request.options.as_ref());
    let ReadHow { consistency, max_wait, max_message_bytes } = read_options("", request.options, message_bytes_max)?;
    Ok(ReadRequest {
        context: context(request.context, metadata)?,
        statement: statement("", request.statement)?,
        consistency,
        consistency_is_stated,
        max_wait,
        max_message_bytes,
        deadline,
    })
}

/// Whether a read says how fresh it must be; what it leaves open, a rule may say.
pub(super) fn states_consistency(options: Option<&proto::ReadOptions>) -> bool {
    options.is_some_and(|options| options.consistency != proto::Consistency::Unspecified as i32)
}

/// A read's options, as the broker takes them.
pub(super) struct ReadHow {
    pub(super) consistency: Consistency,
    pub(super) max_wait: Option<Duration>,
    max_message_bytes: usize,
}

pub(super) fn read_options(
    within: &str,
    options: Option<proto::ReadOptions>,
    message_bytes_max: usize,
) -> Result<ReadHow, Failure> {
    let options = options.unwrap_or_default();
    // Made for a refusal only.
    let field = |name: &str| format!("{within}options.{name}");
    let staleness_field = || field("max_staleness");
    let staleness = options.max_staleness.map(|given| duration(&staleness_field(), given)).transpose()?;
    let consistency = match proto::Consistency::try_from(options.consistency) {
        Ok(proto::Consistency::Unspecified | proto::Consistency::Session) => Consistency::Session,
        Ok(proto::Consistency::Causal) => Consistency::Causal,
        Ok(proto::Consistency::Bounded) => Consistency::Bounded {
            max_staleness: staleness.ok_or_else(|| {
                let field = staleness_field();
                let message = format!("CONSISTENCY_BOUNDED needs {field}");
                Failure::field(Reason::FieldMissing, field, message)
            })?,
        },
        Ok(proto::Consistency::Eventual) => Consistency::Eventual,
        Ok(proto::Consistency::Strong) => Consistency::Strong,
        Err(_) => {
            let field = field("consistency");
            let message = format!("{field} is not one of Consistency's values");
            return Err(invalid(&field, message));
        }
    };
    if staleness.is_some() && !matches!(consistency, Consistency::Bounded { .. }) {
        let field = staleness_field();
        return Err(invalid(&field, format!("{field} goes with CONSISTENCY_BOUNDED only")));
    }
    let wait_field = || field("max_wait");
    let max_wait = options.max_wait.map(|given| duration(&wait_field(), given)).transpose()?;
    if max_wait.is_some() && !consistency.can_wait() {
        let wait_field = wait_field();
        let message = format!(
            "{wait_field} goes with CONSISTENCY_SESSION, CAUSAL and BOUNDED only: with the others there is nothing to wait for"
        );
        return Err(invalid(&wait_field, message));
    }
    let max_message_bytes = message_bytes(|| field("max_message_bytes"), options.max_message_bytes, message_bytes_max)?;
    Ok(ReadHow { consistency, max_wait, max_message_bytes })
}

fn message_bytes(field: impl Fn() -> String, given: u32, most: usize) -> Result<usize, Failure> {
    match given {
        0 => Ok(most),
        1..MESSAGE_BYTES_MIN => {
            let field = field();
            let message = format!("{field} is {given}; give {MESSAGE_BYTES_MIN} or more, or 0 for the default");
            Err(invalid(&field, message))
        }
        _ => Ok(usize::try_from(given).unwrap_or(usize::MAX).min(most)),
    }
}

pub(super) fn duration(field: &str, given: prost_types::Duration) -> Result<Duration, Failure> {
    Duration::try_from(given).map_err(|_| invalid(field, format!("{field} is negative; give a duration from now")))
}

fn isolation(field: &str, given: i32) -> Result<Option<Isolation>, Failure> {
    match proto::Isolation::try_from(given) {
        Ok(proto::Isolation::Unspecified) => Ok(None),
        Ok(proto::Isolation::ReadCommitted) => Ok(Some(Isolation::ReadCommitted)),
        Ok(proto::Isolation::RepeatableRead) => Ok(Some(Isolation::RepeatableRead)),
        Ok(proto::Isolation::Serializable) => Ok(Some(Isolation::Serializable)),
        Err(_) => Err(invalid(field, format!("{field} is not one of Isolation's values"))),
    }
}

/// A write.
pub(super) fn write(
    request: proto::ExecuteWriteRequest,
    metadata: &MetadataMap,
    deadline: Deadline,
) -> Result<WriteRequest, Failure> {
    Ok(WriteRequest {
        context: context(request.context, metadata)?,
        statements: request
            .statements
            .into_iter()
            .map(|given| StatementText { sql: given.sql, params: given.params })
            .collect(),
        isolation: isolation("isolation", request.isolation)?,
        outside_transaction: request.outside_transaction,
        idempotency_key: request.idempotency_key,
        deadline,
    })
}

/// One request of a session, as the broker takes it. A refusal is answered in its turn, as any failure is.
pub(super) mod session {
    use super::{
        Begin, Consistency, Failure, Isolation, ReadHow, duration, invalid, isolation, proto, read_options, statement,
        states_consistency,
    };
    use crate::{
        broker::{CopyPiece, Reason, Savepoint, SessionCommand, SessionRequest},
        telemetry::{parent_from_traceparent, request_span},
    };
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// What a `SessionResponse` puts around a part of a read's result, at most: request_id, and key and length of `read`.
    const ENVELOPE_BYTES: usize = (1 + 10) + (1 + 5);
    /// The longest name that PostgreSQL keeps whole, in bytes (NAMEDATALEN, less the NUL at its end).
    const SAVEPOINT_NAME_MAX: usize = 63;

    /// What a session's requests have in common.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::grpc) struct Defaults {
        /// The timeout of a request without one.
        pub(in crate::grpc) timeout: Duration,
        /// The largest message that is sent, in bytes.
        pub(in crate::grpc) message_bytes_max: usize,
        /// The largest message that is taken, in bytes.
        pub(in crate::grpc) request_bytes_max: usize,
    }

    /// The command of a message; `pieces` is the data of a `copy_in`.
    pub(in crate::grpc) fn command(
        request: proto::SessionRequest,
        pieces: Option<mpsc::Receiver<CopyPiece>>,
        defaults: Defaults,
        database: &str,
    ) -> SessionCommand {
        let span =
            request_span(method(request.request.as_ref()), database, &parent_from_traceparent(&request.traceparent));
        if !request.operation.is_empty() {
            span.record("tidegate.operation", request.operation.as_str());
        }
        let timeout = request.timeout.map(|given| duration("timeout", given));
        let (timeout, refused) = match timeout {
            None => (defaults.timeout, None),
            Some(Ok(timeout)) => (timeout, None),
            Some(Err(failure)) => (defaults.timeout, Some(failure)),
        };
        let body = body(request.request, request.transaction_id, pieces, defaults);
        let request_body = match refused.map_or(body, Err) {
            Ok(body) => body,
            Err(failure) => SessionRequest::Refused(Box::new(failure)),
        };
        SessionCommand {
            span,
            id: request.request_id,
            transaction: request.transaction_id,
            timeout,
            positions: request.positions,
            operation: request.operation,
            request: request_body,
        }
    }

    /// The name of a request's span.
    fn method(request: Option<&proto::session_request::Request>) -> &'static str {
        use proto::session_request::Request;
        match request {
            Some(Request::Read(_)) => "Session.read",
            Some(Request::Write(_)) => "Session.write",
            Some(Request::Begin(_)) => "Session.begin",
            Some(Request::Commit(_)) => "Session.commit",
            Some(Request::Rollback(_)) => "Session.rollback",
            Some(Request::CopyIn(_)) => "Session.copy_in",
            Some(Request::CopyOut(_)) => "Session.copy_out",
            Some(Request::Savepoint(_)) => "Session.savepoint",
            Some(Request::Cancel(_)) => "Session.cancel",
            _ => "Session.other",
        }
    }

    fn body(
        request: Option<proto::session_request::Request>,
        transaction: u64,
        pieces: Option<mpsc::Receiver<CopyPiece>>,
        defaults: Defaults,
    ) -> Result<SessionRequest, Failure> {
        use proto::session_request::Request;
        match request {
            None => Err(Failure::field(Reason::FieldMissing, "request", "the request is empty: set one of its kinds")),
            Some(Request::Open(_)) => Err(invalid("open", "the session is open already; open comes first, and once")),
            Some(Request::Read(read)) => {
                let pinned = transaction != 0;
                let given = read.options.unwrap_or_default();
                if pinned && (given.consistency != 0 || given.max_staleness.is_some() || given.max_wait.is_some()) {
                    let message = "inside a transaction a read sees what the transaction sees: leave read.options.consistency, max_staleness and max_wait unset";
                    return Err(invalid("read.options.consistency", message));
                }
                let consistency_is_stated = states_consistency(Some(&given));
                let how = read_options("read.", Some(given), defaults.message_bytes_max)?;
                let max_message_bytes = how.max_message_bytes - ENVELOPE_BYTES;
                let (consistency, max_wait) =
                    if pinned { (Consistency::Strong, None) } else { (how.consistency, how.max_wait) };
                let statement = statement("read.", read.statement)?;
                Ok(SessionRequest::Read { statement, consistency, consistency_is_stated, max_wait, max_message_bytes })
            }
            Some(Request::Write(write)) => {
                if transaction != 0 && !write.idempotency_key.is_empty() {
                    let message =
                        "write.idempotency_key is for writes outside a transaction: leave it unset inside one";
                    return Err(invalid("write.idempotency_key", message));
                }
                let statement = statement("write.", write.statement)?;
                Ok(SessionRequest::Write { statement, idempotency_key: write.idempotency_key })
            }
            Some(Request::Begin(begin)) => self::begin(begin),
            Some(Request::Commit(_)) => Ok(SessionRequest::Commit),
            Some(Request::Rollback(rollback)) if rollback.to_savepoint.is_empty() => Ok(SessionRequest::Rollback),
            Some(Request::Rollback(rollback)) => {
                savepoint(Savepoint::RollbackTo, "rollback.to_savepoint", rollback.to_savepoint)
            }
            Some(Request::Savepoint(given)) => {
                let what = if given.release { Savepoint::Release } else { Savepoint::Set };
                savepoint(what, "savepoint.name", given.name)
            }
            Some(Request::Cancel(cancel)) => Ok(SessionRequest::Cancel { target: cancel.target_request_id }),
            Some(Request::CopyIn(copy)) => {
                let astray = || Failure::new(Reason::Internal, "a COPY whose data goes nowhere");
                Ok(SessionRequest::CopyIn { sql: copy.sql, pieces: pieces.ok_or_else(astray)? })
            }
            Some(Request::CopyData(_) | Request::CopyEnd(_)) => {
                Err(Failure::new(Reason::Internal, "a piece of a COPY went astray"))
            }
            Some(Request::CopyOut(copy)) => Ok(SessionRequest::CopyOut { sql: copy.sql }),
        }
    }

    fn begin(begin: proto::SessionBegin) -> Result<SessionRequest, Failure> {
        if !begin.idempotency_key.is_empty() {
            return Err(Failure::unsupported("begin.idempotency_key"));
        }
        let isolation = isolation("begin.isolation", begin.isolation)?;
        let may_be_serializable = matches!(isolation, None | Some(Isolation::Serializable));
        if begin.deferrable && !(begin.read_only && may_be_serializable) {
            let message = "begin.deferrable goes with begin.read_only and SERIALIZABLE only";
            return Err(invalid("begin.deferrable", message));
        }
        if begin.options.is_some() && !begin.read_only {
            let message =
                "begin.options goes with begin.read_only only: a transaction that may write runs on the primary";
            return Err(invalid("begin.options", message));
        }
        if begin.options.as_ref().is_some_and(|options| options.max_message_bytes != 0) {
            let message = "begin.options.max_message_bytes has no use here; set it in each read's options";
            return Err(invalid("begin.options.max_message_bytes", message));
        }
        let consistency_is_stated = states_consistency(begin.options.as_ref());
        let (consistency, max_wait) = match begin.options {
            Some(options) => {
                let ReadHow { consistency, max_wait, .. } = read_options("begin.", Some(options), 0)?;
                (Some(consistency), max_wait)
            }
            None => (None, None),
        };
        let (read_only, deferrable) = (begin.read_only, begin.deferrable);
        let begin = Begin { isolation, read_only, deferrable, ..Begin::default() };
        Ok(SessionRequest::Begin { begin, consistency, consistency_is_stated, max_wait })
    }

    /// PostgreSQL cuts longer names without a word, and two would become one.
    fn savepoint(savepoint: Savepoint, field: &str, name: String) -> Result<SessionRequest, Failure> {
        if name.is_empty() {
            let message = format!("{field} is empty; give a name of 1 to {SAVEPOINT_NAME_MAX} bytes");
            return Err(Failure::field(Reason::FieldMissing, field, message));
        }
        if name.len() > SAVEPOINT_NAME_MAX || name.contains('\0') {
            let message = format!("{field} must have at most {SAVEPOINT_NAME_MAX} bytes, and no NUL character");
            return Err(invalid(field, message));
        }
        Ok(SessionRequest::Savepoint { savepoint, name })
    }
}
