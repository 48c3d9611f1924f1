//! Owns position tokens: their signed form and how several become one. What a position requires is the model's.
//!
//! A token is base64url without padding of: version (1 byte), the positions one after another, a MAC (16 bytes). A
//! position is: flags (1: bit 0 primary-only), system identifier (8), timeline (4), LSN (8), milliseconds since 1970
//! (8), the cluster name's length (1) and name; numbers are big-endian.

use crate::model::{Lsn, Timeline};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// A token holds at most this many positions.
pub const TOKEN_POSITIONS_MAX: usize = 16;

/// A longer text is no token of ours: 16 positions with names of 255 bytes fit.
pub const TOKEN_CHARS_MAX: usize =
    (1 + TOKEN_POSITIONS_MAX * (FIXED_BYTES + u8::MAX as usize) + MAC_BYTES).div_ceil(3) * 4;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const FIXED_BYTES: usize = 1 + 8 + 4 + 8 + 8 + 8 + 1;
const PRIMARY_ONLY: u8 = 1;
const KEY_DOMAIN: &[u8] = b"tidegate position token key\0";
const MAC_DOMAIN: &[u8] = b"tidegate position token\0";

/// What the bearer of a token must see on one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPosition {
    /// The cluster's configured name, at most 255 bytes.
    pub cluster: String,
    /// PostgreSQL's `system_identifier`.
    pub system_identifier: u64,
    /// The timeline.
    pub timeline: Timeline,
    /// The position on it.
    pub lsn: Lsn,
    /// When it was written, in milliseconds since 1970 by its broker's clock.
    pub written_unix_ms: u64,
    /// Since when only the primary will do (for a stick timeout from then; milliseconds since 1970), because a write's
    /// outcome or position is unknown. A time of its own: later writes do not renew it.
    pub primary_only_unix_ms: Option<u64>,
}

/// A deployment's key for tokens. Brokers that share its secret accept each other's tokens.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(redacted)")
    }
}

/// Why a text is not a token to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token of ours.
    #[error("the position token is longer than {TOKEN_CHARS_MAX} characters")]
    TooLong,
    /// Not a token's form.
    #[error("the position token is malformed")]
    Malformed,
    /// Its signature is not of this deployment, or it was changed.
    #[error("the position token was not signed by this deployment")]
    Foreign,
    /// A later broker's form.
    #[error("the position token has an unknown version")]
    UnknownVersion,
}

impl TokenKey {
    /// The key of a deployment's secret, of any length.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        // Through a hash of its own domain: the same secret used elsewhere gives another key.
        let digest = Sha256::new().chain_update(KEY_DOMAIN).chain_update(secret).finalize();
        // HMAC pads a shorter key to its block with zeros; done here, a key of the right length cannot be refused.
        let mut block = [0; 64];
        block[..digest.len()].copy_from_slice(&digest);
        Self(Hmac::new(&block.into()))
    }

    /// The token of `positions`: empty for none. Of more than 16, those written last are kept. A position whose
    /// cluster's name is over 255 bytes is left out (a configuration admits none).
    #[must_use]
    pub fn sign(&self, positions: &[TokenPosition]) -> String {
        let mut kept: Vec<_> = positions.iter().filter(|p| p.cluster.len() <= usize::from(u8::MAX)).collect();
        kept.sort_by_key(|p| std::cmp::Reverse(p.written_unix_ms));
        kept.truncate(TOKEN_POSITIONS_MAX);
        if kept.is_empty() {
            return String::new();
        }
        let mut bytes = vec![VERSION];
        for position in kept {
            position.encode(&mut bytes);
        }
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The positions of a token; none for the empty text.
    ///
    /// # Errors
    /// For everything that [`TokenKey::sign`] did not make with this key.
    pub fn verify(&self, token: &str) -> Result<Vec<TokenPosition>, TokenError> {
        if token.is_empty() {
            return Ok(Vec::new());
        }
        if token.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenError::Malformed)?;
        let (payload, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(TokenError::Malformed)?;
        let (version, mut rest) = payload.split_first().ok_or(TokenError::Malformed)?;
        if *version != VERSION {
            return Err(TokenError::UnknownVersion);
        }
        // In constant time.
        self.mac(payload).verify_truncated_left(mac).map_err(|_| TokenError::Foreign)?;
        let mut positions = Vec::new();
        while !rest.is_empty() && positions.len() < TOKEN_POSITIONS_MAX {
            let (position, behind) = TokenPosition::decode(rest).ok_or(TokenError::Malformed)?;
            positions.push(position);
            rest = behind;
        }
        if rest.is_empty() { Ok(positions) } else { Err(TokenError::Malformed) }
    }

    fn mac(&self, payload: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(MAC_DOMAIN).chain_update(payload)
    }
}

impl TokenPosition {
    /// Appends itself. The name is at most 255 bytes: `sign` saw to it.
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(if self.primary_only_unix_ms.is_some() { PRIMARY_ONLY } else { 0 });
        bytes.extend_from_slice(&self.system_identifier.to_be_bytes());
        bytes.extend_from_slice(&self.timeline.get().to_be_bytes());
        bytes.extend_from_slice(&self.lsn.get().to_be_bytes());
        bytes.extend_from_slice(&self.written_unix_ms.to_be_bytes());
        if let Some(since) = self.primary_only_unix_ms {
            bytes.extend_from_slice(&since.to_be_bytes());
        }
        bytes.push(self.cluster.len() as u8);
        bytes.extend_from_slice(self.cluster.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[flags], bytes) = bytes.split_first_chunk()?;
        let (system_identifier, bytes) = bytes.split_first_chunk()?;
        let (timeline, bytes) = bytes.split_first_chunk()?;
        let (lsn, bytes) = bytes.split_first_chunk()?;
        let (written_unix_ms, mut bytes) = bytes.split_first_chunk()?;
        let mut primary_only_unix_ms = None;
        if flags & PRIMARY_ONLY != 0 {
            let (since, behind) = bytes.split_first_chunk()?;
            primary_only_unix_ms = Some(u64::from_be_bytes(*since));
            bytes = behind;
        }
        let (&[name_bytes], bytes) = bytes.split_first_chunk()?;
        let (name, bytes) = bytes.split_at_checked(name_bytes.into())?;
        let position = Self {
            cluster: str::from_utf8(name).ok()?.to_owned(),
            system_identifier: u64::from_be_bytes(*system_identifier),
            timeline: Timeline::new(u32::from_be_bytes(*timeline))?,
            lsn: Lsn::new(u64::from_be_bytes(*lsn)),
            written_unix_ms: u64::from_be_bytes(*written_unix_ms),
            primary_only_unix_ms,
        };
        Some((position, bytes))
    }

    /// Takes in what `other`, of the same cluster and system identifier, requires: the newer timeline's higher position
    /// (a lower one of an older timeline adds nothing: the newer began at or above what survived of it), the later
    /// time, and primary-only since the later of both.
    fn absorb(&mut self, other: &Self) {
        (self.timeline, self.lsn) = (self.timeline, self.lsn).max((other.timeline, other.lsn));
        self.written_unix_ms = self.written_unix_ms.max(other.written_unix_ms);
        self.primary_only_unix_ms = self.primary_only_unix_ms.max(other.primary_only_unix_ms);
    }
}

/// One position for each cluster and system identifier that `lists` name: what requires as much as all of them
/// together. In order of the clusters' names.
pub fn merge(lists: impl IntoIterator<Item = Vec<TokenPosition>>) -> Vec<TokenPosition> {
    let mut merged = BTreeMap::<_, TokenPosition>::new();
    for position in lists.into_iter().flatten() {
        merged
            .entry((position.cluster.clone(), position.system_identifier))
            .and_modify(|known| known.absorb(&position))
            .or_insert(position);
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> TokenKey {
        TokenKey::from_secret(b"a secret")
    }

    fn position(cluster: &str, timeline: u32, lsn: u64, written_unix_ms: u64, primary_only: bool) -> TokenPosition {
        let primary_only_unix_ms = primary_only.then_some(written_unix_ms);
        TokenPosition {
            cluster: cluster.to_owned(),
            system_identifier: 7,
            timeline: Timeline::new(timeline).unwrap(),
            lsn: Lsn::new(lsn),
            written_unix_ms,
            primary_only_unix_ms,
        }
    }

    fn any_position() -> impl Strategy<Value = TokenPosition> {
        (".{0,20}", any::<u64>(), 1u32.., any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
            |(cluster, system_identifier, timeline, lsn, written, primary_only)| TokenPosition {
                system_identifier,
                ..position(&cluster, timeline, lsn, written, primary_only)
            },
        )
    }

    #[test]
    fn the_form_stays_what_callers_hold() {
        let token = key().sign(&[position("main", 2, 0x16_B374_D848, 1_700_000_000_000, true)]);
        assert_eq!(token, "AQEAAAAAAAAABwAAAAIAAAAWs3TYSAAAAYvP5WgAAAABi8_laAAEbWFpbkRk3GmMZVkovmUlDrkwxCQ");
    }

    #[test]
    fn no_positions_no_token() {
        assert_eq!(key().sign(&[]), "");
        assert_eq!(key().verify(""), Ok(vec![]));
        assert_eq!(key().sign(&[position(&"x".repeat(256), 1, 1, 1, false)]), "");
    }

    #[test]
    fn the_sixteen_written_last_are_kept_and_fit() {
        let name = "ü".repeat(127);
        let many: Vec<_> = (0..20).map(|n| position(&name, 1, n, n, false)).collect();
        let token = key().sign(&many);
        let lsns: Vec<_> = key().verify(&token).unwrap().iter().map(|p| p.lsn.get()).collect();
        assert_eq!(lsns, (4..20).rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_ours_is_named() {
        let token = key().sign(&[position("main", 1, 1, 1, false)]);
        assert_eq!(TokenKey::from_secret(b"another").verify(&token), Err(TokenError::Foreign));
        assert_eq!(key().verify(&"A".repeat(TOKEN_CHARS_MAX + 1)), Err(TokenError::TooLong));
        for malformed in ["A", "AQ==", "not a token", "AQAA", "é"] {
            assert_eq!(key().verify(malformed), Err(TokenError::Malformed), "{malformed}");
        }
        let later = URL_SAFE_NO_PAD.encode([2; 40]);
        assert_eq!(key().verify(&later), Err(TokenError::UnknownVersion));
        assert_eq!(format!("{:?}", key()), "TokenKey(redacted)");
    }

    #[test]
    fn merging_keeps_what_requires_most() {
        let merged = merge([
            vec![position("a", 1, 900, 50, false), position("b", 1, 5, 5, false)],
            vec![position("a", 2, 700, 10, true)],
            vec![position("a", 2, 600, 20, false)],
        ]);
        // The mark keeps its own time.
        let marked = TokenPosition { primary_only_unix_ms: Some(10), ..position("a", 2, 700, 50, false) };
        assert_eq!(merged, [marked, position("b", 1, 5, 5, false)]);
        let other = TokenPosition { system_identifier: 8, ..position("a", 1, 1, 1, false) };
        assert_eq!(merge([merged.clone(), vec![other]]).len(), 3);
        assert_eq!(merge([]), []);
    }

    proptest! {
        #[test]
        fn tokens_round_trip(positions in prop::collection::vec(any_position(), 1..=16), secret: Vec<u8>) {
            let key = TokenKey::from_secret(&secret);
            let mut expected = positions.clone();
            expected.sort_by_key(|p| std::cmp::Reverse(p.written_unix_ms));
            prop_assert_eq!(key.verify(&key.sign(&positions)), Ok(expected));
        }

        #[test]
        fn any_flipped_bit_is_refused(positions in prop::collection::vec(any_position(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
            let token = key().sign(&positions);
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
            let i = at.index(bytes.len());
            bytes[i] ^= 1 << bit;
            prop_assert!(key().verify(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
            let mut text = token.into_bytes();
            let i = at.index(text.len());
            text[i] ^= 1 << (bit % 7);
            prop_assert!(key().verify(str::from_utf8(&text).unwrap()).is_err());
        }

        #[test]
        fn nothing_panics(text: String, bytes: Vec<u8>, cut: prop::sample::Index) {
            prop_assert!(text.is_empty() || key().verify(&text).is_err());
            let _ = key().verify(&URL_SAFE_NO_PAD.encode(&bytes));
            let _ = TokenPosition::decode(&bytes);
            // Signed but senseless, as a later form might be.
            let mut signed = [&[VERSION], &bytes[..]].concat();
            let mac = key().mac(&signed).finalize().into_bytes();
            signed.extend_from_slice(&mac[..MAC_BYTES]);
            let _ = key().verify(&URL_SAFE_NO_PAD.encode(&signed));
            let token = key().sign(&[position("main", 1, 1, 1, false)]);
            let cut = cut.index(token.len());
            prop_assert!(cut == 0 || key().verify(&token[..cut]).is_err());
        }

        #[test]
        fn a_merge_requires_no_less_than_its_parts(lists in prop::collection::vec(
            prop::collection::vec((0u8..3, 1u32..4, 0u64..9, 0u64..9, any::<bool>()), 0..5), 0..4,
        )) {
            let lists: Vec<Vec<_>> = lists.into_iter()
                .map(|list| list.into_iter().map(|(c, t, l, w, p)| position(&c.to_string(), t, l, w, p)).collect())
                .collect();
            let merged = merge(lists.clone());
            for part in lists.iter().flatten() {
                let whole: Vec<_> = merged.iter().filter(|m| m.cluster == part.cluster).collect();
                prop_assert_eq!(whole.len(), 1);
                prop_assert!((whole[0].timeline, whole[0].lsn) >= (part.timeline, part.lsn));
                prop_assert!(whole[0].written_unix_ms >= part.written_unix_ms);
                prop_assert!(whole[0].primary_only_unix_ms >= part.primary_only_unix_ms);
            }
            prop_assert_eq!(merge([merged.clone()]), merged);
        }
    }
}
