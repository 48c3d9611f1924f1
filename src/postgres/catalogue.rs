//! What a server's catalogue says of a statement's [`Footprint`]: whether its names mean what they seem to mean, and
//! nothing of its own making is called behind them (rule 14).
//!
//! An answer holds for the login role's search path, and until the next change of the schema. Whoever keeps one must drop
//! it with [`super::SchemaVersion`], and bound its age, as prepared statements' is: others change schemas unannounced.

use std::{fmt, time::Duration};

use tokio_postgres::{
    Client, Row,
    types::{PgLsn, ToSql},
};

use super::{connection::Connection, error::PgError};
use crate::{
    model::Lsn,
    sql::{Footprint, RelationName, harmless_functions},
};

/// One reason why a statement is not clean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection(String);

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a primary's catalogue says.
#[derive(Debug)]
pub struct Findings {
    /// Empty: the statement is clean.
    pub objections: Vec<Objection>,
    /// Whoever has replayed so much has at least the catalogue that was asked.
    pub as_of: Lsn,
}

/// Asked by itself, without operators: what comes next relies on `pg_catalog` coming first.
const PATH: &str = "SELECT pg_catalog.current_schemas(true)::pg_catalog.text[]";

/// Objects made after initdb have OIDs from 16384 (`FirstNormalObjectId`): all below are PostgreSQL's own.
///
/// - A table's partitions and children count like itself, and so do the types of all columns: an operator could be of a
///   column's type.
/// - The planner evaluates index expressions and predicates, partition keys, check constraints and the expressions of
///   extended statistics: functions and operators that these depend on would run.
/// - Overload resolution takes a better match from a later schema although `pg_catalog` comes first: no function or
///   operator of a name in use may be there. An operator between two types of others' making is beyond reach: an operand
///   has a built-in type. `t.f` means `f(t)` where there is no such column.
/// - A column may be of an enum, or an array of one: of these, nothing but the operators and casts of others' making is
///   anybody's own. Where the one is, `unnest` and `array_agg` make the other; `json_agg` calls a cast that nobody named.
/// - What is written, or is by a foreign key's action, evaluates defaults and check constraints, whose built-in functions
///   need not be harmless: they are read off the stored expressions. Foreign keys' own triggers are PostgreSQL's.
/// - A cast made between built-in types, an implicit one from such a type, or a default operator class for one, is called
///   without being named.
const OBJECTIONS: &str = "
WITH RECURSIVE path AS (
    SELECT oid FROM pg_catalog.pg_namespace
    WHERE nspname = ANY (pg_catalog.current_schemas(true)) AND nspname <> 'pg_catalog'
), named AS (
    SELECT name, may_be_absent, pg_catalog.to_regclass(name)::oid AS oid
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bool[])) AS named(name, may_be_absent)
), writing AS (
    SELECT oid FROM (SELECT pg_catalog.to_regclass(name)::oid FROM pg_catalog.unnest($7::text[]) AS written(name)) AS named(oid)
    WHERE oid IS NOT NULL
    UNION
    SELECT next.oid FROM writing, LATERAL (
        SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = writing.oid
        UNION ALL
        SELECT conrelid FROM pg_catalog.pg_constraint
        WHERE contype = 'f' AND confrelid = writing.oid
            AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
    ) AS next(oid)
), tables AS (
    SELECT oid FROM (SELECT oid FROM named WHERE oid IS NOT NULL UNION SELECT oid FROM writing) AS all_named
    UNION
    SELECT inhrelid FROM pg_catalog.pg_inherits JOIN tables ON inhparent = tables.oid
), enums AS (
    SELECT pg_catalog.unnest(ARRAY[e.oid, e.typarray]) AS oid
    FROM tables JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid AND NOT a.attisdropped
    JOIN pg_catalog.pg_type e ON a.atttypid IN (e.oid, e.typarray) AND e.typtype = 'e'
), expressions AS (
    SELECT 'pg_catalog.pg_attrdef'::regclass AS class, d.oid, d.adbin::text AS tree
    FROM pg_catalog.pg_attrdef d JOIN writing ON d.adrelid = writing.oid
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::regclass, con.oid, con.conbin::text
    FROM pg_catalog.pg_constraint con JOIN writing ON con.conrelid = writing.oid AND con.contype = 'c'
), parts AS (
    SELECT 'pg_catalog.pg_class'::regclass AS class, oid FROM tables
    UNION ALL
    SELECT 'pg_catalog.pg_class'::regclass, indexrelid FROM pg_catalog.pg_index JOIN tables ON indrelid = tables.oid
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::regclass, con.oid
    FROM pg_catalog.pg_constraint con JOIN tables ON con.conrelid = tables.oid AND con.contype = 'c'
    UNION ALL
    SELECT 'pg_catalog.pg_statistic_ext'::regclass, ext.oid
    FROM pg_catalog.pg_statistic_ext ext JOIN tables ON ext.stxrelid = tables.oid
    UNION ALL
    SELECT class, oid FROM expressions WHERE class = 'pg_catalog.pg_attrdef'::regclass
)
SELECT 'there is no relation ' || name FROM named WHERE oid IS NULL AND NOT may_be_absent
UNION ALL
SELECT pg_catalog.format('%s is not a plain table', c.oid::regclass)
FROM tables JOIN pg_catalog.pg_class c ON c.oid = tables.oid
WHERE c.relkind NOT IN ('r', 'p') OR c.relpersistence = 't' OR c.relam >= 16384
UNION ALL
SELECT pg_catalog.format('%s has row security', c.oid::regclass)
FROM tables JOIN pg_catalog.pg_class c ON c.oid = tables.oid WHERE c.relrowsecurity
UNION ALL
SELECT pg_catalog.format('column %I of %s is of type %s', a.attname, a.attrelid::regclass, a.atttypid::regtype)
FROM tables JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE (t.oid >= 16384 OR t.typtype NOT IN ('b', 'r', 'm')) AND t.oid NOT IN (SELECT oid FROM enums)
UNION ALL
SELECT pg_catalog.format('column %I of %s is computed when it is read', a.attname, a.attrelid::regclass)
FROM tables JOIN pg_catalog.pg_attribute a ON a.attrelid = tables.oid WHERE a.attgenerated = 'v'
UNION ALL
SELECT pg_catalog.format('%s depends on %s',
    pg_catalog.pg_describe_object(d.classid, d.objid, 0), pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0))
FROM parts JOIN pg_catalog.pg_depend d ON d.classid = parts.class AND d.objid = parts.oid
WHERE d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass,
    'pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_opfamily'::regclass)
    OR d.refclassid = 'pg_catalog.pg_type'::regclass AND EXISTS (
        SELECT FROM pg_catalog.pg_type t WHERE t.oid = d.refobjid AND t.typtype = 'd')
UNION ALL
SELECT pg_catalog.format('%s calls %s', pg_catalog.pg_describe_object(e.class, e.oid, 0), p.oid::regprocedure)
FROM expressions e, LATERAL pg_catalog.regexp_matches(e.tree, ':funcid ([0-9]+)', 'g') AS calls(function)
    JOIN pg_catalog.pg_proc p ON p.oid = function[1]::oid
WHERE p.oid >= 16384 OR NOT (p.proname = ANY ($8::text[]) OR p.proname = 'nextval'
    OR p.oid IN (SELECT castfunc FROM pg_catalog.pg_cast))
UNION ALL
SELECT pg_catalog.format('%s has the trigger %I', t.tgrelid::regclass, t.tgname)
FROM writing JOIN pg_catalog.pg_trigger t ON t.tgrelid = writing.oid WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL
SELECT pg_catalog.format('%s has the rule %I', r.ev_class::regclass, r.rulename)
FROM writing JOIN pg_catalog.pg_rewrite r ON r.ev_class = writing.oid
UNION ALL
SELECT pg_catalog.format('there is a function %s', p.oid::regprocedure)
FROM pg_catalog.pg_proc p
WHERE (p.proname = ANY ($3::text[]) OR p.proname = ANY ($4::text[]))
    AND (p.pronamespace IN (SELECT oid FROM path) OR p.pronamespace = 11 AND p.oid >= 16384)
UNION ALL
SELECT pg_catalog.format('the built-in function %s was replaced', p.oid::regprocedure)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.proname = ANY ($3::text[]) AND p.pronamespace = 11
    AND (l.lanname NOT IN ('internal', 'sql') OR p.proconfig IS NOT NULL)
UNION ALL
SELECT pg_catalog.format('there is an operator %s', o.oid::regoperator)
FROM pg_catalog.pg_operator o
WHERE o.oprname = ANY ($5::text[])
    AND (o.oprnamespace = 11 AND o.oid >= 16384
        OR o.oprnamespace IN (SELECT oid FROM path)
            AND NOT (o.oprright >= 16384 AND (o.oprleft >= 16384 OR o.oprleft = 0)
                AND o.oprright NOT IN (SELECT oid FROM enums) AND o.oprleft NOT IN (SELECT oid FROM enums)))
UNION ALL
SELECT 'the type ' || name || ' is not that of pg_catalog'
FROM pg_catalog.unnest($6::text[]) AS named(name)
    LEFT JOIN pg_catalog.pg_type t ON t.oid = pg_catalog.to_regtype(pg_catalog.quote_ident(name))::oid
WHERE t.oid IS NULL OR t.typnamespace <> 11 OR t.oid >= 16384
UNION ALL
SELECT pg_catalog.format('there is a cast from %s to %s', c.castsource::regtype, c.casttarget::regtype)
FROM pg_catalog.pg_cast c
WHERE c.oid >= 16384 AND (c.castsource < 16384 AND (c.casttarget < 16384 OR c.castcontext = 'i')
    OR c.castsource IN (SELECT oid FROM enums) OR c.casttarget IN (SELECT oid FROM enums))
UNION ALL
SELECT pg_catalog.format('there is a default operator class %I for %s', o.opcname, o.opcintype::regtype)
FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod
WHERE o.oid >= 16384 AND o.opcdefault AND (o.opcintype < 16384 OR o.opcintype IN (SELECT oid FROM enums))
    AND am.amname IN ('btree', 'hash')";

impl Connection {
    /// What the catalogue of this primary says of a statement, to those who log in and name things as this connection does.
    /// Only to its end, within `limit`, it leaves the connection fit for others.
    pub async fn findings(&mut self, footprint: &Footprint, limit: Duration) -> Result<Findings, PgError> {
        self.take_into_use();
        let late = || PgError::Lost(format!("no answer within {}s", limit.as_secs_f64()));
        let asked = async {
            let objections = objections(&self.client, footprint).await?;
            // Behind it: never too low.
            let row = self.client.query_one("SELECT pg_catalog.pg_current_wal_insert_lsn()", &[]).await?;
            let as_of: PgLsn = row.try_get(0)?;
            Ok::<_, PgError>(Findings { objections, as_of: Lsn::new(as_of.into()) })
        };
        let findings = tokio::time::timeout(limit, asked).await.map_err(|_| late())??;
        self.settled();
        Ok(findings)
    }
}

/// What a server says against a statement's being clean. Two round trips, and a plan: not for the way of a request.
pub(super) async fn objections(client: &Client, footprint: &Footprint) -> Result<Vec<Objection>, PgError> {
    let row: Row = client.query_one(PATH, &[]).await?;
    let path: Vec<String> = row.try_get(0)?;
    if path.iter().find(|schema| !schema.starts_with("pg_temp_")).is_none_or(|first| first != "pg_catalog") {
        return Ok(vec![Objection("search_path does not begin with pg_catalog".into())]);
    }
    let Footprint { relations, written, functions, columns, operators, types } = footprint;
    let list = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>();
    let names: Vec<String> = relations.iter().map(quoted).collect();
    let may_be_absent: Vec<bool> = relations.iter().map(|relation| relation.may_be_absent).collect();
    let written: Vec<String> = written.iter().map(quoted).collect();
    let harmless: Vec<&str> = harmless_functions().collect();
    let (functions, columns) = (list(functions), list(columns));
    let (operators, types) = (list(operators), list(types));
    let params: [&(dyn ToSql + Sync); 8] =
        [&names, &may_be_absent, &functions, &columns, &operators, &types, &written, &harmless];
    let rows = client.query(OBJECTIONS, &params).await?;
    rows.iter().map(|row| Ok(Objection(row.try_get(0)?))).collect()
}

fn quoted(relation: &RelationName) -> String {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let schema = relation.schema.as_ref().map(|schema| format!("{}.", quote(schema))).unwrap_or_default();
    format!("{schema}{}", quote(&relation.name))
}
