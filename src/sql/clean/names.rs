//! Names: folded as PostgreSQL folds them, and none that it would take for a keyword.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart, TableAlias};

use super::{NotClean, Walk, tables::RESERVED};

/// PostgreSQL cuts longer ones.
const BYTES_MAX: usize = 63;

/// A name as the catalogue has it.
pub(super) fn fold(ident: &Ident) -> Result<String, NotClean> {
    let Ident { value, quote_style, span: _ } = ident;
    let name = match quote_style {
        None => value.to_ascii_lowercase(),
        Some('"') if !value.contains('"') => value.clone(),
        // `typename 'literal'` would call the type's input function.
        Some(_) => return Err(NotClean::new(format!("{value:?} is quoted in a way that is not judged"))),
    };
    if name.len() > BYTES_MAX || name.is_empty() {
        return Err(NotClean::new(format!("a name of {} bytes: PostgreSQL would cut it", name.len())));
    }
    if quote_style.is_none() && RESERVED.contains(&name.as_str()) {
        return Err(NotClean::new(format!("{name} is a keyword to PostgreSQL: quote it if it is a name")));
    }
    Ok(name)
}

/// A name of one or two parts: schema and name.
pub(super) fn qualified(name: &ObjectName) -> Result<(Option<String>, String), NotClean> {
    let part = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => fold(ident),
        ObjectNamePart::Function(_) => Err(NotClean::new("a name that is computed")),
    };
    match name.0.as_slice() {
        [name] => Ok((None, part(name)?)),
        [schema, name] => Ok((Some(part(schema)?), part(name)?)),
        _ => Err(NotClean::new(format!("{name}: a name of more than two parts"))),
    }
}

impl Walk {
    /// The name that FROM gives to rows. `is_scalar`: to the values of a function instead, which may stand by themselves.
    pub(super) fn alias(&mut self, alias: &TableAlias, is_scalar: bool) -> Result<(), NotClean> {
        let TableAlias { explicit: _, name, columns, at } = alias;
        if at.is_some() || columns.iter().any(|column| column.data_type.is_some()) {
            return Err(NotClean::new("an alias that defines types"));
        }
        for column in columns {
            fold(&column.name)?;
        }
        let name = fold(name)?;
        if !is_scalar {
            self.rows.insert(name);
        }
        Ok(())
    }
}
