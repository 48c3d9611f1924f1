//! Owns WAL positions as numbers: LSNs, the WAL's geometry and timelines. Which LSNs may be compared is `history`'s.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// A position in the write-ahead log, in bytes from its beginning. Comparable within one history only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The beginning of the log: at or below every position.
    pub const ZERO: Self = Self(0);

    /// The position `bytes` behind the log's beginning.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the log's beginning.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// By how many bytes this is ahead of `other`; 0 when it is not.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }

    /// Bytes between the two, whichever is ahead.
    #[must_use]
    pub const fn distance(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// The end of the last record at or before this insert position.
    ///
    /// PostgreSQL moves the insert position over a page's header as soon as a page begins, but a replica's replay
    /// position stays at the last record's end: without this step an idle primary would look ahead of a replica that
    /// has everything. A record cannot end inside a header, so nothing is lost.
    #[must_use]
    pub const fn without_page_header(self, geometry: WalGeometry) -> Self {
        let in_segment = self.0 & (geometry.segment_bytes - 1);
        let in_block = self.0 & (geometry.block_bytes - 1);
        if in_segment == SEGMENT_HEADER_BYTES {
            Self(self.0 - SEGMENT_HEADER_BYTES)
        } else if in_segment >= geometry.block_bytes && in_block == PAGE_HEADER_BYTES {
            Self(self.0 - PAGE_HEADER_BYTES)
        } else {
            self
        }
    }
}

/// `SizeOfXLogLongPHD`: the header of a segment's first page.
const SEGMENT_HEADER_BYTES: u64 = 40;
/// `SizeOfXLogShortPHD`: the header of any other page.
const PAGE_HEADER_BYTES: u64 = 24;

impl fmt::Display for Lsn {
    /// As PostgreSQL 18 and older print it: `%X/%X`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnParseError;

    /// Reads what `pg_lsn_in` reads: two hexadecimal numbers of 1 to 8 digits around a slash.
    fn from_str(text: &str) -> Result<Self, LsnParseError> {
        let (high, low) = text.split_once('/').ok_or(LsnParseError)?;
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

fn half(digits: &str) -> Result<u64, LsnParseError> {
    // from_str_radix alone would also take a sign.
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(LsnParseError);
    }
    u64::from_str_radix(digits, 16).map_err(|_| LsnParseError)
}

/// A text that is not an LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LsnParseError;

impl fmt::Display for LsnParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a WAL position (such as 16/B374D848)")
    }
}

impl Error for LsnParseError {}

/// The sizes of a server's WAL: `wal_segment_size` and `wal_block_size`, both powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalGeometry {
    segment_bytes: u64,
    block_bytes: u64,
}

impl WalGeometry {
    /// Takes both sizes in bytes, as the server reports them.
    ///
    /// # Errors
    /// A size that is no power of two, or a block larger than its segment.
    pub const fn new(segment_bytes: u64, block_bytes: u64) -> Result<Self, GeometryError> {
        if !segment_bytes.is_power_of_two() {
            return Err(GeometryError::SegmentNotPowerOfTwo { segment_bytes });
        }
        if !block_bytes.is_power_of_two() {
            return Err(GeometryError::BlockNotPowerOfTwo { block_bytes });
        }
        if block_bytes > segment_bytes {
            return Err(GeometryError::BlockAboveSegment { segment_bytes, block_bytes });
        }
        Ok(Self { segment_bytes, block_bytes })
    }

    /// Bytes in a WAL segment.
    #[must_use]
    pub const fn segment_bytes(self) -> u64 {
        self.segment_bytes
    }

    /// Bytes in a WAL page.
    #[must_use]
    pub const fn block_bytes(self) -> u64 {
        self.block_bytes
    }
}

impl Default for WalGeometry {
    /// PostgreSQL's own defaults: segments of 16 MiB, pages of 8 KiB.
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, block_bytes: 8 << 10 }
    }
}

/// Why two sizes are not a WAL's geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeometryError {
    /// `wal_segment_size` is no power of two.
    SegmentNotPowerOfTwo {
        /// What was given.
        segment_bytes: u64,
    },
    /// `wal_block_size` is no power of two.
    BlockNotPowerOfTwo {
        /// What was given.
        block_bytes: u64,
    },
    /// A page cannot be larger than its segment.
    BlockAboveSegment {
        /// The segment's size.
        segment_bytes: u64,
        /// The page's size.
        block_bytes: u64,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SegmentNotPowerOfTwo { segment_bytes } => {
                write!(f, "a WAL segment of {segment_bytes} bytes is no power of two")
            }
            Self::BlockNotPowerOfTwo { block_bytes } => {
                write!(f, "a WAL page of {block_bytes} bytes is no power of two")
            }
            Self::BlockAboveSegment { segment_bytes, block_bytes } => {
                write!(f, "a WAL page of {block_bytes} bytes is larger than its segment of {segment_bytes}")
            }
        }
    }
}

impl Error for GeometryError {}

/// A PostgreSQL timeline: 1 at first, larger after each promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(NonZeroU32);

impl Timeline {
    /// The timeline of that number; there is no timeline 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number, at least 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_and_reads_as_postgresql_does() {
        for (text, bytes) in
            [("16/B374D848", 0x16_B374_D848), ("0/0", 0), ("FFFFFFFF/FFFFFFFF", u64::MAX), ("1/2", 0x1_0000_0002)]
        {
            assert_eq!(text.parse(), Ok(Lsn::new(bytes)));
            assert_eq!(Lsn::new(bytes).to_string(), text);
        }
        assert_eq!("16/0000000a".parse(), Ok(Lsn::new(0x16_0000_000A)));
    }

    #[test]
    fn refuses_what_is_no_lsn() {
        for text in ["", "/", "1/", "/1", "1", "1/2/3", "+1/2", "-1/2", "1/123456789", "g/1", " 1/2", "1/2 ", "1/é"] {
            assert_eq!(text.parse::<Lsn>(), Err(LsnParseError), "{text:?}");
        }
    }

    #[test]
    fn page_headers_are_taken_off() {
        let geometry = WalGeometry::default();
        let segment = 16 << 20;
        for (at, expected) in [
            (segment + 40, segment),
            (segment + 24, segment + 24), // within a segment's first header, which is 40 long
            (segment + 8192 + 24, segment + 8192),
            (segment + 8192 + 40, segment + 8192 + 40),
            (segment + 8192 + 25, segment + 8192 + 25),
            (segment, segment),
            (24, 24),
            (40, 0),
        ] {
            assert_eq!(Lsn::new(at).without_page_header(geometry), Lsn::new(expected), "{at}");
        }
        let small = WalGeometry::new(1 << 20, 4096).unwrap();
        assert_eq!(Lsn::new((1 << 20) + 40).without_page_header(small), Lsn::new(1 << 20));
        assert_eq!(Lsn::new(4096 + 24).without_page_header(small), Lsn::new(4096));
        assert_eq!(Lsn::new(4096 + 24).without_page_header(geometry), Lsn::new(4096 + 24));
    }

    #[test]
    fn geometry_is_checked() {
        assert!(WalGeometry::new(0, 8192).is_err());
        assert!(WalGeometry::new(16 << 20, 0).is_err());
        assert!(WalGeometry::new(16 << 20, 8191).is_err());
        assert!(WalGeometry::new(4096, 8192).is_err());
        assert_eq!(WalGeometry::new(16 << 20, 8192), Ok(WalGeometry::default()));
    }

    #[test]
    fn distances_are_in_bytes() {
        let (low, high) = (Lsn::new(10), Lsn::new(25));
        assert_eq!((high.saturating_sub(low), low.saturating_sub(high), low.distance(high)), (15, 0, 15));
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes: u64) {
            prop_assert_eq!(Lsn::new(bytes).to_string().parse(), Ok(Lsn::new(bytes)));
        }

        #[test]
        fn taking_headers_off_keeps_the_order(a: u64, near in 0u64..200) {
            let geometry = WalGeometry::default();
            let b = a.saturating_add(near);
            prop_assert!(Lsn::new(a).without_page_header(geometry) <= Lsn::new(b).without_page_header(geometry)
                // Positions inside a header do not occur.
                || matches!(a & 8191, 1..40));
        }
    }
}
