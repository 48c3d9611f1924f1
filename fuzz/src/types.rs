//! PostgreSQL types from a line of text, so that seeds can be read and types be mutated: names of built-in types and of
//! known extensions, `[T` an array, `(T,T)` a composite type, `=T` a domain, `~T` a range, `*T` a multirange, `!` an
//! enum, `?` a type that nobody knows.

use std::{collections::HashMap, iter::Peekable, str::Chars, sync::LazyLock};

use postgres_types::{Field, Kind, Type};

/// Types lie in one another so deep at most, as nobody's catalogue does. The values' depth is bounded by the codec.
const DEPTH_MAX: usize = 40;
/// The first OID of user-defined types.
const USER_OID: u32 = 16_384;
/// Behind the last OID of the server's own types.
const BUILT_IN_END: u32 = 7_000;

static BUILT_IN: LazyLock<HashMap<String, Type>> = LazyLock::new(|| {
    (0..BUILT_IN_END).filter_map(Type::from_oid).map(|type_| (type_.name().to_owned(), type_)).collect()
});

/// The types of a line, with blanks between them; what cannot be read ends the line.
pub fn read(line: &str, most: usize) -> Vec<Type> {
    let mut rest = line.chars().peekable();
    let mut types = Vec::new();
    while types.len() < most {
        while rest.next_if_eq(&' ').is_some() {}
        let Some(type_) = one(&mut rest, 0) else { break };
        types.push(type_);
    }
    types
}

fn one(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Type> {
    if depth > DEPTH_MAX {
        return None;
    }
    let first = rest.next()?;
    let (name, kind) = match first {
        '[' => ("_of", Kind::Array(one(rest, depth + 1)?)),
        '=' => ("a_domain", Kind::Domain(one(rest, depth + 1)?)),
        '~' => ("a_range", Kind::Range(one(rest, depth + 1)?)),
        '*' => ("a_multirange", Kind::Multirange(one(rest, depth + 1)?)),
        '!' => ("an_enum", Kind::Enum(vec!["a".to_owned(), "b".to_owned()])),
        '?' => ("unheard_of", Kind::Simple),
        '(' => {
            let mut fields = Vec::new();
            while rest.next_if_eq(&')').is_none() {
                fields.push(Field::new(format!("f{}", fields.len()), one(rest, depth + 1)?));
                rest.next_if_eq(&',');
            }
            ("a_row", Kind::Composite(fields))
        }
        _ => return named(first, rest),
    };
    Some(user_defined(name, kind))
}

fn named(first: char, rest: &mut Peekable<Chars<'_>>) -> Option<Type> {
    let mut name = String::from(first);
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    let is_extension = ["citext", "hstore", "ltree", "lquery", "ltxtquery"].contains(&name.as_str());
    if is_extension { Some(user_defined(&name, Kind::Simple)) } else { BUILT_IN.get(&name).cloned() }
}

fn user_defined(name: &str, kind: Kind) -> Type {
    Type::new(name.to_owned(), USER_OID, kind, "public".to_owned())
}

/// The type below any domains.
pub fn base(mut type_: &Type) -> &Type {
    while let Kind::Domain(below) = type_.kind() {
        type_ = below;
    }
    type_
}
