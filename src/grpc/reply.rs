//! The broker's results as messages.

use std::fmt::Write;

use crate::{
    broker::{Notice, ReadPart, Receipt, ServerError, SessionAnswer, SessionReply, StatementOutcome, WriteResult},
    codec,
    model::{Lsn, Role, RouteReason},
    proto,
};

/// The longest text of a position, in bytes: two halves of eight digits.
const LSN_TEXT_MAX: usize = 8 + 1 + 8;
/// Failures inside a session are not bound by trailers: their texts may be this long, in bytes.
const SESSION_TEXT_MAX: usize = 16 << 10;

/// A receipt.
pub(super) fn receipt(receipt: Receipt) -> proto::Receipt {
    let text = |lsn: Option<Lsn>| {
        let mut text = String::with_capacity(if lsn.is_some() { LSN_TEXT_MAX } else { 0 });
        // A String takes all that is written.
        let _ = lsn.map(|lsn| write!(text, "{lsn}"));
        text
    };
    proto::Receipt {
        cluster: receipt.cluster,
        host: receipt.host,
        role: match receipt.role {
            Role::Primary => proto::HostRole::Primary,
            Role::Replica => proto::HostRole::Replica,
        }
        .into(),
        reason: route_reason(receipt.reason).into(),
        timeline: receipt.timeline.map_or(0, |timeline| timeline.get()),
        required_lsn: text(receipt.required),
        replayed_lsn: text(receipt.replayed),
        staleness: receipt.staleness.and_then(|staleness| staleness.try_into().ok()),
        waited: receipt.waited.try_into().ok(),
        attempts: receipt.attempts,
        position_elsewhere: receipt.elsewhere.unwrap_or_default(),
    }
}

pub(super) fn route_reason(reason: RouteReason) -> proto::RouteReason {
    match reason {
        RouteReason::NoPosition => proto::RouteReason::NoPosition,
        RouteReason::CaughtUp => proto::RouteReason::CaughtUp,
        RouteReason::Waited => proto::RouteReason::Waited,
        RouteReason::PositionExpired => proto::RouteReason::PositionExpired,
        RouteReason::Behind => proto::RouteReason::Behind,
        RouteReason::NoReplica => proto::RouteReason::NoReplica,
        RouteReason::Strong => proto::RouteReason::Strong,
        RouteReason::PositionUnknown => proto::RouteReason::PositionUnknown,
        RouteReason::PositionMayBeLost => proto::RouteReason::PositionMayBeLost,
        RouteReason::Rule => proto::RouteReason::Rule,
        RouteReason::Write => proto::RouteReason::Write,
    }
}

/// A part of a read's result.
pub(super) fn read_part(part: ReadPart) -> proto::ExecuteReadResponse {
    proto::ExecuteReadResponse {
        header: part
            .header
            .map(|header| codec::ReadHeader { columns: header.columns, receipt: Some(receipt(header.receipt)) }),
        rows: part.rows,
        summary: part
            .summary
            .map(|summary| proto::ReadSummary { row_count: summary.row_count, position: summary.position }),
    }
}

/// What became of one statement.
fn statement(outcome: StatementOutcome) -> proto::StatementResult {
    proto::StatementResult { rows_affected: outcome.rows_affected, columns: outcome.columns, rows: outcome.rows }
}

/// A write's result.
pub(super) fn write_result(result: WriteResult) -> proto::ExecuteWriteResponse {
    proto::ExecuteWriteResponse {
        results: result.results.into_iter().map(statement).collect(),
        receipt: Some(receipt(result.receipt)),
        position: result.position,
        replayed: result.replayed,
    }
}

/// A session's answer.
pub(super) fn session_answer(answer: SessionAnswer) -> proto::SessionResponse {
    use proto::session_response::Response;
    let replayed = matches!(answer.reply, SessionReply::Write { replayed: true, .. });
    let response = match answer.reply {
        SessionReply::Failure(failure) => Response::Failure(super::status::message(&failure, SESSION_TEXT_MAX)),
        SessionReply::Read(part) => Response::Read(read_part(part)),
        SessionReply::Write { outcome, .. } => Response::Write(statement(outcome)),
        SessionReply::Done => Response::Done(proto::SessionDone::default()),
        SessionReply::Copied(rows) => Response::Done(proto::SessionDone { rows_affected: rows, ..Default::default() }),
        SessionReply::CopyData(data) => Response::CopyData(proto::CopyData { data: data.into() }),
        SessionReply::Notice(notice) => Response::Notice(session_notice(notice)),
    };
    proto::SessionResponse {
        request_id: answer.id,
        last: answer.last,
        position: answer.position,
        receipt: answer.receipt.map(receipt),
        replayed,
        response: Some(response),
    }
}

fn session_notice(notice: Notice) -> proto::SessionNotice {
    use proto::NoticeKind as Kind;
    let (mut closes_in, mut postgres) = (None, None);
    let mut quote = |said: &ServerError| postgres = Some(super::status::postgres_error(said, SESSION_TEXT_MAX));
    let (kind, message) = match notice {
        Notice::Draining => {
            (Kind::Draining, "the broker is shutting down: finish the transaction and close the session".into())
        }
        Notice::TransactionLost { message, server } => {
            server.as_deref().map(&mut quote);
            (Kind::TransactionLost, message)
        }
        Notice::Closing(left) => {
            closes_in = left.try_into().ok();
            (Kind::Closing, "the session has nearly lived for as long as it may: finish, and open another".into())
        }
        Notice::Postgres(said) => {
            quote(&said);
            (Kind::Postgres, said.message)
        }
    };
    proto::SessionNotice { kind: kind.into(), message, postgres, closes_in }
}
