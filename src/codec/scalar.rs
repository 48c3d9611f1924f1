//! Which PostgreSQL types are supported, and in which column kind each travels.

use postgres_types::{Kind, Type};

use crate::proto::ColumnKind;

/// A supported type that is not an array; types with the same binary format share one.
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
    /// `float4`, widened to a double, which holds each of its values exactly.
    Float4,
    /// `float8`.
    Float8,
    /// `bytea`.
    Bytea,
    /// The one-byte type `"char"`.
    Char,
    /// Types whose binary format is their text: `text`, `varchar`, `bpchar`, `name`, `json`, `unknown`.
    Utf8,
    /// `jsonb`.
    Jsonb,
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
}

impl Scalar {
    /// Recognises a built-in type; `None` for any other. A domain is its base type.
    pub(super) fn of(type_: &Type) -> Option<Self> {
        Some(match *base(type_) {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID | Type::XID | Type::CID => Self::Uint4,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::BYTEA => Self::Bytea,
            Type::CHAR => Self::Char,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN => Self::Utf8,
            Type::JSONB => Self::Jsonb,
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
            _ => return None,
        })
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
#[allow(dead_code, reason = "the forms that follow are recognised type by type")]
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

impl Form {
    /// The form of a type; `None` if it is not supported.
    pub(super) fn of(type_: &Type) -> Option<Self> {
        match base(type_).kind() {
            Kind::Array(element) => Some(Self::Array(Box::new(Self::of(element)?))),
            _ => Scalar::of(type_).map(Self::Scalar),
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
