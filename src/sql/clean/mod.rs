//! Whether a statement's text can be clean, that is: proved to leave nothing behind on its connection (rule 14). What a
//! server must confirm for that is gathered in a [`Footprint`]; the confirmation is `postgres::catalogue`'s.
//!
//! Every node of the parsed statement must be on a list of what is known to be harmless, with all its fields taken apart
//! by name: what a newer parser adds does not compile until somebody judges it. sqlparser and PostgreSQL do not read all
//! texts alike, so the text itself must be plain first: [`lexical`] leaves no room for a second reading.

mod expression;
mod lexical;
mod names;
mod query;
mod tables;
mod write;

use std::{borrow::Cow, collections::BTreeSet};

use sqlparser::{ast::Statement, dialect::PostgreSqlDialect, parser::Parser};
use thiserror::Error;

/// What lies in one another deeper than this is not parsed: neither the parser nor the walk may exhaust the stack.
const DEPTH_MAX: usize = 50;

/// Why a statement is not clean, or is not known to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NotClean(Cow<'static, str>);

impl NotClean {
    fn new(why: impl Into<Cow<'static, str>>) -> NotClean {
        NotClean(why.into())
    }
}

/// A relation as a statement names it; names are as the catalogue has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelationName {
    /// None: found along the search path.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// A WITH query has this name too: it may be meant, and there may be no such relation.
    pub may_be_absent: bool,
}

/// What a statement refers to, and what a server must confirm before it counts as clean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Plain or partitioned tables without row security, with columns of `pg_catalog`'s types.
    pub relations: BTreeSet<RelationName>,
    /// Those of them that are written: nothing of anybody's making may run when they are.
    pub written: BTreeSet<RelationName>,
    /// Built-in functions, which nobody's may shadow.
    pub functions: BTreeSet<String>,
    /// The columns of `t.column`: nobody's function may have such a name, or `t.column` may be `column(t)`.
    pub columns: BTreeSet<String>,
    /// Built-in operators, which nobody's may shadow.
    pub operators: BTreeSet<String>,
    /// Names of types that must mean those of `pg_catalog`.
    pub types: BTreeSet<String>,
}

/// Why a text of so many bytes is not judged, whatever it says.
pub fn too_long(bytes: usize) -> Option<NotClean> {
    lexical::too_long(bytes)
}

/// Judges a statement by its text alone.
///
/// # Errors
/// [`NotClean`] when it cannot be clean, whatever the server says.
pub fn footprint(sql: &str) -> Result<Footprint, NotClean> {
    let query = match parse(sql)? {
        Some(Statement::Query(query)) => query,
        _ => return Err(NotClean::new("only a single query can be clean: SELECT, VALUES or WITH")),
    };
    let mut walk = Walk::default();
    walk.query(&query)?;
    walk.finish()
}

/// Judges by its text alone a statement of a transaction that may write: besides queries, which may lock rows there,
/// plain INSERT, UPDATE and DELETE.
///
/// # Errors
/// [`NotClean`] when it cannot be clean, whatever the server says.
pub fn footprint_of_write(sql: &str) -> Result<Footprint, NotClean> {
    let statement = parse(sql)?.ok_or_else(|| NotClean::new("only a single statement can be clean"))?;
    let mut walk = Walk { may_lock: true, ..Walk::default() };
    walk.statement(&statement)?;
    walk.finish()
}

/// The names of the built-in functions that leave nothing behind.
pub fn harmless_functions() -> impl Iterator<Item = &'static str> {
    [tables::FUNCTIONS, tables::SET_FUNCTIONS].into_iter().flatten().copied()
}

/// The only statement of a text that can be read in one way only; None if there are others.
fn parse(sql: &str) -> Result<Option<Statement>, NotClean> {
    let plain = lexical::plain(sql)?;
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(DEPTH_MAX).try_with_sql(&plain);
    let mut statements = parser
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|_| NotClean::new("the statement is beyond what the broker parses"))?;
    Ok(statements.pop().filter(|_| statements.is_empty()))
}

/// A walk over a parsed statement.
#[derive(Default)]
struct Walk {
    found: Footprint,
    /// Names that FROM gives to rows: by itself, such a name is a whole row.
    rows: BTreeSet<String>,
    /// Names that stand by themselves in expressions.
    bare: BTreeSet<String>,
    /// Names of WITH queries.
    with: BTreeSet<String>,
    /// Row locks end with the transaction.
    may_lock: bool,
    depth: usize,
}

impl Walk {
    fn finish(mut self) -> Result<Footprint, NotClean> {
        if let Some(row) = self.rows.intersection(&self.bare).next() {
            return Err(NotClean::new(format!("{row:?} stands for a whole row: name its columns")));
        }
        let relations = std::mem::take(&mut self.found.relations);
        self.found.relations = relations
            .into_iter()
            .map(|relation| {
                let may_be_absent = relation.schema.is_none() && self.with.contains(&relation.name);
                RelationName { may_be_absent, ..relation }
            })
            .collect();
        Ok(self.found)
    }
}

#[cfg(test)]
mod tests;
