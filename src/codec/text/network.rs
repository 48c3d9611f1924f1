//! The text forms of network and hardware addresses, after `network_out`, `network_show` of PostgreSQL's network.c and
//! `pg_inet_net_ntop` of its inet_net_ntop.c.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    push_hex, push_number,
};

/// `PGSQL_AF_INET` and `PGSQL_AF_INET6`.
const FAMILY_4: u8 = 2;
const FAMILY_6: u8 = 3;

/// When an address is followed by the length of its network mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    /// As a cast to text has it.
    Always,
    /// As the output function has it: an `inet` of a single host goes without.
    UnlessHost,
}

/// Appends an `inet` or a `cidr`.
pub(super) fn address(mut raw: &[u8], mask: Mask, out: &mut Text) -> Result<(), Malformed> {
    let [family, bits, is_cidr, length] = read::take(&mut raw)?;
    let bits_max = match (family, length) {
        (FAMILY_4, 4) => {
            push_four(read::whole(raw)?, out);
            32
        }
        (FAMILY_6, 16) => {
            push_six(read::whole(raw)?, out);
            128
        }
        _ => return Err(Malformed("it has an unknown address family or length")),
    };
    if bits > bits_max {
        return Err(Malformed("its network mask is longer than the address"));
    }
    if mask == Mask::Always || is_cidr != 0 || bits != bits_max {
        out.push('/');
        push_number(bits.into(), 1, out);
    }
    Ok(())
}

fn push_four(bytes: [u8; 4], out: &mut Text) {
    for (at, byte) in bytes.into_iter().enumerate() {
        if at > 0 {
            out.push('.');
        }
        push_number(byte.into(), 1, out);
    }
}

/// The first of the longest runs of zeros is `::`; what may be an IPv4 address within IPv6 is written as one.
fn push_six(bytes: [u8; 16], out: &mut Text) {
    let (pairs, _) = bytes.as_chunks::<2>();
    let words: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    let (start, length) = longest_zeros(&words);
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let holds_four = start == 0 && (length == 6 || (length == 7 && word(7) != 1) || (length == 5 && word(5) == 0xFFFF));
    let shown = if holds_four { 6 } else { 8 };
    let mut at = 0;
    while at < shown {
        if length > 0 && at == start {
            out.push_str("::");
            at += length;
            continue;
        }
        if at > 0 && at != start + length {
            out.push(':');
        }
        out.push_str(&format!("{:x}", word(at)));
        at += 1;
    }
    if holds_four {
        if length == 5 {
            out.push(':');
        }
        let [.., a, b, c, d] = bytes;
        push_four([a, b, c, d], out);
    }
}

/// Where the first of the longest runs of two zero words or more begins, and its length; length 0 if there is none.
fn longest_zeros(words: &[u16]) -> (usize, usize) {
    let mut best = (words.len(), 0);
    let mut at = 0;
    while at < words.len() {
        let length = words.iter().skip(at).take_while(|word| **word == 0).count();
        if length > best.1 && length > 1 {
            best = (at, length);
        }
        at += length.max(1);
    }
    best
}

/// Appends a `macaddr` or a `macaddr8` (mac.c, mac8.c): bytes in hexadecimal, colons between.
pub(super) fn hardware(raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    if !matches!(raw.len(), 6 | 8) {
        return Err(Malformed("it is neither 6 nor 8 bytes long"));
    }
    for (at, byte) in raw.iter().enumerate() {
        if at > 0 {
            out.push(':');
        }
        push_hex(*byte, out);
    }
    Ok(())
}
