//! Statuses: within bounds whatever the failure, whole where there is room, and as docs/errors.md says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    broker::Receipt,
    model::{HostId, Role, RouteReason},
};

const DOCUMENT: &str = include_str!("../../docs/errors.md");

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

/// A failure with every text set.
fn failure_of(texts: &[String], token: usize, code: &str, line: u32) -> Failure {
    let [message, detail, hint, context, query, schema, table, column, data_type, constraint, file, routine, field] =
        texts
    else {
        panic!("13 texts, not {}", texts.len())
    };
    let error = ServerError {
        sqlstate: code.into(),
        severity: "ERROR".into(),
        message: message.clone(),
        detail: detail.clone(),
        hint: hint.clone(),
        context: context.clone(),
        position: line,
        internal_query: query.clone(),
        internal_position: line,
        schema: schema.clone(),
        table: table.clone(),
        column: column.clone(),
        data_type: data_type.clone(),
        constraint: constraint.clone(),
        file: file.clone(),
        line,
        routine: routine.clone(),
    };
    let lsn = Some(crate::model::Lsn::new(u64::MAX));
    let second = std::time::Duration::new(u64::from(line), 999_999_999);
    let receipt = Receipt {
        cluster: "c".repeat(63),
        host: "h".repeat(260),
        host_id: HostId::new(1),
        role: Role::Primary,
        reason: RouteReason::PositionMayBeLost,
        timeline: crate::model::Timeline::new(u32::MAX),
        required: lsn,
        replayed: lsn,
        staleness: Some(second),
        waited: second,
        attempts: u32::MAX,
        elsewhere: Some("e".repeat(63)),
    };
    Failure {
        server: Some(Box::new(error)),
        field: field.clone(),
        statement_index: Some(line),
        retry_delay: Some(second),
        receipt: Some(Box::new(receipt)),
        position: "t".repeat(token),
        ..Failure::new(Reason::Postgres, message.clone())
    }
}

/// The status as a client receives it.
fn received(status: &Status) -> (usize, proto::Failure) {
    let size = trailers_size(status).expect("the trailers can be sent");
    let rpc = pb::Status::decode(status.details()).expect("the details are a google.rpc.Status");
    assert_eq!((rpc.code, rpc.message.as_str()), (i32::from(status.code()), status.message()));
    (size, proto::Failure::decode(rpc.details[0].value.as_slice()).expect("the first detail is a Failure"))
}

/// The longest token: 16 clusters, each with a name of 63 bytes, the most that a configuration may have.
const TOKEN_MOST: usize = (1 + 16 * (38 + 63) + 16_usize).div_ceil(3) * 4;

fn text() -> impl Strategy<Value = String> {
    // Every kind that grows on its way: in UTF-8, in percent-encoding, in both.
    let piece =
        prop_oneof![Just("a"), Just(" "), Just("%"), Just("é"), Just("海"), Just("🌊"), Just("\n"), Just("\u{1}")];
    (piece, prop_oneof![0..40_usize, 40..400_usize, 400..20_000_usize]).prop_map(|(piece, count)| piece.repeat(count))
}

proptest! {
    #[test]
    fn trailers_stay_small_whatever_failed(
        texts in prop::collection::vec(text(), 13),
        token in 0..=TOKEN_MOST,
        line: u32,
    ) {
        let failure = failure_of(&texts, token, "23505", line);
        let status = status(&failure);
        let (size, own) = received(&status);
        prop_assert!(size + OTHER_TRAILERS < TRAILERS_MAX, "{size}");
        prop_assert_eq!(status.code(), Code::AlreadyExists);
        let token = status.metadata().get(POSITION).map_or(0, |token| token.len());
        prop_assert_eq!(token, failure.position.len());
        let postgres = own.postgres.expect("PostgreSQL's part");
        let given = failure.server.expect("PostgreSQL's part");
        let pairs = [
            (&postgres.message, &given.message), (&postgres.detail, &given.detail), (&postgres.hint, &given.hint),
            (&postgres.context, &given.context), (&postgres.internal_query, &given.internal_query),
            (&postgres.table, &given.table), (&postgres.routine, &given.routine),
        ];
        for (sent, given) in pairs {
            let whole = sent == given;
            let marked = sent.strip_suffix('…').is_some_and(|start| given.starts_with(start));
            prop_assert!(whole || (marked && postgres.truncated), "{:?}", sent);
        }
    }
}

#[test]
fn the_largest_failure_that_there_can_be_fits() {
    for piece in ["x", " ", "é", "🌊"] {
        let texts = vec![piece.repeat(100_000); 13];
        let (size, own) = received(&status(&failure_of(&texts, TOKEN_MOST, "XX000", u32::MAX)));
        assert!(size + OTHER_TRAILERS < TRAILERS_MAX, "{size} with {piece:?}");
        let postgres = own.postgres.expect("PostgreSQL's part");
        assert!(postgres.truncated && postgres.message.starts_with(piece), "{postgres:?}");
    }
}

#[test]
fn room_that_short_texts_leave_is_used() {
    let (size, own) = received(&status(&Failure {
        server: Some(Box::new(ServerError { detail: "d".repeat(100_000), ..ServerError::default() })),
        ..Failure::new(Reason::Postgres, "short")
    }));
    let postgres = own.postgres.expect("PostgreSQL's part");
    assert!(postgres.truncated && postgres.detail.len() > 2_000, "{}", postgres.detail.len());
    assert!(size + OTHER_TRAILERS + 8 >= TRAILERS_MAX, "{size}");
}

#[test]
fn a_short_failure_is_carried_whole() {
    let texts: Vec<_> = (0..13).map(|n| format!("text {n}")).collect();
    let failure = failure_of(&texts, 100, "40001", 7);
    let status = status(&failure);
    let rpc = pb::Status::decode(status.details()).expect("the details are a google.rpc.Status");
    assert_eq!(rpc.code, i32::from(Code::Aborted));
    let (_, own) = received(&status);
    assert_eq!(own.postgres, Some(postgres_error(failure.server.as_ref().expect("one"), usize::MAX)));
    assert_eq!(
        (own.reason.as_str(), own.message.as_str(), own.field.as_str()),
        ("POSTGRES_ERROR", "text 0", "text 12")
    );
    let info = pb::ErrorInfo::decode(rpc.details[1].value.as_slice()).expect("the second detail is an ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("tidegate", "POSTGRES_ERROR"));
    let retry = pb::RetryInfo::decode(rpc.details[2].value.as_slice()).expect("the third detail is a RetryInfo");
    assert_eq!(retry.retry_delay, own.retry_delay);
}

/// No client's own machinery sends again what may have been kept.
#[test]
fn what_may_have_been_kept_has_no_code_that_is_retried() {
    let sqlstates = sqlstate::CODES.iter().map(|(sqlstate, _)| server(&format!("{sqlstate:0<5}"), "failed"));
    let reasons = Reason::ALL.iter().map(|reason| Failure::new(*reason, "failed"));
    for failure in sqlstates.chain(reasons) {
        for outcome in [Outcome::Unknown, Outcome::Committed] {
            let failure = Failure { outcome, ..failure.clone() };
            let retried = [Code::Unavailable, Code::Aborted, Code::ResourceExhausted].contains(&code(&failure));
            assert!(!retried, "{failure:?}");
        }
    }
}

/// The name of a code as gRPC writes it.
fn name(code: Code) -> String {
    let words: String = format!("{code:?}").chars().fold(String::new(), |mut words, c| {
        if c.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(c.to_ascii_uppercase());
        words
    });
    words
}

/// The rows of the document's table under a heading, cell by cell.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect("docs/errors.md has the heading");
    let section = section.split("\n## ").next().expect("a section");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    section.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

#[test]
fn the_document_says_of_every_sqlstate_what_the_table_says() {
    let documented: Vec<(String, String)> =
        rows("SQLSTATE to gRPC code").into_iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    let coded: Vec<_> = sqlstate::CODES.iter().map(|(sqlstate, code)| ((*sqlstate).to_owned(), name(*code))).collect();
    for (at, row) in coded.iter().enumerate() {
        assert_eq!(documented.get(at), Some(row), "row {} of docs/errors.md, \"SQLSTATE to gRPC code\"", at + 1);
    }
    assert_eq!(documented.len(), coded.len(), "docs/errors.md has rows that src/grpc/sqlstate.rs has not");
}

#[test]
fn the_document_says_of_every_reason_its_code_its_outcomes_and_what_to_do() {
    let mut documented = BTreeMap::new();
    for row in rows("Reasons") {
        let twice = documented.insert(row[0].clone(), row.clone());
        assert!(twice.is_none(), "docs/errors.md: the row of {} stands twice", row[0]);
    }
    for reason in Reason::ALL {
        let text = reason.as_str();
        let code = match reason {
            Reason::Postgres => "by SQLSTATE, below".to_owned(),
            reason => name(code(&Failure::new(*reason, ""))),
        };
        let expected =
            format!("| `{text}` | {code} | NOT_EXECUTED (or others, comma-separated) | what it means | what to do |");
        let row = documented
            .remove(text)
            .unwrap_or_else(|| panic!("docs/errors.md, table \"Reasons\": add the row\n{expected}"));
        assert_eq!(row[1], code, "docs/errors.md: the code of {text}; the row is to be\n{expected}");
        let outcomes: BTreeSet<_> = row[2].split(", ").collect();
        let known = ["NOT_EXECUTED", "ROLLED_BACK", "COMMITTED", "UNKNOWN"];
        let are_known = outcomes.iter().all(|outcome| known.contains(outcome));
        assert!(are_known && row.len() == 5, "docs/errors.md: {row:?}; the row is to be\n{expected}");
        assert!(!row[3].is_empty() && !row[4].is_empty(), "docs/errors.md: say of {text} what it means and what to do");
    }
    assert!(documented.is_empty(), "docs/errors.md has reasons that the broker never gives: {:?}", documented.keys());
}
