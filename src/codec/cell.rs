//! One value that is neither an array nor a row, as the kind in which it travels: what columns and nested values share.

use super::{
    read::{self, Stop},
    scalar::{Form, Scalar},
    text::{self, Text},
};

/// A value of its natural kind; text and bytes are borrowed where PostgreSQL's bytes hold them as they travel.
pub(super) enum Cell<'a> {
    /// `bool`.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// `float4` and `float8`.
    Double(f64),
    /// Text, and whatever travels as text.
    Text(&'a str),
    /// `bytea`, and the binary form of a type that the broker does not know.
    Bytes(&'a [u8]),
}

/// Reads a value. What has to be put into text first is written into `scratch`, as far as there is `room` for it.
pub(super) fn read<'a>(form: &Form, raw: &'a [u8], room: usize, scratch: &'a mut Text) -> Result<Cell<'a>, Stop> {
    Ok(match form {
        Form::Scalar(Scalar::Bool) => Cell::Bool(read::bool(raw)?),
        Form::Scalar(Scalar::Int2) => Cell::Int(i16::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Int4) => Cell::Int(i32::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Int8) => Cell::Int(i64::from_be_bytes(read::whole(raw)?)),
        Form::Scalar(Scalar::Uint4) => Cell::Int(u32::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Float4) => Cell::Double(f32::from_be_bytes(read::whole(raw)?).into()),
        Form::Scalar(Scalar::Float8) => Cell::Double(f64::from_be_bytes(read::whole(raw)?)),
        Form::Scalar(Scalar::Bytea) | Form::Raw => Cell::Bytes(raw),
        // Text already: one copy less.
        Form::Scalar(Scalar::Utf8 | Scalar::Padded) => Cell::Text(read::utf8(raw)?),
        Form::Scalar(Scalar::Versioned) if raw.first() == Some(&1) => {
            Cell::Text(read::utf8(raw.get(1..).unwrap_or(&[]))?)
        }
        form => {
            scratch.restart(room);
            text::write(form, raw, scratch)?;
            Cell::Text(scratch.as_str())
        }
    })
}
