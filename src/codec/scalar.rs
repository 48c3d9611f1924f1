//! Which PostgreSQL types are supported, and in which column kind each travels.

use postgres_types::{Field, Kind, Type};

use crate::proto::ColumnKind;

/// Types with smaller OIDs are the server's own (`FirstNormalObjectId`).
const FIRST_USER_OID: u32 = 16_384;

/// How deep the parts of a type may lie in one another.
const DEPTH_MAX: usize = 64;
/// How many parts a type may have, each counted wherever it occurs: pairs of pairs of pairs … are 2^n.
const PARTS_MAX: usize = 4096;

/// A supported type that has no parts; types with the same binary format share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `bool`.
    Bool,
    /// `int2`.
    Int2,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `oid`, `xid`, `cid`: 32 bits without a sign.
    Uint4,
    /// `xid8`: 64 bits without a sign, more than an `int64` holds; travels as text.
    Uint8,
    /// `float4`, widened to a double, which holds each of its values exactly.
    Float4,
    /// `float8`.
    Float8,
    /// `bytea`.
    Bytea,
    /// The one-byte type `"char"`.
    Char,
    /// Types whose binary format is their text: `text`, `varchar`, `name`, `json`, `xml`, enums, `citext`, …
    Utf8,
    /// `bpchar`, that is `char(n)`: text with blanks behind it, which a cast to text takes off.
    Padded,
    /// A byte 1, for the format's version, before the text: `jsonb`, `jsonpath`, `ltree`, `lquery`, `ltxtquery`.
    Versioned,
    /// `void`, what functions such as `pg_sleep` return: an empty text.
    Void,
    /// `numeric`.
    Numeric,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timetz`.
    TimeTz,
    /// `timestamp`.
    Timestamp,
    /// `timestamptz`.
    TimestampTz,
    /// `interval`.
    Interval,
    /// `pg_lsn`.
    Lsn,
    /// `bit` and `varbit`.
    Bits,
    /// `inet` and `cidr`; each value says which it is.
    Network,
    /// `macaddr` and `macaddr8`, 6 and 8 bytes.
    MacAddress,
    /// `tid`, a row's place in its table.
    Tid,
    /// `pg_snapshot` and `txid_snapshot`.
    Snapshot,
    /// `point`.
    Point,
    /// `lseg`.
    Segment,
    /// `path`.
    Path,
    /// `box`.
    Box,
    /// `polygon`.
    Polygon,
    /// `line`.
    Line,
    /// `circle`.
    Circle,
    /// `tsvector`.
    TsVector,
    /// `tsquery`.
    TsQuery,
    /// `hstore`.
    Hstore,
}

impl Scalar {
    /// The scalar that a type is; `None` for any other. A domain is its base type.
    pub(super) fn of(type_: &Type) -> Option<Self> {
        let type_ = base(type_);
        match type_.kind() {
            Kind::Enum(_) => Some(Self::Utf8),
            Kind::Simple if type_.oid() >= FIRST_USER_OID => Self::of_extension(type_.name()),
            _ => Self::of_built_in(type_),
        }
    }

    fn of_built_in(type_: &Type) -> Option<Self> {
        Some(match *type_ {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID | Type::XID | Type::CID => Self::Uint4,
            Type::XID8 => Self::Uint8,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::BYTEA => Self::Bytea,
            Type::CHAR => Self::Char,
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN | Type::CSTRING => Self::Utf8,
            Type::BPCHAR => Self::Padded,
            Type::JSON | Type::XML | Type::REFCURSOR | Type::PG_NODE_TREE => Self::Utf8,
            Type::JSONB | Type::JSONPATH => Self::Versioned,
            Type::VOID => Self::Void,
            Type::NUMERIC => Self::Numeric,
            Type::UUID => Self::Uuid,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMETZ => Self::TimeTz,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::TimestampTz,
            Type::INTERVAL => Self::Interval,
            Type::PG_LSN => Self::Lsn,
            Type::BIT | Type::VARBIT => Self::Bits,
            Type::INET | Type::CIDR => Self::Network,
            Type::MACADDR | Type::MACADDR8 => Self::MacAddress,
            Type::TID => Self::Tid,
            Type::PG_SNAPSHOT | Type::TXID_SNAPSHOT => Self::Snapshot,
            Type::POINT => Self::Point,
            Type::LSEG => Self::Segment,
            Type::PATH => Self::Path,
            Type::BOX => Self::Box,
            Type::POLYGON => Self::Polygon,
            Type::LINE => Self::Line,
            Type::CIRCLE => Self::Circle,
            Type::TS_VECTOR => Self::TsVector,
            Type::TSQUERY => Self::TsQuery,
            _ => return None,
        })
    }

    /// An extension's OIDs differ from database to database, and its schema is the user's choice: the name must do.
    fn of_extension(name: &str) -> Option<Self> {
        match name {
            "citext" => Some(Self::Utf8),
            "hstore" => Some(Self::Hstore),
            "ltree" | "lquery" | "ltxtquery" => Some(Self::Versioned),
            _ => None,
        }
    }

    fn column_kind(self) -> ColumnKind {
        match self {
            Self::Bool => ColumnKind::Bool,
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Uint4 => ColumnKind::Int64,
            Self::Float4 | Self::Float8 => ColumnKind::Double,
            Self::Bytea => ColumnKind::Bytes,
            _ => ColumnKind::Text,
        }
    }
}

/// The form of a value: how its bytes are laid out, down to its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// One value.
    Scalar(Scalar),
    /// An array of values of one form; `int2vector` and `oidvector` are arrays on the wire too.
    Array(Box<Form>),
    /// A composite value of a named type: the forms of its fields, in order.
    Row(Box<[Form]>),
    /// An anonymous `record`: each value says the OIDs of its fields' types.
    Record,
    /// A range over values of one form; travels as text.
    Range(Box<Form>),
    /// A multirange over values of one form; travels as text.
    Multirange(Box<Form>),
    /// A type that the broker does not know: its binary form travels as it is.
    Raw,
}

/// Why a type is not carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsupported(pub(super) String);

impl Form {
    /// The form of a type.
    ///
    /// # Errors
    /// [`Unsupported`] for the exceptions: types without a binary form, or whose binary form does not say what the text
    /// does.
    pub(super) fn of(type_: &Type) -> Result<Self, Unsupported> {
        if !is_bounded(type_) {
            let why =
                format!("it has more than {PARTS_MAX} parts, or they lie in one another more than {DEPTH_MAX} deep");
            return Err(Unsupported(why));
        }
        Self::of_bounded(type_)
    }

    fn of_bounded(type_: &Type) -> Result<Self, Unsupported> {
        let type_ = base(type_);
        if let Some(scalar) = Scalar::of(type_) {
            return Ok(Self::Scalar(scalar));
        }
        if let Some(why) = exception(type_) {
            return Err(Unsupported(why.to_owned()));
        }
        match (type_.kind(), type_) {
            (Kind::Array(element), _) => Ok(Self::Array(Box::new(part("its elements have", element)?))),
            (Kind::Composite(fields), _) => {
                let form = |field: &Field| part(&format!("its field {:?} has", field.name()), field.type_());
                fields.iter().map(form).collect::<Result<_, _>>().map(Self::Row)
            }
            // What has no text that the broker knows cannot be in the text of a range.
            (Kind::Range(bound) | Kind::Multirange(bound), _) if !has_text(bound) => Ok(Self::Raw),
            (Kind::Range(bound), _) => Ok(Self::Range(Box::new(part("its bounds have", bound)?))),
            (Kind::Multirange(bound), _) => Ok(Self::Multirange(Box::new(part("its bounds have", bound)?))),
            (_, &Type::RECORD) => Ok(Self::Record),
            (_, &Type::RECORD_ARRAY) => Ok(Self::Array(Box::new(Self::Record))),
            _ => Ok(Self::Raw),
        }
    }

    /// The form of a field of an anonymous record, which names its type by OID alone: without the catalogue only
    /// built-in types are known, any other is `Raw`. None for the exceptions.
    pub(super) fn of_oid(oid: u32) -> Option<Self> {
        match Type::from_oid(oid) {
            Some(type_) => Self::of(&type_).ok(),
            None => Some(Self::Raw),
        }
    }

    /// Which list of `ColumnValues` holds the column.
    pub(super) fn column_kind(&self) -> ColumnKind {
        match self {
            Self::Scalar(scalar) => scalar.column_kind(),
            Self::Array(_) | Self::Row(_) | Self::Record => ColumnKind::Nested,
            Self::Range(_) | Self::Multirange(_) => ColumnKind::Text,
            Self::Raw => ColumnKind::Raw,
        }
    }
}

/// The form of a part of a type; if it is not carried, the reason says which part is to blame.
fn part(which: &str, type_: &Type) -> Result<Form, Unsupported> {
    Form::of_bounded(type_)
        .map_err(|Unsupported(why)| Unsupported(format!("{which} the type {}, and {why}", display_name(type_))))
}

/// Whether `text::write` can write the type's values as a part of a range's text. `int2vector` and `oidvector` come as
/// arrays, but their text is another.
fn has_text(type_: &Type) -> bool {
    let type_ = base(type_);
    match type_.kind() {
        Kind::Array(element) => !matches!(*type_, Type::INT2_VECTOR | Type::OID_VECTOR) && has_text(element),
        Kind::Composite(fields) => fields.iter().all(|field| has_text(field.type_())),
        Kind::Range(bound) | Kind::Multirange(bound) => has_text(bound),
        // The exceptions pass, to be refused by name.
        _ => Scalar::of(type_).is_some() || exception(type_).is_some(),
    }
}

/// Why a type is an exception; what follows "it is not carried: ".
fn exception(type_: &Type) -> Option<&'static str> {
    Some(match *type_ {
        Type::ACLITEM | Type::GTS_VECTOR => "PostgreSQL has no binary form of it",
        Type::MONEY => "its text depends on the server's lc_monetary, which the binary form does not say",
        Type::REGPROC
        | Type::REGPROCEDURE
        | Type::REGOPER
        | Type::REGOPERATOR
        | Type::REGCLASS
        | Type::REGTYPE
        | Type::REGCONFIG
        | Type::REGDICTIONARY
        | Type::REGROLE
        | Type::REGNAMESPACE
        | Type::REGCOLLATION => "its binary form is an OID, not the name that the OID stands for",
        Type::RECORD | Type::RECORD_ARRAY | Type::ANYARRAY => return None,
        // Pseudo-types without values, and what the catalogue says has no send function.
        _ if *type_.kind() == Kind::Pseudo => "PostgreSQL has no binary form of it",
        _ => return None,
    })
}

/// Whether a base type is one whose values are understood: built in, or of an extension that is known by its name.
#[must_use]
pub fn knows(type_: &Type) -> bool {
    type_.oid() < FIRST_USER_OID || Scalar::of(type_).is_some()
}

/// Whether a type is neither so deep nor so wide that to walk through its parts would cost too much. A type that is not
/// is refused as a result; as a parameter it takes its text.
#[must_use]
pub fn is_bounded(type_: &Type) -> bool {
    fn walk(type_: &Type, depth: usize, parts: &mut usize) -> bool {
        *parts += 1;
        if depth > DEPTH_MAX || *parts > PARTS_MAX {
            return false;
        }
        match type_.kind() {
            Kind::Array(part) | Kind::Domain(part) | Kind::Range(part) | Kind::Multirange(part) => {
                walk(part, depth + 1, parts)
            }
            Kind::Composite(fields) => fields.iter().all(|field| walk(field.type_(), depth + 1, parts)),
            _ => true,
        }
    }
    walk(type_, 1, &mut 0)
}

/// The type below any domains: PostgreSQL sends and receives a domain's values as its base type's.
pub(super) fn base(mut type_: &Type) -> &Type {
    while let Kind::Domain(below) = type_.kind() {
        type_ = below;
    }
    type_
}

/// A type's name for messages: `int4[]` rather than the catalogue's `_int4`.
pub(super) fn display_name(type_: &Type) -> String {
    match type_.kind() {
        Kind::Array(element) if type_.name().starts_with('_') => format!("{}[]", element.name()),
        _ => type_.name().to_owned(),
    }
}
