//! Position tokens: only what the key signed is accepted, and what was signed comes back. Tokens are also made here a
//! second time, from the form's description alone, so that the two must agree.

use std::cmp::Reverse;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tidegate::{
    model::{Lsn, Timeline},
    position::{TOKEN_CHARS_MAX, TOKEN_POSITIONS_MAX, TokenError, TokenKey, TokenPosition},
};

use crate::input::Input;

/// The secret that the checks sign with.
pub const SECRET: &[u8] = b"a secret of the fuzz targets";
const VERSION: u8 = 1;

/// The first byte chooses the check.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() {
        b't' => forged(&String::from_utf8_lossy(input.0)),
        b's' => signed(input.0),
        b'p' => changed(input),
        _ => forged(&URL_SAFE_NO_PAD.encode(input.0)),
    }
}

fn key() -> TokenKey {
    TokenKey::from_secret(SECRET)
}

/// A text that nobody signed. (Should a forgery be found nevertheless, it must at least be one of ours.)
fn forged(text: &str) {
    let stranger = TokenKey::from_secret(b"another secret");
    match (key().verify(text), stranger.verify(text)) {
        (Ok(positions), Ok(_)) => assert!(text.is_empty() && positions.is_empty(), "two keys accept {text:?}"),
        (Ok(positions), Err(_)) => assert_eq!(key().sign(&positions), text, "accepted, but not what is signed"),
        (Err(_), Ok(_)) => panic!("a stranger's key accepts {text:?}"),
        (Err(error), Err(_)) if text.len() > TOKEN_CHARS_MAX => assert_eq!(error, TokenError::TooLong),
        (Err(_), Err(_)) => {}
    }
}

/// Bytes with the right MAC: the key is satisfied, the form may still be nonsense.
fn signed(payload: &[u8]) {
    let text = sign(payload);
    match key().verify(&text) {
        Ok(positions) => {
            assert!(payload.first() == Some(&VERSION) && positions.len() <= TOKEN_POSITIONS_MAX);
            let again = key().verify(&key().sign(&positions)).expect("what was just signed");
            assert_eq!(again, newest_first(positions));
        }
        Err(TokenError::UnknownVersion) => assert_ne!(payload.first(), Some(&VERSION)),
        Err(TokenError::TooLong) => assert!(text.len() > TOKEN_CHARS_MAX),
        Err(TokenError::Malformed) => {}
        Err(TokenError::Foreign) => panic!("its own MAC is refused"),
    }
}

/// Positions: signed, they come back; with anything changed, they do not.
fn changed(mut input: Input<'_>) {
    let change = (input.u8(), usize::from(input.u16()), input.u8());
    let mut positions = Vec::new();
    while !input.is_empty() && positions.len() < TOKEN_POSITIONS_MAX {
        positions.push(position(&mut input));
    }
    let token = key().sign(&positions);
    let positions = newest_first(positions);
    assert_eq!(token, sign_positions(&positions), "the form is not the described one");
    assert_eq!(key().verify(&token), Ok(positions));
    let mut text = token.clone().into_bytes();
    let at = change.1 % text.len().max(1);
    match change.0 % 5 {
        0 => text.truncate(at),
        1 => text.insert(at, change.2),
        2 if !text.is_empty() => drop(text.remove(at)),
        3 if !text.is_empty() => text[at] ^= change.2,
        _ => text.push(change.2),
    }
    if let Ok(text) = String::from_utf8(text)
        && text != token
        && !text.is_empty()
    {
        assert!(key().verify(&text).is_err(), "{token} was changed to {text}, which is accepted");
    }
}

/// A position, as the seeds write it too.
fn position(input: &mut Input<'_>) -> TokenPosition {
    let marked = input.u8() & 1 == 1;
    TokenPosition {
        system_identifier: input.u64(),
        timeline: Timeline::new(input.u32().max(1)).expect("above 0"),
        lsn: Lsn::new(input.u64()),
        written_unix_ms: input.u64(),
        primary_only_unix_ms: marked.then(|| input.u64()),
        cluster: {
            let mut name = input.text();
            // Bytes that are no UTF-8 grew to three each.
            name.truncate(name.floor_char_boundary(u8::MAX.into()));
            name
        },
    }
}

fn newest_first(mut positions: Vec<TokenPosition>) -> Vec<TokenPosition> {
    positions.sort_by_key(|position| Reverse(position.written_unix_ms));
    positions
}

/// The token of positions in this order.
fn sign_positions(positions: &[TokenPosition]) -> String {
    if positions.is_empty() {
        return String::new();
    }
    let mut payload = vec![VERSION];
    for position in positions {
        payload.push(position.primary_only_unix_ms.is_some().into());
        payload.extend(position.system_identifier.to_be_bytes());
        payload.extend(position.timeline.get().to_be_bytes());
        payload.extend(position.lsn.get().to_be_bytes());
        payload.extend(position.written_unix_ms.to_be_bytes());
        payload.extend(position.primary_only_unix_ms.iter().flat_map(|since| since.to_be_bytes()));
        payload.push(u8::try_from(position.cluster.len()).expect("a name of 255 bytes at most"));
        payload.extend(position.cluster.bytes());
    }
    sign(&payload)
}

/// The token of a payload.
pub fn sign(payload: &[u8]) -> String {
    let key = Sha256::new().chain_update(b"tidegate position token key\0").chain_update(SECRET).finalize();
    let mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
    let mac = mac.chain_update(b"tidegate position token\0").chain_update(payload).finalize().into_bytes();
    URL_SAFE_NO_PAD.encode([payload, &mac[..16]].concat())
}
