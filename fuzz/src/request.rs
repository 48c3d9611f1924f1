//! Messages and headers: each becomes a typed request that says what the message said, or a failure whose status a
//! caller can use: a code, the field to blame, and trailers within their bounds.

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tidegate::{
    broker::{Context, Failure, Outcome, Reason, SessionRequest},
    codec::Value,
    grpc::fuzzing::{self, MESSAGE_BYTES_MAX, Refusal},
    proto,
};
use tonic::{Code, Status};
use tonic_types::pb;

use crate::{input::Input, memory, splitter};

/// The most bytes of all trailers.
const TRAILERS_MAX: usize = 4 << 10;
/// What an element of a message may take in memory, for a byte on the wire: an empty `Value` is two bytes there.
const MEMORY_FACTOR: usize = 256;

/// A byte for the kind of message, the call's headers, and the message.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8();
    let headers = headers(&input.text());
    let message = input.0;
    memory::bounded((1 << 20) + message.len() * MEMORY_FACTOR, || match kind {
        b'r' => read(message, &headers),
        b'w' => write(message, &headers),
        b's' => session(message),
        _ => context_alone(message, &headers),
    });
}

/// One a line: `p` or `t`, then the value of `tidegate-position` or `grpc-timeout`.
fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.lines() {
        let mut characters = line.chars();
        let name = match characters.next() {
            Some('t') => "grpc-timeout",
            _ => "tidegate-position",
        };
        if let Ok(value) = HeaderValue::from_bytes(characters.as_str().as_bytes()) {
            headers.append(name, value);
        }
    }
    headers
}

fn read(bytes: &[u8], headers: &HeaderMap) {
    let Some(judged) = fuzzing::read(bytes, headers) else { return };
    let message = proto::ExecuteReadRequest::decode(bytes).expect("decoded before");
    match judged {
        Err(refusal) => is_usable(&refusal),
        Ok(request) => {
            assert_context(&request.context, message.context, headers);
            let given = message.statement.expect("a statement");
            assert_statement(&request.statement.sql, &request.statement.params, &given);
            assert!((64 << 10..=MESSAGE_BYTES_MAX).contains(&request.max_message_bytes));
        }
    }
}

fn write(bytes: &[u8], headers: &HeaderMap) {
    let Some(judged) = fuzzing::write(bytes, headers) else { return };
    let message = proto::ExecuteWriteRequest::decode(bytes).expect("decoded before");
    match judged {
        Err(refusal) => is_usable(&refusal),
        Ok(request) => {
            assert_context(&request.context, message.context, headers);
            assert_eq!(request.statements.len(), message.statements.len());
            for (statement, given) in request.statements.iter().zip(&message.statements) {
                assert_statement(&statement.sql, &statement.params, given);
            }
            assert_eq!(request.idempotency_key, message.idempotency_key);
            assert_eq!(request.outside_transaction, message.outside_transaction);
            assert_eq!(request.isolation.is_some(), message.isolation != 0);
        }
    }
}

fn session(bytes: &[u8]) {
    use proto::session_request::Request;
    let Some(command) = fuzzing::session(bytes) else { return };
    let message = proto::SessionRequest::decode(bytes).expect("decoded before");
    assert_eq!((command.id, command.transaction), (message.request_id, message.transaction_id));
    assert_eq!(command.positions, message.positions);
    let statement = match (&command.request, message.request) {
        (SessionRequest::Refused(failure), _) => return is_usable(&Refusal::from(Failure::clone(failure))),
        (SessionRequest::Read { statement, .. }, Some(Request::Read(read))) => (statement, read.statement),
        (SessionRequest::Write { statement, idempotency_key }, Some(Request::Write(write))) => {
            assert_eq!(*idempotency_key, write.idempotency_key);
            assert!(idempotency_key.is_empty() || message.transaction_id == 0, "a key inside a transaction");
            (statement, write.statement)
        }
        (SessionRequest::CopyIn { sql, .. }, Some(Request::CopyIn(copy)))
        | (SessionRequest::CopyOut { sql }, Some(Request::CopyOut(copy))) => return assert_eq!(*sql, copy.sql),
        (SessionRequest::Cancel { target }, Some(Request::Cancel(cancel))) => {
            return assert_eq!(*target, cancel.target_request_id);
        }
        (SessionRequest::Read { .. } | SessionRequest::Write { .. }, other) => {
            panic!("{other:?} became {:?}", command.request)
        }
        (_, given) => return assert!(given.is_some(), "made of nothing: {:?}", command.request),
    };
    assert_statement(&statement.0.sql, &statement.0.params, &statement.1.expect("a statement"));
}

fn context_alone(bytes: &[u8], headers: &HeaderMap) {
    // Both hold their context in field 1.
    if let Ok(message) = proto::ListenRequest::decode(bytes) {
        match fuzzing::context(bytes, headers) {
            Some(Ok(context)) => assert_context(&context, message.context, headers),
            Some(Err(refusal)) => is_usable(&refusal),
            None => {}
        }
    }
}

/// Nothing of a context is lost or made up.
fn assert_context(context: &Context, given: Option<proto::CallContext>, headers: &HeaderMap) {
    let given = given.unwrap_or_default();
    assert_eq!((&context.database, &context.session_id), (&given.database, &given.session_id));
    assert_eq!(context.positions[..given.positions.len()], given.positions);
    // Settings become one statement, whatever is in them.
    let settings = splitter::read(context.settings.sql());
    assert!(!settings.is_open && settings.statements == usize::from(!given.settings.is_empty()));
    let carried: usize = headers.get_all("tidegate-position").iter().count();
    assert!(context.positions.len() >= given.positions.len() + carried);
}

fn assert_statement(sql: &str, params: &[Value], given: &proto::Statement) {
    assert_eq!(sql, given.sql);
    // By their bytes: a NaN does not equal itself.
    let bytes = |params: &[Value]| params.iter().map(Message::encode_to_vec).collect::<Vec<_>>();
    assert_eq!(bytes(params), bytes(&given.params));
}

/// A refusal says whom to blame, in a status that every client takes.
fn is_usable(refusal: &Refusal) {
    let Refusal { failure, status } = refusal;
    assert!(matches!(status.code(), Code::InvalidArgument | Code::Unimplemented), "{failure:?}");
    assert_eq!(failure.outcome, Outcome::NotExecuted);
    assert_ne!(failure.reason, Reason::Internal);
    // `options.max_staleness`, `context.settings["app.tenant"]`: the message names the last part, or the key.
    let (path, key) = failure.field.split_once('[').unwrap_or((&failure.field, ""));
    let field = path.rsplit('.').next().unwrap_or_default();
    assert!(!field.is_empty(), "it names no field: {failure:?}");
    let names = [field, key.strip_suffix(']').unwrap_or(field)];
    let message = failure.message.to_lowercase();
    assert!(
        names.into_iter().any(|name| message.contains(&name.to_lowercase())),
        "it does not name {names:?}: {failure:?}"
    );
    let trailers = trailer_bytes(status);
    assert!(trailers < TRAILERS_MAX, "{trailers} bytes of trailers: {failure:?}");
    let details = pb::Status::decode(status.details()).expect("the details are a google.rpc.Status");
    assert_eq!(details.code, i32::from(status.code()));
    let own = details.details.first().expect("a Failure");
    let own = proto::Failure::decode(own.value.as_slice()).expect("a Failure");
    assert_eq!((own.reason.as_str(), own.field.as_str()), (failure.reason.as_str(), failure.field.as_str()));
}

/// As HTTP/2 sends them.
fn trailer_bytes(status: &Status) -> usize {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).expect("a status that can be sent");
    trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}
