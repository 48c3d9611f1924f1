//! The one place where failures become gRPC statuses: a code, and in `grpc-status-details-bin` a `tidegate.v1.Failure`,
//! `google.rpc.ErrorInfo` and, where a retry can help, `google.rpc.RetryInfo`.

use prost::Message;
use prost_types::{Any, Duration as ProtoDuration};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::pb;

use super::{reply, sqlstate};
use crate::{
    broker::{Failure, Outcome, Reason, ServerError},
    proto,
};

/// All trailers together stay under this many bytes, as HTTP/2 counts them: some clients turn 8 KiB and more into
/// another error.
const TRAILERS_MAX: usize = 4 << 10;
/// What others put beside our trailers (status line, date, CORS of gRPC-Web), at most.
const OTHER_TRAILERS: usize = 512;
/// HTTP/2 counts each header's name and value, and this (RFC 9113, 6.5.2).
const HEADER_OVERHEAD: usize = 32;
/// Each text may have this many bytes however many there are: with so little everything fits.
const TEXT_LEAST: usize = 16;
/// The domain of every reason.
const DOMAIN: &str = "tidegate";
/// The trailer, and header, that carries a position token.
pub(super) const POSITION: &str = "tidegate-position";

/// The gRPC code of a failure. Codes that clients' own machinery retries are kept from what may have been kept: a write
/// of unknown outcome must not be sent again by itself.
pub(super) fn code(failure: &Failure) -> Code {
    let code = code_of_reason(failure);
    let may_be_kept = matches!(failure.outcome, Outcome::Unknown | Outcome::Committed);
    if may_be_kept && matches!(code, Code::Unavailable | Code::Aborted | Code::ResourceExhausted) {
        return Code::Unknown;
    }
    code
}

fn code_of_reason(failure: &Failure) -> Code {
    match failure.reason {
        Reason::FieldMissing
        | Reason::FieldInvalid
        | Reason::SqlMissing
        | Reason::SqlMultipleStatements
        | Reason::SqlRefused
        | Reason::OutsideTransactionRequired
        | Reason::ParameterCount
        | Reason::ParameterType
        | Reason::ValueUnset
        | Reason::PositionMalformed
        | Reason::PositionForeign
        | Reason::IdempotencyKeyReused
        | Reason::WriteInRead => Code::InvalidArgument,
        Reason::FieldUnsupported | Reason::TypeUnsupported => Code::Unimplemented,
        Reason::DatabaseUnknown | Reason::HostUnknown => Code::NotFound,
        Reason::AdminTokenInvalid => Code::Unauthenticated,
        Reason::AdminRefused => Code::PermissionDenied,
        Reason::NoHostsAvailable
        | Reason::NoPrimaryAvailable
        | Reason::ConnectFailed
        | Reason::PositionUnproved
        | Reason::RecoveryConflict
        | Reason::ConnectionLost
        | Reason::Draining => Code::Unavailable,
        Reason::Overloaded
        | Reason::RowTooLarge
        | Reason::ResultTooLarge
        | Reason::RequestTooLarge
        | Reason::TooManyUnanswered => Code::ResourceExhausted,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::CallerLeft | Reason::RequestCancelled | Reason::StreamIdle | Reason::CopyAborted => Code::Cancelled,
        Reason::TransactionNotOpen
        | Reason::TransactionOpen
        | Reason::TransactionFailed
        | Reason::IdempotencyNotSetUp
        | Reason::PrimaryConflict
        | Reason::HostIsPrimary
        | Reason::NoConflict
        | Reason::ConfigInvalid
        | Reason::RestartRequired
        | Reason::NotClean => Code::FailedPrecondition,
        Reason::SessionLifetime => Code::Aborted,
        Reason::ResultMalformed => Code::DataLoss,
        Reason::Internal => Code::Internal,
        Reason::Postgres => failure.server.as_ref().map_or(Code::Unknown, |error| sqlstate::code_of(&error.sqlstate)),
    }
}

/// The status of a failed call, with all its details, its position in the trailers, and all within bounds: what does not
/// fit is cut, the longest texts first.
pub(super) fn status(failure: &Failure) -> Status {
    let whole = status_with(failure, usize::MAX);
    if fits(&whole) {
        return whole;
    }
    // The most for each text with which everything fits: `TEXT_LEAST` does, `TRAILERS_MAX` does not.
    let (mut least, mut most) = (TEXT_LEAST, TRAILERS_MAX);
    while most - least > 1 {
        let middle = usize::midpoint(least, most);
        if fits(&status_with(failure, middle)) { least = middle } else { most = middle }
    }
    status_with(failure, least)
}

fn status_with(failure: &Failure, limit: usize) -> Status {
    let mut metadata = MetadataMap::new();
    if let Ok(token) = failure.position.parse() {
        metadata.insert(POSITION, token);
    }
    let code = code(failure);
    let details = encode_details(failure, code, limit);
    Status::with_details_and_metadata(code, cut(&failure.message, limit), details.into(), metadata)
}

fn fits(status: &Status) -> bool {
    trailers_size(status).is_some_and(|size| size + OTHER_TRAILERS < TRAILERS_MAX)
}

/// The size of a status's trailers as they are sent: the message percent-encoded, the details in base64.
fn trailers_size(status: &Status) -> Option<usize> {
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).ok()?;
    Some(headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD).sum())
}

fn encode_details(failure: &Failure, code: Code, limit: usize) -> Vec<u8> {
    let mut own = message(failure, limit);
    if let Some(receipt) = &mut own.receipt {
        receipt.host = cut(&receipt.host, limit.max(64));
    }
    // The token is in its own trailer; with both, a long one would not fit.
    own.position = String::new();
    let info = pb::ErrorInfo {
        reason: failure.reason.as_str().to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: Default::default(),
    };
    let mut details = vec![pack("tidegate.v1.Failure", &own), pack("google.rpc.ErrorInfo", &info)];
    if let Some(delay) = failure.retry_delay.and_then(|delay| ProtoDuration::try_from(delay).ok()) {
        details.push(pack("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay: Some(delay) }));
    }
    // The status's own code and message once more: some libraries refuse details that say anything else.
    pb::Status { code: code.into(), message: cut(&failure.message, limit), details }.encode_to_vec()
}

fn pack(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

/// The failure as a message: in a session's answers, and packed into a status. Texts longer than `limit` bytes are cut.
pub(super) fn message(failure: &Failure, limit: usize) -> proto::Failure {
    proto::Failure {
        code: code(failure).into(),
        message: cut(&failure.message, limit),
        reason: failure.reason.as_str().to_owned(),
        outcome: match failure.outcome {
            Outcome::NotExecuted => proto::Outcome::NotExecuted,
            Outcome::RolledBack => proto::Outcome::RolledBack,
            Outcome::Committed => proto::Outcome::Committed,
            Outcome::Unknown => proto::Outcome::Unknown,
        }
        .into(),
        retry_delay: failure.retry_delay.and_then(|delay| delay.try_into().ok()),
        field: cut(&failure.field, limit),
        statement_index: failure.statement_index,
        postgres: failure.server.as_ref().map(|error| postgres_error(error, limit)),
        position: failure.position.clone(),
        receipt: failure.receipt.as_deref().cloned().map(reply::receipt),
    }
}

/// What PostgreSQL said, in an error or a notice.
pub(super) fn postgres_error(error: &ServerError, limit: usize) -> proto::PostgresError {
    let mut truncated = false;
    let mut text = |text: &str| {
        truncated |= text.len() > limit;
        cut(text, limit)
    };
    let mut own = proto::PostgresError {
        sqlstate: error.sqlstate.clone(),
        severity: error.severity.clone(),
        message: text(&error.message),
        detail: text(&error.detail),
        hint: text(&error.hint),
        position: error.position,
        schema: text(&error.schema),
        table: text(&error.table),
        column: text(&error.column),
        data_type: text(&error.data_type),
        constraint: text(&error.constraint),
        truncated: false,
        context: text(&error.context),
        internal_query: text(&error.internal_query),
        internal_position: error.internal_position,
        file: text(&error.file),
        line: error.line,
        routine: text(&error.routine),
    };
    own.truncated = truncated;
    own
}

/// At most `limit` bytes of a text, cut between characters and marked.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mark = "…";
    let mut end = limit.saturating_sub(mark.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", &text[..end])
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
