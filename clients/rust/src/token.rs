//! What position tokens say, read so that a few of them stand for many. Only brokers make tokens and vouch for them; what
//! cannot be read here is kept as it is.
//!
//! The form (version 1): base64url without padding of: version (1 byte), positions one after another, a MAC (16 bytes). A
//! position is: flags (1: bit 0 primary-only), system identifier (8), timeline (4), LSN (8), milliseconds since 1970 (8),
//! with bit 0 since when (8), the cluster name's length (1) and name; numbers are big-endian.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const PRIMARY_ONLY: u8 = 1;

/// One thing that a position asks for: on which cluster (its name and system identifier), and which of three.
type Demand = (Vec<u8>, u64, Asked);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    /// To have replayed up to an LSN of a timeline.
    Point,
    /// To do so for a while from that time on.
    Written,
    /// The primary for a while from that time on.
    PrimaryOnly,
}

/// How much of it: more is higher.
type Measure = (u64, u64);

/// Leaves of `tokens` those that together ask for as much as all. A broker merges tokens by taking the highest of each
/// demand, so those that have these are enough: three at most for each cluster, usually one in all. Of equals the newest
/// stays: the one furthest behind in the list.
pub(crate) fn keep_needed(tokens: &mut Vec<String>) {
    if tokens.len() < 2 {
        return;
    }
    let read: Vec<_> = tokens.iter().map(|token| demands(token)).collect();
    let mut highest = HashMap::<&Demand, Measure>::new();
    for (demand, measure) in read.iter().flatten().flatten() {
        let known = highest.entry(demand).or_insert(*measure);
        *known = (*known).max(*measure);
    }
    let mut needed: Vec<bool> = read.iter().map(Option::is_none).collect();
    // Whoever has most of what is still asked for, again and again: each round answers one demand or more.
    while !highest.is_empty() {
        let answers = |(demand, measure): &&(Demand, Measure)| highest.get(demand) == Some(measure);
        let count = |demands: &Option<Vec<_>>| demands.iter().flatten().filter(answers).count();
        let Some(best) = (0..read.len()).max_by_key(|&index| count(&read[index])) else { break };
        needed[best] = true;
        for (demand, measure) in read[best].iter().flatten() {
            if highest.get(demand) == Some(measure) {
                highest.remove(demand);
            }
        }
    }
    let mut needed = needed.into_iter();
    tokens.retain(|_| needed.next().unwrap_or(true));
}

/// What a token asks for; `None` if it cannot be read.
fn demands(token: &str) -> Option<Vec<(Demand, Measure)>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (payload, _) = bytes.split_last_chunk::<MAC_BYTES>()?;
    let (&version, mut rest) = payload.split_first()?;
    if version != VERSION {
        return None;
    }
    let mut demands = Vec::new();
    while !rest.is_empty() {
        rest = read_position(rest, &mut demands)?;
    }
    Some(demands)
}

/// Reads one position; what is left behind it.
fn read_position<'a>(bytes: &'a [u8], demands: &mut Vec<(Demand, Measure)>) -> Option<&'a [u8]> {
    let (&flags, bytes) = bytes.split_first()?;
    let (system_identifier, bytes) = number(bytes)?;
    let (timeline, bytes) = bytes.split_first_chunk()?;
    let (lsn, bytes) = number(bytes)?;
    let (written, bytes) = number(bytes)?;
    let (primary_only, bytes) = match flags {
        0 => (None, bytes),
        PRIMARY_ONLY => number(bytes).map(|(since, bytes)| (Some(since), bytes))?,
        _ => return None,
    };
    let (&length, bytes) = bytes.split_first()?;
    let (name, bytes) = bytes.split_at_checked(length.into())?;
    let mut ask = |asked, measure| demands.push(((name.to_vec(), system_identifier, asked), measure));
    ask(Asked::Point, (u32::from_be_bytes(*timeline).into(), lsn));
    ask(Asked::Written, (written, 0));
    if let Some(since) = primary_only {
        ask(Asked::PrimaryOnly, (since, 0));
    }
    Some(bytes)
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, bytes) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), bytes))
}

/// Tokens of positions, signed by nobody.
#[cfg(test)]
pub(crate) mod test_support {
    use super::*;

    /// On cluster `name` with system identifier 7: timeline, LSN, time, and since when primary-only.
    pub(crate) fn token(positions: &[(&str, u32, u64, u64, Option<u64>)]) -> String {
        let mut bytes = vec![VERSION];
        for (name, timeline, lsn, written, primary_only) in positions {
            bytes.push(if primary_only.is_some() { PRIMARY_ONLY } else { 0 });
            bytes.extend_from_slice(&7_u64.to_be_bytes());
            bytes.extend_from_slice(&timeline.to_be_bytes());
            [Some(*lsn), Some(*written), *primary_only]
                .into_iter()
                .flatten()
                .for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
            bytes.push(name.len() as u8);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(&[0; MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{test_support::token, *};

    fn kept(tokens: &[&str]) -> Vec<String> {
        let mut tokens = tokens.iter().map(|&token| token.to_owned()).collect();
        keep_needed(&mut tokens);
        tokens
    }

    #[test]
    fn the_form_is_the_brokers() {
        // As the broker's own tests have it: flag, system identifier 7, timeline 2, 16/B374D848, "main".
        let text = "AQEAAAAAAAAABwAAAAIAAAAWs3TYSAAAAYvP5WgAAAABi8_laAAEbWFpbkRk3GmMZVkovmUlDrkwxCQ";
        let demand = |asked| (b"main".to_vec(), 7, asked);
        let expected = vec![
            (demand(Asked::Point), (2, 0x16_B374_D848)),
            (demand(Asked::Written), (1_700_000_000_000, 0)),
            (demand(Asked::PrimaryOnly), (1_700_000_000_000, 0)),
        ];
        assert_eq!(demands(text), Some(expected));
    }

    #[test]
    fn what_others_ask_for_as_well_is_dropped_and_nothing_else() {
        let at = |timeline, lsn, written| token(&[("main", timeline, lsn, written, None)]);
        let (low, high) = (at(1, 10, 5), at(1, 20, 5));
        for both in [[&*low, &*high], [&*high, &*low], [&*high, &*high]] {
            assert_eq!(kept(&both), std::slice::from_ref(&high));
        }
        // A newer timeline counts above any LSN of an older one; a later time binds for longer.
        let newer = at(2, 1, 5);
        assert_eq!(kept(&[&low, &newer, &high]), [newer]);
        let later = at(1, 10, 6);
        assert_eq!(kept(&[&later, &low, &high]), [later, high.clone()]);
        let primary_only = token(&[("main", 1, 0, 5, Some(4))]);
        assert_eq!(kept(&[&primary_only, &low, &high]), [primary_only.clone(), high.clone()]);
        // Clusters have nothing to do with each other.
        let (other, both) =
            (token(&[("own", 1, 1, 1, None)]), token(&[("main", 1, 1, 1, None), ("own", 1, 2, 1, None)]));
        assert_eq!(kept(&[&other, &low]), [other.clone(), low]);
        assert_eq!(kept(&[&other, &both, &high]), [both, high]);
    }

    #[test]
    fn what_cannot_be_read_is_kept() {
        let high = token(&[("main", 9, 9, 9, None)]);
        let cut = &high[..high.len() - 4];
        for other in ["", "a token", "AgEA", cut] {
            assert_eq!(kept(&[other, &high, other]), [other.to_owned(), high.clone(), other.to_owned()]);
        }
    }
}
