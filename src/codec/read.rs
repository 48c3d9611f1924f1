//! Takes big-endian numbers off a binary value, with an error where bytes are missing or left over.

/// The bytes are not a value of their type; says what is wrong. The caller adds column and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Why a value was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes are not such a value.
    Malformed(Malformed),
    /// It is larger than it may become.
    Full,
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Stop {
        Stop::Malformed(malformed)
    }
}

const TOO_SHORT: Malformed = Malformed("it ends too early");
const TOO_LONG: Malformed = Malformed("it has bytes left over");

/// Splits the first `N` bytes off, for `i32::from_be_bytes` and its like.
pub(super) fn take<const N: usize>(raw: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (first, rest) = raw.split_first_chunk::<N>().ok_or(TOO_SHORT)?;
    *raw = rest;
    Ok(*first)
}

/// Splits the first `length` bytes off.
pub(super) fn take_slice<'a>(raw: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (first, rest) = raw.split_at_checked(length).ok_or(TOO_SHORT)?;
    *raw = rest;
    Ok(first)
}

/// Takes a value that must be exactly `N` bytes long.
pub(super) fn whole<const N: usize>(mut raw: &[u8]) -> Result<[u8; N], Malformed> {
    let value = take(&mut raw)?;
    end(raw)?;
    Ok(value)
}

/// Checks that nothing is left.
pub(super) fn end(raw: &[u8]) -> Result<(), Malformed> {
    if raw.is_empty() { Ok(()) } else { Err(TOO_LONG) }
}

/// A `bool`: one byte, zero or not, as `boolrecv` takes it.
pub(super) fn bool(raw: &[u8]) -> Result<bool, Malformed> {
    let [byte] = whole(raw)?;
    Ok(byte != 0)
}

/// Text in UTF-8, which every server encoding but SQL_ASCII is converted to.
pub(super) fn utf8(raw: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(raw).map_err(|_| {
        Malformed("it is not UTF-8 (in a database in SQL_ASCII select its bytes: convert_to(…, 'SQL_ASCII'))")
    })
}
