//! The text forms of small fixed types: what PostgreSQL says of itself (WAL positions, rows' places, snapshots), the type
//! `"char"`, UUIDs and bit strings.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    push_hex, push_number,
};

/// `charout` of char.c: zero is empty, a byte above ASCII is a backslash and three octal digits.
pub(super) fn char(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    match read::whole(raw)? {
        [0] => {}
        [byte @ 0x80..=0xFF] => {
            out.push('\\');
            for shift in [6, 3, 0] {
                out.push(char::from(b'0' + ((byte >> shift) & 7)));
            }
        }
        [byte] => out.push(char::from(byte)),
    }
    Ok(())
}

/// `uuid_out` of uuid.c.
pub(super) fn uuid(bytes: [u8; 16], out: &mut Text) {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        push_hex(*byte, out);
    }
}

/// `bit_out` and `varbit_out` of varbit.c: one digit a bit, the highest first.
pub(super) fn bits(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let count = i32::from_be_bytes(read::take(&mut raw)?);
    let count = usize::try_from(count).ok().filter(|count| count.div_ceil(8) == raw.len());
    let count = count.ok_or(Malformed("its length does not match its number of bits"))?;
    let bits = raw.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
    out.extend(bits.take(count).map(|bit| if bit { '1' } else { '0' }));
    Ok(())
}

/// `pg_lsn_out` of pg_lsn.c: both halves in hexadecimal, without leading zeros.
pub(super) fn lsn(lsn: u64, out: &mut Text) {
    out.push_str(&format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF));
}

/// `tidout` of tid.c: a block and a row in it.
pub(super) fn tid(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    out.push('(');
    push_number(u32::from_be_bytes(read::take(&mut raw)?).into(), 1, out);
    out.push(',');
    push_number(u16::from_be_bytes(read::whole(raw)?).into(), 1, out);
    out.push(')');
    Ok(())
}

/// `pg_snapshot_out` of xid8funcs.c: the oldest running transaction, the first that has not begun, those running between.
pub(super) fn snapshot(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let count = i32::from_be_bytes(read::take(&mut raw)?);
    push_number(u64::from_be_bytes(read::take(&mut raw)?), 1, out);
    out.push(':');
    push_number(u64::from_be_bytes(read::take(&mut raw)?), 1, out);
    out.push(':');
    for at in 0..count {
        if at > 0 {
            out.push(',');
        }
        push_number(u64::from_be_bytes(read::take(&mut raw)?), 1, out);
    }
    read::end(raw)
}
