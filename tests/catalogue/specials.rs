//! The pseudo-types that results can have, and functions' results: they cannot be cast or given back as others can.

use tidegate_client::proto::ColumnKind;

use crate::{ask::Broker, asking::failure, compare::Tally};

/// What is selected, the kind, and the query whose columns have the same values.
const TABLE: &[(&str, ColumnKind, &str)] = &[
    ("pg_sleep(0)", ColumnKind::Text, "''"),
    ("'a b'::cstring", ColumnKind::Text, "'a b'"),
    ("json_each('{\"a\": [1]}')", ColumnKind::Nested, "ROW('a'::text, '[1]'::json)"),
    ("ARRAY[ROW(1, 'x'::text), NULL]", ColumnKind::Nested, "ARRAY[(SELECT r FROM (SELECT 1, 'x'::text) r), NULL]"),
    (
        "ROW(1::int2, 1.50, NULL::text, ARRAY[1,NULL], ROW(true, '[1,2)'::int4range))",
        ColumnKind::Nested,
        "(SELECT r FROM (SELECT 1::int2, 1.50, NULL::text, ARRAY[1,NULL], (SELECT s FROM (SELECT true, '[1,2)'::int4range) s)) r)",
    ),
    ("'ab'::char(4)", ColumnKind::Text, "'ab'"),
    (
        "ROW('ab'::char(4), ARRAY['c'::char(2)])",
        ColumnKind::Nested,
        "(SELECT r FROM (SELECT 'ab  '::text, ARRAY['c '::text]) r)",
    ),
    ("histogram_bounds", ColumnKind::Raw, "anyarray_send(histogram_bounds)"),
];

/// Compares each, and looks at what a record may not hold.
pub async fn check(broker: &mut Broker, tally: &mut Tally) {
    for (expression, kind, expected) in TABLE {
        let from = "FROM pg_catalog.pg_stats WHERE attname = 'oid' AND tablename = 'pg_proc'";
        let from = if *kind == ColumnKind::Raw { from } else { "" };
        let sql = format!("SELECT {expression}, {expected} {from}");
        match broker.select(&sql, vec![]).await {
            Ok(answer) => {
                tally.compare(expression, "its kind", kind.as_str_name(), answer.kinds[0].as_str_name());
                let row = answer.rows.first().expect("a row");
                tally.compare(expression, "its value", &format!("{:?}", row[1]), &format!("{:?}", row[0]));
            }
            Err(error) => tally.compare(expression, "its value", "an answer", &error.to_string()),
        }
    }
    // Found only in the value, which alone says what it holds.
    let got = match broker.select("SELECT ROW(1, 'pg_class'::regclass) AS \"the column\"", vec![]).await {
        Ok(_) => "an answer".to_owned(),
        Err(error) => failure(&error).message.clone(),
    };
    let says = got.contains("column \"the column\"") && got.contains("a type that is not carried");
    tally.compare("a record with a regclass", "the refusal", "true", &says.to_string());
}
