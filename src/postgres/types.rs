//! Completes the types of prepared statements. tokio-postgres reads a type's parts from the catalogue, but tells neither a
//! user's multirange from a base type nor whether a type has a binary form: both are asked here, once a connection.

use std::{collections::HashMap, sync::Arc};

use postgres_types::{Field, Kind, Type};
use tokio_postgres::{Client, Statement};

use super::error::PgError;
use crate::codec;

const BASE_TYPE: &str = "SELECT t.typsend = 0, r.rngtypid FROM pg_catalog.pg_type t \
     LEFT JOIN pg_catalog.pg_range r ON r.rngmultitypid = t.oid WHERE t.oid = $1";

/// What is known of types on one connection.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u32, Type>);

/// A statement's types where they are other than the statement itself says.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) params: Vec<Type>,
    pub(super) columns: Vec<Type>,
}

impl Types {
    /// Completes a statement's types; None if they are as the statement says. No round trip, unless there are types that
    /// are neither built in nor known from before.
    pub(super) async fn complete(
        &mut self,
        client: &Client,
        statement: &Statement,
    ) -> Result<Option<Arc<Completed>>, PgError> {
        let columns = || statement.columns().iter().map(|column| column.type_());
        // What is without bound is not walked through: as a result it is refused, and as a parameter it is text.
        for type_ in statement.params().iter().chain(columns()).filter(|type_| codec::is_bounded(type_)) {
            self.learn(client, type_).await?;
        }
        let known = |type_: &Type| codec::is_bounded(type_).then(|| self.completed(type_)).flatten();
        if !statement.params().iter().chain(columns()).any(|type_| known(type_).is_some()) {
            return Ok(None);
        }
        let completed = |type_: &Type| known(type_).unwrap_or_else(|| type_.clone());
        let params = statement.params().iter().map(completed).collect();
        Ok(Some(Arc::new(Completed { params, columns: columns().map(completed).collect() })))
    }

    /// Asks for what is not known of a type and its parts.
    async fn learn(&mut self, client: &Client, type_: &Type) -> Result<(), PgError> {
        let mut unknown = Vec::new();
        self.unknown(type_, &mut unknown);
        while let Some(type_) = unknown.pop() {
            let learned = ask(client, &type_).await?;
            // The bound of a multirange may be such a type, too; it is not the multirange itself.
            self.0.insert(type_.oid(), learned.clone());
            if let Kind::Multirange(bound) = learned.kind() {
                self.unknown(bound, &mut unknown);
            }
        }
        Ok(())
    }

    fn unknown(&self, type_: &Type, found: &mut Vec<Type>) {
        match type_.kind() {
            Kind::Array(part) | Kind::Domain(part) | Kind::Range(part) | Kind::Multirange(part) => {
                self.unknown(part, found);
            }
            Kind::Composite(fields) => fields.iter().for_each(|field| self.unknown(field.type_(), found)),
            Kind::Simple if !codec::knows(type_) && !self.0.contains_key(&type_.oid()) => found.push(type_.clone()),
            _ => {}
        }
    }

    /// The type with its parts completed; None if nothing is new.
    fn completed(&self, type_: &Type) -> Option<Type> {
        let kind = match type_.kind() {
            Kind::Simple => {
                let learned = self.0.get(&type_.oid()).filter(|learned| learned.kind() != type_.kind())?;
                return Some(self.completed(learned).unwrap_or_else(|| learned.clone()));
            }
            Kind::Array(part) => Kind::Array(self.completed(part)?),
            Kind::Domain(part) => Kind::Domain(self.completed(part)?),
            Kind::Range(part) => Kind::Range(self.completed(part)?),
            Kind::Multirange(part) => Kind::Multirange(self.completed(part)?),
            Kind::Composite(fields) => {
                let completed: Vec<_> = fields.iter().map(|field| self.completed(field.type_())).collect();
                if completed.iter().all(Option::is_none) {
                    return None;
                }
                let field = |(field, type_): (&Field, Option<Type>)| {
                    Field::new(field.name().to_owned(), type_.unwrap_or_else(|| field.type_().clone()))
                };
                Kind::Composite(fields.iter().zip(completed).map(field).collect())
            }
            _ => return None,
        };
        Some(with_kind(type_, kind))
    }
}

/// Asks what a base type really is: itself, a multirange, or (as a pseudo-type) one whose values cannot be had in binary.
async fn ask(client: &Client, type_: &Type) -> Result<Type, PgError> {
    let oid = type_.oid();
    let rows = client.query_typed(BASE_TYPE, &[(&oid, Type::OID)]).await?;
    let undecodable = || PgError::Protocol(format!("undecodable row of pg_type for {}", type_.name()));
    // Gone from the catalogue meanwhile: the statement will say so.
    let Some(row) = rows.first() else { return Ok(type_.clone()) };
    let has_no_binary_form: bool = row.try_get(0).map_err(|_| undecodable())?;
    let range: Option<u32> = row.try_get(1).map_err(|_| undecodable())?;
    if let Some(range) = range {
        // A parameter of the type: tokio-postgres looks it up.
        let unnamed = Type::new(String::new(), range, Kind::Simple, String::new());
        let statement = client.prepare_typed("SELECT $1", &[unnamed]).await?;
        if let Some(Kind::Range(bound)) = statement.params().first().map(Type::kind) {
            return Ok(with_kind(type_, Kind::Multirange(bound.clone())));
        }
    }
    Ok(if has_no_binary_form { with_kind(type_, Kind::Pseudo) } else { type_.clone() })
}

fn with_kind(type_: &Type, kind: Kind) -> Type {
    Type::new(type_.name().to_owned(), type_.oid(), kind, type_.schema().to_owned())
}
