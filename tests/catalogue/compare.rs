//! One type after the other: its values through the broker, against what the server itself says of them.

use tidegate_client::proto::{self, ColumnKind, value::Kind};

use crate::{
    ask::{Broker, is_null, text_of},
    asking::failure,
    types::{Catalogue, CatalogueType},
    values,
};

/// What was compared, and what differed.
#[derive(Default)]
pub struct Tally {
    pub types: usize,
    pub values: usize,
    pub exceptions: usize,
    pub differences: Vec<String>,
}

impl Tally {
    fn differs(&mut self, type_: &str, what: &str, expected: &str, got: &str) {
        self.differences.push(format!("{type_}: {what}\n    expected {expected}\n    got      {got}"));
    }

    /// Counts a value, and notes if it differs.
    pub fn compare(&mut self, type_: &str, what: &str, expected: &str, got: &str) {
        self.values += 1;
        if expected != got {
            self.differs(type_, what, expected, got);
        }
    }
}

/// Checks one type.
pub async fn check(broker: &mut Broker, catalogue: &Catalogue, type_: &CatalogueType, tally: &mut Tally) {
    let exceptions: Vec<&str> = values::EXCEPTIONS.iter().map(|(name, _)| *name).collect();
    if let Some(name) = catalogue.made_of(type_, &exceptions) {
        let reason =
            values::EXCEPTIONS.iter().find(|exception| exception.0 == name).map_or("", |exception| exception.1);
        return check_refusal(broker, type_, reason, tally).await;
    }
    let Some(source) = source(catalogue, type_) else {
        let what = "no values: add some to tests/catalogue/values.rs";
        return tally.differs(&type_.sql, what, "values", "none");
    };
    tally.types += 1;
    if let Err(error) = check_values(broker, catalogue, type_, &source, tally).await {
        tally.differs(&type_.sql, &source, "an answer", &error.to_string());
    }
}

/// The refusal says which column, why, and what to do.
async fn check_refusal(broker: &mut Broker, type_: &CatalogueType, reason: &str, tally: &mut Tally) {
    tally.exceptions += 1;
    let sql = format!("SELECT NULL::{} AS \"the column\"", type_.sql);
    let got = match broker.select(&sql, vec![]).await {
        Ok(_) => "an answer".to_owned(),
        Err(error) => format!("{}: {}", failure(&error).reason, failure(&error).message),
    };
    let needed = ["TYPE_UNSUPPORTED", "column \"the column\"", reason, "\"the column\"::text"];
    if needed.iter().any(|part| !got.contains(part)) {
        tally.differs(&type_.sql, "the refusal", &needed.join(" … "), &got);
    }
    let cast = broker.select(&format!("SELECT NULL::{}::text", type_.sql), vec![]).await;
    if let Err(error) = cast {
        tally.differs(&type_.sql, "its text", "an answer", &error.to_string());
    }
}

/// A query for a column `v` of values; None if none are known.
fn source(catalogue: &Catalogue, type_: &CatalogueType) -> Option<String> {
    let name = type_.name.as_str();
    if let Some(query) = values::query(name) {
        return Some(query.to_owned());
    }
    let sql = &type_.sql;
    if let Some(literals) = values::literals(name) {
        let value = |literal: &&str| format!("SELECT $_${literal}$_$::{sql} AS v UNION ALL ");
        return Some(format!("{}SELECT NULL::{sql}", literals.iter().map(value).collect::<String>()));
    }
    if let Some(relation) = &type_.relation {
        // The rows differ from one look to the next where they tell of what runs; each is compared with itself.
        return Some(format!(
            "SELECT r AS v FROM (SELECT r FROM {relation} r LIMIT 4) rows UNION ALL SELECT NULL::{sql}"
        ));
    }
    let element = catalogue.get(type_.element.as_ref()?)?;
    let elements = self::source(catalogue, element)?;
    let some = format!("(SELECT v FROM ({elements}) elements LIMIT 20)");
    let all = format!("SELECT array_agg(v)::{sql} AS v FROM {some} elements");
    let mut query = format!("{all} UNION ALL SELECT '{{}}'::{sql} UNION ALL SELECT NULL::{sql}");
    // An array of domains over arrays is not an array of more dimensions.
    if element.class != "d" {
        query +=
            &format!(" UNION ALL SELECT array_agg(v)::{sql} FROM (SELECT v FROM ({all}) a UNION ALL {all}) planes");
    }
    if catalogue.made_of(type_, values::WITHOUT_INPUT).is_none() {
        query += &format!(" UNION ALL SELECT ('[-1:' || cardinality(v) - 2 || ']=' || v::text)::{sql} FROM ({all}) a");
    }
    Some(query)
}

async fn check_values(
    broker: &mut Broker,
    catalogue: &Catalogue,
    type_: &CatalogueType,
    source: &str,
    tally: &mut Tally,
) -> Result<(), tidegate_client::Error> {
    let kind = expected_kind(catalogue, type_);
    let mut sql = format!("SELECT v, {}", text_in_sql(type_, "v"));
    if kind == ColumnKind::Raw {
        sql += &format!(", {}(v)", type_.send);
    }
    for field in &type_.fields {
        sql += &format!(", (v).{field}");
    }
    let answer = broker.select(&format!("{sql} FROM ({source}) values_"), vec![]).await?;
    if answer.kinds[0] != kind {
        tally.differs(&type_.sql, "its kind", kind.as_str_name(), answer.kinds[0].as_str_name());
        return Ok(());
    }
    let mut params = vec![];
    for row in &answer.rows {
        let (value, text) = (&row[0], text_of(&row[1]));
        if let (Some(text), false) = (text, is_null(value)) {
            match kind {
                ColumnKind::Nested => compare_fields(type_, text, value, &row[2..], tally),
                ColumnKind::Raw => tally.compare(&type_.sql, text, &format!("{:?}", row[2]), &format!("{value:?}")),
                _ => tally.compare(
                    &type_.sql,
                    text,
                    &server_value(&type_base(catalogue, type_).name, kind, text),
                    &show(value),
                ),
            }
        } else {
            tally.compare(&type_.sql, "NULL", &format!("{:?}", text.is_none()), &format!("{:?}", is_null(value)));
        }
        params.push((value.clone(), text.map(str::to_owned)));
    }
    if let Some(element) = type_.element.as_ref().and_then(|element| catalogue.get(element)) {
        compare_elements(broker, catalogue, type_, element, &answer.rows[0][0], tally).await?;
    }
    let unfit = [values::WITHOUT_INPUT, values::RAW].concat();
    if catalogue.made_of(type_, &unfit).is_none() {
        give_back(broker, type_, &params, tally).await?;
    }
    Ok(())
}

/// The text to compare with. A cast of `xml` shows the encoding in its declaration, which the binary form does not have;
/// its output function does as the broker does.
fn text_in_sql(type_: &CatalogueType, value: &str) -> String {
    match type_.name.as_str() {
        "xml" => output(value),
        _ => format!("({value})::text"),
    }
}

/// What the type's output function writes.
fn output(value: &str) -> String {
    format!("CASE WHEN ({value}) IS NOT NULL THEN format('%s', {value}) END")
}

/// A domain's values are as its base type's.
fn type_base<'a>(catalogue: &'a Catalogue, type_: &'a CatalogueType) -> &'a CatalogueType {
    match type_.base.as_ref().and_then(|base| catalogue.get(base)) {
        Some(base) => type_base(catalogue, base),
        None => type_,
    }
}

fn expected_kind(catalogue: &Catalogue, type_: &CatalogueType) -> ColumnKind {
    let type_ = type_base(catalogue, type_);
    if type_.element.is_some() || type_.class == "c" {
        return ColumnKind::Nested;
    }
    match type_.name.as_str() {
        "bool" => ColumnKind::Bool,
        "int2" | "int4" | "int8" | "oid" | "xid" | "cid" => ColumnKind::Int64,
        "float4" | "float8" => ColumnKind::Double,
        "bytea" => ColumnKind::Bytes,
        "int2vector" | "oidvector" => ColumnKind::Nested,
        name if values::RAW.contains(&name) => ColumnKind::Raw,
        _ => ColumnKind::Text,
    }
}

/// What the server's text means as a value of the kind, written as [`show`] does.
fn server_value(name: &str, kind: ColumnKind, text: &str) -> String {
    let kind = match kind {
        ColumnKind::Bool => Kind::BoolValue(text == "true"),
        ColumnKind::Int64 => Kind::Int64Value(text.parse().expect("an integer")),
        ColumnKind::Double if name == "float4" => Kind::DoubleValue(text.parse::<f32>().expect("a float").into()),
        ColumnKind::Double => Kind::DoubleValue(text.parse().expect("a double")),
        ColumnKind::Bytes => {
            let digits = text.strip_prefix("\\x").expect("bytea_output hex");
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("a byte");
            Kind::BytesValue((0..digits.len()).step_by(2).map(byte).collect())
        }
        _ => Kind::TextValue(text.to_owned()),
    };
    show(&proto::Value { kind: Some(kind) })
}

/// Tells all values apart, also -0 from 0, and finds NaN equal to itself.
fn show(value: &proto::Value) -> String {
    format!("{:?}", value.kind)
}

/// Each field of a composite value is what a column of it would be.
fn compare_fields(
    type_: &CatalogueType,
    text: &str,
    value: &proto::Value,
    columns: &[proto::Value],
    tally: &mut Tally,
) {
    if type_.class != "c" {
        return;
    }
    let Some(Kind::RowValue(row)) = &value.kind else { return tally.differs(&type_.sql, text, "a row", &show(value)) };
    let (expected, got) = (columns.iter().map(show), row.fields.iter().map(show));
    tally.compare(&type_.sql, text, &expected.collect::<Vec<_>>().join(", "), &got.collect::<Vec<_>>().join(", "));
}

/// Each element of an array is what a row of them would be; only the padding of `bpchar`, which a cast takes off, is there
/// as the text of the array shows it.
async fn compare_elements(
    broker: &mut Broker,
    catalogue: &Catalogue,
    type_: &CatalogueType,
    element: &CatalogueType,
    value: &proto::Value,
    tally: &mut Tally,
) -> Result<(), tidegate_client::Error> {
    let is_alive = ["_pg_stat_", "_pg_statio_"].iter().any(|views| type_.sql.contains(views))
        || ["_pg_locks", "_pg_cursors"].contains(&type_.name.as_str())
        || values::query(&type_.name).is_some();
    let (Some(source), false) = (source(catalogue, element), is_alive) else { return Ok(()) };
    let value_in_sql = if element.name == "bpchar" { output("v") } else { "v".to_owned() };
    let rows = broker.select(&format!("SELECT {value_in_sql} FROM ({source}) elements LIMIT 20"), vec![]).await?.rows;
    let Some(Kind::ArrayValue(array)) = &value.kind else {
        tally.differs(&type_.sql, "its elements", "an array", &show(value));
        return Ok(());
    };
    let expected: Vec<_> = rows.iter().map(|row| show(&row[0])).collect();
    let got: Vec<_> = array.elements.iter().map(show).collect();
    tally.compare(&type_.sql, "its elements", &expected.join(", "), &got.join(", "));
    Ok(())
}

/// Every value is fit to be a parameter of its type, and is then the same.
async fn give_back(
    broker: &mut Broker,
    type_: &CatalogueType,
    values: &[(proto::Value, Option<String>)],
    tally: &mut Tally,
) -> Result<(), tidegate_client::Error> {
    for values in values.chunks(500) {
        let column = |at: usize| text_in_sql(type_, &format!("${at}::{}", type_.sql));
        let columns: Vec<String> = (1..=values.len()).map(column).collect();
        let params = values.iter().map(|(value, _)| value.clone()).collect();
        let answer = broker.select(&format!("SELECT {}", columns.join(", ")), params).await?;
        for ((_, text), got) in values.iter().zip(&answer.rows[0]) {
            tally.compare(&type_.sql, "as a parameter", &format!("{text:?}"), &format!("{:?}", text_of(got)));
        }
    }
    Ok(())
}
