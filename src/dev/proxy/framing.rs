//! Where PostgreSQL's protocol messages begin in the bytes of one connection. Plain connections only: behind TLS there is
//! nothing to see.

use super::Direction;

/// The first messages of a client have no type: a start-up, or a request for encryption, which is answered by one byte.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Follows the messages of one connection both ways.
#[derive(Debug, Default)]
pub(super) struct Framing {
    to_server: Frames,
    to_client: Frames,
}

#[derive(Debug)]
struct Frames {
    /// What of the next message's head has arrived.
    head: Vec<u8>,
    /// Bytes of the present message still to come.
    left: usize,
    /// Whether messages have no type: a client's before its start-up.
    untyped: bool,
    /// Answers of one byte still to come.
    bytes: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { head: Vec::new(), left: 0, untyped: true, bytes: 0 }
    }
}

impl Framing {
    /// The offsets in the next chunk at which messages begin.
    pub(super) fn starts(&mut self, direction: Direction, chunk: &[u8]) -> Vec<usize> {
        let (frames, from_client) = match direction {
            Direction::ToServer => (&mut self.to_server, true),
            Direction::ToClient => (&mut self.to_client, false),
        };
        let (mut starts, mut encryptions, mut at) = (Vec::new(), 0, 0);
        while at < chunk.len() {
            if frames.left > 0 {
                let step = frames.left.min(chunk.len() - at);
                frames.left -= step;
                at += step;
                continue;
            }
            if frames.head.is_empty() {
                starts.push(at);
            }
            if !from_client && frames.bytes > 0 {
                frames.bytes -= 1;
                at += 1;
                continue;
            }
            frames.head.push(chunk[at]);
            at += 1;
            encryptions += frames.end_of_head(from_client);
        }
        self.to_client.bytes += encryptions;
        starts
    }
}

impl Frames {
    /// Once the head is complete, what it says of the rest; 1 if it asks for encryption.
    fn end_of_head(&mut self, from_client: bool) -> usize {
        let untyped = from_client && self.untyped;
        // A type and a length; without a type the length and a code.
        let needed = if untyped { 8 } else { 5 };
        if self.head.len() < needed {
            return 0;
        }
        let number =
            |at: usize| self.head[at..at + 4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let (length, code) = if untyped { (number(0), number(4)) } else { (number(1), 0) };
        let asks_for_encryption = untyped && matches!(code, SSL_REQUEST | GSS_REQUEST);
        self.untyped = asks_for_encryption;
        // The length counts itself, and not the type.
        self.left = (length as usize).saturating_sub(if untyped { 8 } else { 4 });
        self.head.clear();
        usize::from(asks_for_encryption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 8).expect("short").to_be_bytes();
        [&length[..], &code.to_be_bytes(), body].concat()
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let client = [
            untyped(SSL_REQUEST, b""),
            untyped(196_608, b"user\0me\0\0"),
            message(b'p', b"secret\0"),
            message(b'S', b""),
            message(b'X', b""),
        ];
        let server = [b"N".to_vec(), message(b'R', &[0; 4]), message(b'Z', b"I")];
        for size in [1, 2, 3, 7, 1000] {
            let mut framing = Framing::default();
            for (direction, messages) in [(Direction::ToServer, &client[..]), (Direction::ToClient, &server[..])] {
                let expected: Vec<usize> =
                    (0..messages.len()).map(|n| messages[..n].iter().map(Vec::len).sum()).collect();
                let mut found = Vec::new();
                for (n, chunk) in messages.concat().chunks(size).enumerate() {
                    found.extend(framing.starts(direction, chunk).into_iter().map(|at| n * size + at));
                }
                assert_eq!(found, expected, "{direction:?} in chunks of {size}");
            }
        }
    }
}
