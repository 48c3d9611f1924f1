//! The text form of the extension `hstore`, after `hstore_send` and `hstore_out` of its hstore_io.c.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
};

/// Appends pairs in their stored order, such as `"a"=>"1", "b"=>NULL`.
pub(super) fn write(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let count = i32::from_be_bytes(read::take(&mut raw)?);
    if count < 0 {
        return Err(Malformed("its number of pairs is negative"));
    }
    for at in 0..count {
        if at > 0 {
            out.push_str(", ");
        }
        push_quoted(take_text(&mut raw)?.ok_or(Malformed("a key is NULL"))?, out);
        out.push_str("=>");
        match take_text(&mut raw)? {
            Some(value) => push_quoted(value, out),
            None => out.push_str("NULL"),
        }
    }
    read::end(raw)
}

fn take_text<'a>(raw: &mut &'a [u8]) -> Result<Option<&'a str>, Malformed> {
    let length = i32::from_be_bytes(read::take(raw)?);
    match usize::try_from(length) {
        Ok(length) => read::utf8(read::take_slice(raw, length)?).map(Some),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(Malformed("the length of a key or a value is out of range")),
    }
}

fn push_quoted(text: &str, out: &mut Text) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}
