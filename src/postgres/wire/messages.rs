//! Follows the messages from a server, piece by piece as they come from its socket.

use std::sync::{Arc, atomic::Ordering};

use super::WireState;

/// Message types of PostgreSQL's protocol, version 3.
const COMMAND_COMPLETE: u8 = b'C';
const DATA_ROW: u8 = b'D';
const ERROR_RESPONSE: u8 = b'E';
const NOTICE_RESPONSE: u8 = b'N';
const NOTIFICATION_RESPONSE: u8 = b'A';
const PARAMETER_STATUS: u8 = b'S';
const READY_FOR_QUERY: u8 = b'Z';

/// Longer tags than `COPY 18446744073709551615` are of no interest.
const TAG_MAX: usize = 26;

/// A message has to be in memory as a whole, and tokio-postgres keeps what it allocated for the largest one until the
/// connection ends: with this, twice as many bytes at most.
const MESSAGE_MAX: u32 = 8 << 20;

/// Where in the stream of messages a byte stands.
#[derive(Debug)]
enum Place {
    /// Before a message.
    Type,
    /// In a message's length.
    Length { kind: u8, seen: u8, length: u32 },
    /// In a message's body, of which so much is left.
    Body { kind: u8, left: usize },
}

/// Follows the messages byte by byte, and decides which bytes go on.
#[derive(Debug)]
pub(super) struct Messages {
    place: Place,
    /// The last answer was a ReadyForQuery.
    is_ready: bool,
    /// The message under way is left out.
    left_out: bool,
    tag: Vec<u8>,
    /// What is seen of them.
    pub(super) state: Arc<WireState>,
}

impl Messages {
    /// The messages of a connection from its start.
    pub(super) fn new(state: Arc<WireState>) -> Messages {
        Messages { place: Place::Type, is_ready: false, left_out: false, tag: Vec::new(), state }
    }

    /// Reads on, and moves what stays to the front; answers how much that is.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let end = match &mut self.place {
                Place::Type => match bytes[at..] {
                    // What long results are made of, one after the other: nothing is noted of them.
                    [DATA_ROW, a, b, c, d, ..] => {
                        self.is_ready = false;
                        self.has_length(DATA_ROW, u32::from_be_bytes([a, b, c, d]));
                        at + 5
                    }
                    _ => {
                        let kind = bytes[at];
                        self.begin(kind);
                        at + 1
                    }
                },
                Place::Length { kind, seen, length } => {
                    *length = *length << 8 | u32::from(bytes[at]);
                    *seen += 1;
                    if *seen == 4 {
                        let (kind, length) = (*kind, *length);
                        self.has_length(kind, length);
                    }
                    at + 1
                }
                Place::Body { kind, left } => {
                    let part = (*left).min(bytes.len() - at);
                    *left -= part;
                    if *kind == COMMAND_COMPLETE && self.tag.len() < TAG_MAX {
                        self.tag.extend_from_slice(&bytes[at..at + part.min(TAG_MAX - self.tag.len())]);
                    }
                    if *left == 0 {
                        let ended = *kind;
                        self.place = Place::Type;
                        self.end(ended);
                    }
                    at + part
                }
            };
            if !self.left_out {
                if kept != at {
                    bytes.copy_within(at..end, kept);
                }
                kept += end - at;
            } else if matches!(self.place, Place::Type) {
                self.left_out = false;
            }
            at = end;
        }
        kept
    }

    fn begin(&mut self, kind: u8) {
        match kind {
            READY_FOR_QUERY => {
                self.state.readies.fetch_add(1, Ordering::AcqRel);
                self.left_out = std::mem::replace(&mut self.is_ready, true);
            }
            // Said without being asked, at any moment.
            NOTICE_RESPONSE | NOTIFICATION_RESPONSE | PARAMETER_STATUS => {}
            _ => self.is_ready = false,
        }
        if kind == ERROR_RESPONSE {
            self.state.saw_error();
        }
        self.tag.clear();
        self.place = Place::Length { kind, seen: 0, length: 0 };
    }

    fn has_length(&mut self, kind: u8, length: u32) {
        if length > MESSAGE_MAX {
            self.state.bloated.store(true, Ordering::Relaxed);
        }
        // It counts itself.
        let left = (length as usize).saturating_sub(4);
        self.place = if left == 0 { Place::Type } else { Place::Body { kind, left } };
    }

    fn end(&mut self, kind: u8) {
        if kind == COMMAND_COMPLETE {
            let text = self.tag.strip_suffix(&[0]).unwrap_or(&self.tag);
            self.state.saw_tag(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a short message");
        [&[kind], length.to_be_bytes().as_slice(), body].concat()
    }

    /// What goes on when the stream comes in pieces of this size.
    fn passed(stream: &[u8], piece: usize) -> (Vec<u8>, Arc<WireState>) {
        let state = Arc::new(WireState::default());
        let mut messages = Messages::new(Arc::clone(&state));
        let mut out = Vec::new();
        for piece in stream.chunks(piece) {
            let mut piece = piece.to_vec();
            let kept = messages.pass(&mut piece);
            out.extend_from_slice(&piece[..kept]);
        }
        (out, state)
    }

    #[test]
    fn a_bare_ready_behind_another_is_left_out_and_nothing_else() {
        let (ready, error) = (message(b'Z', b"E"), message(b'E', b"Ssomething\0\0"));
        let (notice, done) = (message(b'N', b"Snotice\0\0"), message(b'C', b"COPY 12\0"));
        let stream = [&error, &ready, &notice, &ready, &ready, &done, &ready, &message(b'I', b""), &ready];
        let kept = [&error, &ready, &notice, &done, &ready, &message(b'I', b""), &ready];
        for piece in [1, 2, 3, 5, 6, 7, 11, 1000] {
            let (out, state) = passed(&stream.concat_all(), piece);
            assert_eq!(out, kept.concat_all(), "in pieces of {piece}");
            assert_eq!((state.errors(), state.take_copied(), state.take_copied()), (1, Some(12), None));
        }
    }

    #[test]
    fn rows_pass_whole_or_in_pieces() {
        let (ready, done) = (message(b'Z', b"I"), message(b'C', b"COPY 7\0"));
        let rows = [message(b'D', b""), message(b'D', b"Z"), message(b'D', &[b'Z'; 300]), message(b'D', b"C1")];
        // Between two rows anything may come, and behind rows a ReadyForQuery answers.
        let stream = [&ready, &rows[0], &ready, &rows[1], &done, &rows[2], &rows[3], &ready, &ready].concat_all();
        let kept = stream.len() - ready.len();
        for piece in [1, 2, 3, 4, 5, 6, 7, 11, 300, 1000] {
            let (out, state) = passed(&stream, piece);
            assert_eq!(out, stream[..kept], "in pieces of {piece}");
            assert_eq!((state.readies(), state.take_copied(), state.has_bloated()), (4, Some(7), false));
        }
        let mut large = message(b'D', b"");
        large[1..5].copy_from_slice(&(MESSAGE_MAX + 1).to_be_bytes());
        for piece in [1, 1000] {
            assert!(passed(&large, piece).1.has_bloated());
        }
    }

    #[test]
    fn only_the_count_of_a_copy_is_kept() {
        for (tag, copied) in [("COPY 0", Some(0)), ("INSERT 0 5", None), ("COPY", None), ("SELECT 3", None)] {
            let (_, state) = passed(&message(b'C', format!("{tag}\0").as_bytes()), 4);
            assert_eq!(state.take_copied(), copied, "{tag}");
        }
    }

    trait ConcatAll {
        fn concat_all(&self) -> Vec<u8>;
    }

    impl ConcatAll for [&Vec<u8>] {
        fn concat_all(&self) -> Vec<u8> {
            self.iter().flat_map(|part| part.iter().copied()).collect()
        }
    }
}
