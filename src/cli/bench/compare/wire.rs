//! HTTP/2 as far as a load generator needs it: unary-sized requests out, answers in, flow control, pings. It is there
//! because a general client takes more of the machine for a call than the broker does, and so would measure itself. What
//! an answer says it leaves to others; gRPC's status it does not read (see `broker_counts`).

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("a connection to the broker: {0}")]
    Io(#[from] io::Error),
    #[error("the broker closed a connection")]
    Closed,
    #[error("the broker broke off a call (RST_STREAM, error {0})")]
    Reset(u32),
    #[error("the broker takes no more calls on a connection (GOAWAY, error {0})")]
    GoAway(u32),
    #[error("the broker's flow control has no room for a request of {0} bytes")]
    NoRoom(usize),
    #[error("a frame that is not understood: kind {kind}, {length} bytes")]
    Frame { kind: u8, length: usize },
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// What we take of the broker at a time, unasked: it is never held up by us.
const WINDOW_MAX: u32 = i32::MAX as u32;
/// What either side may send before it hears of another window.
const WINDOW_DEFAULT: u32 = 65_535;
/// Many frames of the greatest size that a server may send unasked (16 KiB).
const INPUT_BYTES: usize = 256 << 10;

/// Kinds of frames (RFC 9113, 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

/// Flags of frames.
mod flag {
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const ACK: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
}

/// What has come of an answer.
pub(super) enum Part<'a> {
    Data(&'a [u8]),
    End,
}

/// A connection that never blocks.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    headers: Headers,
    /// What is still to be sent.
    out: Vec<u8>,
    input: Vec<u8>,
    filled: usize,
    next_stream: u32,
    /// How many bytes of requests the broker takes.
    room: i64,
    /// How many bytes of answers we took and have not given room for again.
    taken: u32,
}

impl Connection {
    pub(super) fn connect(address: SocketAddr) -> Result<Connection, WireError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut out = PREFACE.to_vec();
        let settings = [[0, 2, 0, 0, 0, 0], setting(4, WINDOW_MAX)].concat(); // no pushes; each answer's window
        frame(&mut out, kind::SETTINGS, 0, 0, &settings);
        frame(&mut out, kind::WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - WINDOW_DEFAULT).to_be_bytes());
        Ok(Connection {
            stream,
            headers: Headers { authority: address.to_string(), table: Vec::new() },
            out,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            next_stream: 1,
            room: WINDOW_DEFAULT.into(),
            taken: 0,
        })
    }

    /// Takes in a request, to be sent by the next [`flush`](Self::flush); answers the number of its stream.
    pub(super) fn call(&mut self, path: &str, body: &[u8]) -> Result<u32, WireError> {
        self.room -= body.len() as i64;
        if self.room < 0 {
            return Err(WireError::NoRoom(body.len()));
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        frame(&mut self.out, kind::HEADERS, flag::END_HEADERS, stream, &self.headers.encode(path));
        frame(&mut self.out, kind::DATA, flag::END_STREAM, stream, body);
        Ok(stream)
    }

    /// Sends what the socket takes. True: there is more.
    pub(super) fn flush(&mut self) -> Result<bool, WireError> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..sent);
        Ok(!self.out.is_empty())
    }

    /// Reads all that has come.
    pub(super) fn read(&mut self, mut take: impl FnMut(u32, Part<'_>)) -> Result<(), WireError> {
        loop {
            let room = self.input.len() - self.filled;
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(WireError::Closed),
                Ok(more) => {
                    self.filled += more;
                    self.cut(&mut take)?;
                    if more < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Cuts what was read into frames; what is left of the last one stays.
    fn cut(&mut self, take: &mut impl FnMut(u32, Part<'_>)) -> Result<(), WireError> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((header, rest)) = input[at..self.filled].split_first_chunk::<FRAME_HEADER>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            if length + FRAME_HEADER > input.len() {
                return Err(WireError::Frame { kind: header[3], length });
            }
            let Some(payload) = rest.get(..length) else { break };
            let stream = number(&header[5..]) & WINDOW_MAX;
            self.frame(header[3], header[4], stream, payload, take)?;
            at += FRAME_HEADER + length;
        }
        self.input = input;
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        take: &mut impl FnMut(u32, Part<'_>),
    ) -> Result<(), WireError> {
        let is = |flag: u8| flags & flag != 0;
        match kind {
            kind::DATA if is(flag::PADDED) => return Err(WireError::Frame { kind, length: payload.len() }),
            kind::DATA => {
                take(stream, Part::Data(payload));
                self.taken += payload.len() as u32;
                if self.taken > WINDOW_MAX / 2 {
                    frame(&mut self.out, kind::WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
                    self.taken = 0;
                }
            }
            kind::RST_STREAM => return Err(WireError::Reset(number(payload))),
            kind::GOAWAY => return Err(WireError::GoAway(number(payload.get(4..).unwrap_or_default()))),
            kind::SETTINGS if !is(flag::ACK) => frame(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]),
            kind::PING if !is(flag::ACK) => frame(&mut self.out, kind::PING, flag::ACK, 0, payload),
            kind::WINDOW_UPDATE if stream == 0 => self.room += i64::from(number(payload) & WINDOW_MAX),
            _ => {}
        }
        if matches!(kind, kind::DATA | kind::HEADERS) && is(flag::END_STREAM) {
            take(stream, Part::End);
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Four bytes; fewer are a frame of nobody's, and 0.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}

fn setting(name: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The headers of requests, as HPACK writes them (RFC 7541): each in full once, then as its place in the table that the
/// broker keeps, as any other client's.
#[derive(Debug)]
struct Headers {
    authority: String,
    /// What was sent in full, by the number of its name in HPACK's own table; the newest at the end.
    table: Vec<(u8, String)>,
}

/// `te` has no number there.
const TE: u8 = 0;
/// HPACK's own table ends before that.
const OWN_TABLE: usize = 62;

impl Headers {
    fn encode(&mut self, path: &str) -> Vec<u8> {
        let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
        let authority = self.authority.clone();
        for (name, value) in [(4, path), (1, authority.as_str()), (31, "application/grpc"), (TE, "trailers")] {
            match self.table.iter().rev().position(|(known, text)| *known == name && text == value) {
                Some(place) => block.push(0x80 | (OWN_TABLE + place) as u8),
                None => {
                    block.push(0x40 | name);
                    if name == TE {
                        text(&mut block, "te");
                    }
                    text(&mut block, value);
                    self.table.push((name, value.to_owned()));
                }
            }
        }
        block
    }
}

/// As it is; all of ours are shorter than 127 bytes.
fn text(block: &mut Vec<u8>, text: &str) {
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{Headers, WINDOW_MAX, setting};

    #[test]
    fn headers_are_sent_in_full_once() {
        let mut headers = Headers { authority: "h:1".into(), table: Vec::new() };
        let first = headers.encode("/a");
        assert_eq!(first[..2], [0x83, 0x86]);
        assert_eq!(first[2..6], [0x44, 2, b'/', b'a']);
        assert_eq!(first[6..11], [0x41, 3, b'h', b':', b'1']);
        assert_eq!(first[11..14], [0x5f, 16, b'a']);
        // The newest, `te`, is the first after HPACK's own 61.
        assert_eq!(headers.encode("/a"), [0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
        let other = headers.encode("/b");
        assert_eq!(other[2..], [0x44, 2, b'/', b'b', 0x80 | 65, 0x80 | 64, 0x80 | 63]);
        assert_eq!(headers.encode("/a")[2], 0x80 | 66);
    }

    #[test]
    fn settings_are_a_name_and_a_value() {
        assert_eq!(setting(4, WINDOW_MAX), [0, 4, 0x7f, 0xff, 0xff, 0xff]);
    }
}
