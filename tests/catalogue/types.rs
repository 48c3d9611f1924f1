//! The types that the running server has, from its own catalogue.

use std::collections::HashMap;

use crate::ask::{Broker, texts};

/// The schema of the types that the test adds.
pub const SCHEMA: &str = "catalogue";

/// All types with values in PostgreSQL's own schema and in the test's. Text, because it is read through the broker itself.
const TYPES: &str = "SELECT t.oid::text, t.typname::text, n.nspname::text, t.typtype::text, coalesce(e.oid::text, ''), \
     coalesce((SELECT string_agg(part::text, ' ') FROM (\
         SELECT t.typelem AS part UNION SELECT t.typbasetype UNION SELECT rngsubtype FROM pg_range WHERE t.oid IN (rngtypid, rngmultitypid) \
         UNION SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) p WHERE part <> 0), ''), \
     coalesce((SELECT c.relname::text FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c'), ''), \
     coalesce((SELECT string_agg(quote_ident(attname), ' ' ORDER BY attnum) FROM pg_attribute \
         WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped), ''), \
     t.typsend::oid::regproc::text, t.typbasetype::text \
     FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type e ON e.typarray = t.oid \
     WHERE n.nspname IN ('pg_catalog', 'catalogue') ORDER BY n.nspname DESC, e.oid IS NOT NULL, t.oid";

/// One type.
#[derive(Debug, Clone)]
pub struct CatalogueType {
    pub oid: String,
    pub name: String,
    /// As SQL names it. In quotes: `bit` without is a single bit.
    pub sql: String,
    /// `typtype`: b, c, d, e, m, p or r.
    pub class: String,
    /// The element's type, of an array; not of `int2vector` and its like.
    pub element: Option<String>,
    /// The types that it is made of.
    pub parts: Vec<String>,
    /// The table or view whose rows it describes.
    pub relation: Option<String>,
    /// The names of its fields, as SQL writes them.
    pub fields: Vec<String>,
    /// Its send function.
    pub send: String,
    /// The type below, of a domain.
    pub base: Option<String>,
}

/// All of them, by OID, and in order.
pub struct Catalogue {
    pub types: Vec<CatalogueType>,
    by_oid: HashMap<String, usize>,
}

impl Catalogue {
    pub async fn load(broker: &mut Broker) -> Catalogue {
        let rows = broker.select(TYPES, vec![]).await.expect("the catalogue can be read");
        let types: Vec<CatalogueType> = rows.rows.iter().map(|row| read(&texts(row))).collect();
        let by_oid = types.iter().enumerate().map(|(at, type_)| (type_.oid.clone(), at)).collect();
        Catalogue { types, by_oid }
    }

    pub fn get(&self, oid: &str) -> Option<&CatalogueType> {
        self.by_oid.get(oid).map(|at| &self.types[*at])
    }

    /// The first of the names that the type has, or a part of it.
    pub fn made_of<'a>(&self, type_: &CatalogueType, names: &[&'a str]) -> Option<&'a str> {
        let own = names.iter().find(|name| **name == type_.name);
        let of_part = |oid: &String| self.get(oid).and_then(|part| self.made_of(part, names));
        own.copied().or_else(|| type_.parts.iter().find_map(of_part))
    }
}

fn read(row: &[String]) -> CatalogueType {
    let [oid, name, schema, class, element, parts, relation, fields, send, base] = row else { panic!("{row:?}") };
    let some = |text: &String| (!text.is_empty() && text != "0").then(|| text.clone());
    let words = |text: &String| text.split_whitespace().map(str::to_owned).collect();
    CatalogueType {
        oid: oid.clone(),
        name: name.clone(),
        sql: format!("{schema}.\"{name}\""),
        class: class.clone(),
        element: some(element),
        parts: words(parts),
        relation: some(relation).map(|relation| format!("{schema}.\"{relation}\"")),
        fields: words(fields),
        send: send.clone(),
        base: some(base),
    }
}
