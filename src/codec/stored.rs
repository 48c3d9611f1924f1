//! What the table of idempotency keys holds of a write: the hash of what was asked for, and the results. Both outlive the
//! broker that made them: neither form may change.

use prost::Message;
use sha2::{Digest, Sha256};

use super::{Column, RowBatch, Value};

/// Tells this form of hashing from later ones.
const HASH_FORM: &[u8] = b"tidegate write 1";

/// The result of one statement.
#[derive(Clone, PartialEq, Message)]
pub struct StoredResult {
    /// The command tag's count.
    #[prost(uint64, tag = "1")]
    pub rows_affected: u64,
    /// The columns, if it returned any.
    #[prost(message, repeated, tag = "2")]
    pub columns: Vec<Column>,
    /// The rows, if it has columns.
    #[prost(message, optional, tag = "3")]
    pub rows: Option<RowBatch>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredResults {
    #[prost(message, repeated, tag = "1")]
    results: Vec<StoredResult>,
}

/// The results of a write, one a statement, as bytes.
pub fn store_results(results: Vec<StoredResult>) -> Vec<u8> {
    StoredResults { results }.encode_to_vec()
}

/// The results that [`store_results`] made bytes of; None for other bytes.
pub fn read_stored_results(bytes: &[u8]) -> Option<Vec<StoredResult>> {
    StoredResults::decode(bytes).ok().map(|stored| stored.results)
}

/// A hash of what a write asks for: texts and parameters of its statements, in order, and what else decides what it does.
/// Every part is preceded by its length, so that no two requests hash the same bytes.
pub fn request_hash<'a>(
    options: &[&str],
    statements: impl ExactSizeIterator<Item = (&'a str, &'a [Value])>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(HASH_FORM);
    part(&(options.len() as u64).to_be_bytes());
    options.iter().for_each(|option| part(option.as_bytes()));
    part(&(statements.len() as u64).to_be_bytes());
    for (sql, params) in statements {
        part(sql.as_bytes());
        part(&(params.len() as u64).to_be_bytes());
        params.iter().for_each(|param| part(&param.encode_to_vec()));
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::value::Kind;

    fn text(value: &str) -> Value {
        Value { kind: Some(Kind::TextValue(value.into())) }
    }

    #[test]
    fn requests_that_differ_in_anything_have_different_hashes() {
        let (a, b, ab) = (text("a"), text("b"), text("ab"));
        let int = Value { kind: Some(Kind::Int64Value(1)) };
        let one = Value { kind: Some(Kind::DoubleValue(1.0)) };
        let null = Value { kind: Some(Kind::NullValue(0)) };
        type Request<'a> = (&'a [&'a str], Vec<(&'a str, Vec<Value>)>);
        let requests: Vec<Request<'_>> = vec![
            (&[], vec![]),
            (&[""], vec![]),
            (&["x"], vec![]),
            (&[], vec![("x", vec![])]),
            (&[], vec![("", vec![]), ("x", vec![])]),
            (&[], vec![("x", vec![]), ("", vec![])]),
            (&[], vec![("x", vec![]), ("y", vec![])]),
            (&[], vec![("x", vec![a.clone()])]),
            (&[], vec![("x", vec![a.clone(), b.clone()])]),
            (&[], vec![("x", vec![b.clone(), a.clone()])]),
            (&[], vec![("x", vec![ab])]),
            (&[], vec![("x", vec![a.clone()]), ("y", vec![b.clone()])]),
            (&[], vec![("x", vec![a, b]), ("y", vec![])]),
            (&[], vec![("x", vec![int])]),
            (&[], vec![("x", vec![one])]),
            (&[], vec![("x", vec![null])]),
            (&[], vec![("x", vec![text("1")])]),
        ];
        let hash = |(options, statements): &Request<'_>| {
            request_hash(options, statements.iter().map(|(sql, params)| (*sql, params.as_slice())))
        };
        let hashes: std::collections::HashSet<_> = requests.iter().map(hash).collect();
        assert_eq!(hashes.len(), requests.len());
    }

    #[test]
    fn a_hash_is_what_it_was_in_the_first_version() {
        let params = [text("blue"), Value { kind: Some(Kind::Int64Value(-7)) }];
        let hash = request_hash(&["SERIALIZABLE"], [("INSERT INTO tags VALUES ($1, $2)", &params[..])].into_iter());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "a00c4e7a63b5b7a4880d059596828531fba85a7666b4cd37bf92bac453cfc30d");
    }

    #[test]
    fn results_come_back() {
        let column = Column { name: "id".into(), type_name: "int8".into(), ..Default::default() };
        let results = vec![
            StoredResult { rows_affected: 3, columns: vec![column], rows: Some(RowBatch::default()) },
            StoredResult { rows_affected: 0, ..Default::default() },
        ];
        assert_eq!(read_stored_results(&store_results(results.clone())), Some(results));
        assert_eq!(read_stored_results(&[]), Some(vec![]));
        assert!(read_stored_results(&[0xff]).is_none());
    }
}
