//! The one place where failures become gRPC statuses: a code, and in `grpc-status-details-bin` a `tidegate.v1.Failure`,
//! `google.rpc.ErrorInfo` and, where a retry can help, `google.rpc.RetryInfo`.

use prost::Message;
use prost_types::{Any, Duration as ProtoDuration};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::pb;

use super::reply;
use crate::{
    broker::{Failure, Outcome, Reason, ServerError},
    proto,
};

/// All trailers together stay under this many bytes: some clients turn 8 KiB and more into another error.
const TRAILERS_MAX: usize = 4 << 10;
/// The most bytes of one text; a cut text ends with an ellipsis.
const TEXTS_MAX: [usize; 4] = [512, 256, 96, 32];
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
        | Reason::WriteInRead => Code::InvalidArgument,
        Reason::FieldUnsupported | Reason::TypeUnsupported => Code::Unimplemented,
        Reason::DatabaseUnknown => Code::NotFound,
        Reason::NoHostsAvailable
        | Reason::NoPrimaryAvailable
        | Reason::ConnectFailed
        | Reason::PositionUnproved
        | Reason::Draining => Code::Unavailable,
        Reason::ConnectionLost => Code::Unavailable,
        Reason::Overloaded
        | Reason::RowTooLarge
        | Reason::ResultTooLarge
        | Reason::RequestTooLarge
        | Reason::TooManyUnanswered => Code::ResourceExhausted,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::CallerLeft | Reason::StreamIdle => Code::Cancelled,
        Reason::TransactionNotOpen | Reason::TransactionOpen | Reason::TransactionFailed => Code::FailedPrecondition,
        Reason::SessionLifetime => Code::Aborted,
        Reason::ResultMalformed => Code::DataLoss,
        Reason::Internal => Code::Internal,
        Reason::Postgres => failure.server.as_ref().map_or(Code::Unknown, |error| code_of_sqlstate(&error.sqlstate)),
    }
}

/// The gRPC code of an SQLSTATE (PostgreSQL, appendix A): by the whole code where that says more than its class.
fn code_of_sqlstate(sqlstate: &str) -> Code {
    match sqlstate {
        "23505" | "42710" | "42P04" | "42P06" | "42P07" => Code::AlreadyExists,
        "42501" => Code::PermissionDenied,
        "42P01" | "42703" | "42883" | "42704" | "3D000" | "3F000" => Code::NotFound,
        "57014" => Code::Cancelled,
        "53000" | "53100" | "53200" | "53300" | "53400" | "54000" | "54001" | "54011" | "54023" => {
            Code::ResourceExhausted
        }
        "0A000" => Code::Unimplemented,
        "25P02" | "25001" | "25P01" | "25P03" => Code::FailedPrecondition,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "08" | "57" => Code::Unavailable,
            "22" | "42" | "21" | "2F" | "26" | "34" => Code::InvalidArgument,
            "23" | "25" | "27" | "2B" | "44" | "55" | "38" | "39" | "P0" => Code::FailedPrecondition,
            "28" => Code::PermissionDenied,
            "40" => Code::Aborted,
            "XX" | "58" | "F0" => Code::Internal,
            _ => Code::Unknown,
        },
    }
}

/// The status of a failed call, with all its details, its position in the trailers, and all within bounds.
pub(super) fn status(failure: &Failure) -> Status {
    let mut metadata = MetadataMap::new();
    if let Ok(token) = failure.position.parse() {
        metadata.insert(POSITION, token);
    }
    let code = code(failure);
    // Texts get shorter until everything fits; with the shortest it does, since what else there is, is bounded.
    let mut message = String::new();
    let mut details = Vec::new();
    for limit in TEXTS_MAX {
        message = cut(&failure.message, limit.max(128));
        details = encode_details(failure, code, limit);
        // The details travel in base64.
        if details.len().div_ceil(3) * 4 + message.len() * 3 + failure.position.len() + 256 <= TRAILERS_MAX {
            break;
        }
    }
    Status::with_details_and_metadata(code, message, details.into(), metadata)
}

fn encode_details(failure: &Failure, code: Code, limit: usize) -> Vec<u8> {
    let mut own = message(failure, limit);
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
    pb::Status { code: code.into(), message: cut(&failure.message, limit.max(128)), details }.encode_to_vec()
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
        receipt: failure.receipt.as_ref().map(|receipt| reply::receipt(receipt)),
    }
}

fn postgres_error(error: &ServerError, limit: usize) -> proto::PostgresError {
    let texts = [&error.message, &error.detail, &error.hint];
    proto::PostgresError {
        sqlstate: error.sqlstate.clone(),
        severity: error.severity.clone(),
        message: cut(&error.message, limit),
        detail: cut(&error.detail, limit),
        hint: cut(&error.hint, limit),
        position: error.position,
        schema: cut(&error.schema, limit),
        table: cut(&error.table, limit),
        column: cut(&error.column, limit),
        data_type: cut(&error.data_type, limit),
        constraint: cut(&error.constraint, limit),
        truncated: texts.iter().any(|text| text.len() > limit),
    }
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
mod tests {
    use super::*;

    fn server(sqlstate: &str, text: &str) -> Failure {
        let error = ServerError {
            sqlstate: sqlstate.into(),
            severity: "ERROR".into(),
            message: text.into(),
            detail: text.into(),
            hint: text.into(),
            ..ServerError::default()
        };
        Failure { server: Some(Box::new(error)), ..Failure::new(Reason::Postgres, text) }
    }

    #[test]
    fn trailers_stay_small_however_long_the_texts() {
        let mut failure = server("23505", &"é".repeat(20_000));
        failure.position = "t".repeat(700);
        failure.field = "f".repeat(5_000);
        let status = status(&failure);
        let size = status.details().len().div_ceil(3) * 4 + status.message().len() * 3 + failure.position.len();
        assert!(size < TRAILERS_MAX, "{size}");
        assert_eq!(status.code(), Code::AlreadyExists);
        let rpc = pb::Status::decode(status.details()).expect("the details are a google.rpc.Status");
        let own = proto::Failure::decode(rpc.details[0].value.as_slice()).expect("the first detail is a Failure");
        assert!(own.postgres.expect("PostgreSQL's part").truncated);
        assert!(own.message.ends_with('…'));
    }

    #[test]
    fn a_short_failure_is_carried_whole() {
        let failure = server("40001", "could not serialize access");
        let rpc = pb::Status::decode(status(&failure).details()).expect("the details are a google.rpc.Status");
        assert_eq!(rpc.code, i32::from(Code::Aborted));
        let own = proto::Failure::decode(rpc.details[0].value.as_slice()).expect("the first detail is a Failure");
        assert_eq!(own.reason, "POSTGRES_ERROR");
        assert_eq!(own.postgres.expect("PostgreSQL's part").detail, "could not serialize access");
        let info = pb::ErrorInfo::decode(rpc.details[1].value.as_slice()).expect("the second detail is an ErrorInfo");
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("tidegate", "POSTGRES_ERROR"));
    }

    #[test]
    fn a_write_of_unknown_outcome_is_never_unavailable() {
        let lost = Failure::new(Reason::ConnectionLost, "lost");
        assert_eq!(code(&lost), Code::Unavailable);
        assert_eq!(code(&Failure { outcome: Outcome::Unknown, ..lost }), Code::Unknown);
        for sqlstate in ["57P01", "57P02", "40001"] {
            let failure = Failure { outcome: Outcome::Unknown, ..server(sqlstate, "terminating connection") };
            assert_eq!(code(&failure), Code::Unknown, "{sqlstate}");
        }
    }
}
