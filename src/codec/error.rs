//! Why a value or a result cannot be carried.

use thiserror::Error;

/// A parameter that does not fit, or a result that cannot be carried. Texts name types and places, never values.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodecError {
    /// A result column has a type that is not supported.
    #[error(
        "column {column} has the type {type_name} (OID {oid}), which is not supported: {why}; cast it in the SQL, as in {column}::text"
    )]
    UnsupportedType {
        /// The column: its name in quotes, or its number, from 1.
        column: String,
        /// The PostgreSQL type's name.
        type_name: String,
        /// The PostgreSQL type's OID.
        oid: u32,
        /// Why it cannot be carried.
        why: String,
    },
    /// A result cell's bytes are not what its type promises.
    #[error("column {column}: the server's bytes are not a valid {type_name}: {why}")]
    MalformedCell {
        /// The column's name, in quotes.
        column: String,
        /// The PostgreSQL type's name.
        type_name: String,
        /// What is wrong, and what may help.
        why: &'static str,
    },
    /// With this row the batch would be larger than it may become.
    #[error("the row takes {}{bytes} bytes, and there is room for {room}", if *.at_least { "at least " } else { "" })]
    RowTooLarge {
        /// What the batch would take with it; without other rows in the batch, what the row takes.
        bytes: usize,
        /// Whether it takes more than that: what is in no case to be passed on is not measured to its end.
        at_least: bool,
        /// What the batch may take.
        room: usize,
    },
    /// A row has another number of cells than the result has columns.
    #[error("a row has {given} cells, but the result has {expected} columns")]
    CellCount {
        /// The number of columns.
        expected: usize,
        /// The number of cells seen; counting stops at one too many.
        given: usize,
    },
    /// The statement takes another number of parameters.
    #[error("the statement takes {expected} parameters, but params has {given}; give one Value for each of $1, $2, …")]
    ParamCount {
        /// The number of parameters that PostgreSQL found in the statement.
        expected: usize,
        /// The number of values given.
        given: usize,
    },
    /// A `Value`, or a `Value` within its array or row, has no kind set.
    #[error("${index} holds a Value without a kind; set one, or null_value for NULL")]
    UnsetValue {
        /// The n of `$n`, from 1.
        index: usize,
    },
    /// A value does not fit the parameter's type.
    #[error("${index} has the PostgreSQL type {type_name} and is given as {given}: {why}")]
    ParamDoesNotFit {
        /// The n of `$n`, from 1.
        index: usize,
        /// The field of `Value` that is set.
        given: &'static str,
        /// The PostgreSQL type's name.
        type_name: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl CodecError {
    /// The request's field that is at fault, such as `statement.params[0]`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::UnsupportedType { .. }
            | Self::MalformedCell { .. }
            | Self::RowTooLarge { .. }
            | Self::CellCount { .. } => "statement.sql".to_owned(),
            Self::ParamCount { .. } => "statement.params".to_owned(),
            Self::UnsetValue { index } | Self::ParamDoesNotFit { index, .. } => {
                format!("statement.params[{}]", index.saturating_sub(1))
            }
        }
    }
}
