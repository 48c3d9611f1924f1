//! Owns the gradual move of a database to a cluster of its own: which of the two sides a call goes to, and the draw by
//! which a session always decides alike. Positions, which may keep a session's reads where it wrote, are the broker's.

use std::fmt;

/// A share of sessions or calls, in steps of 0.01 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Percentage(u16);

impl Percentage {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(Draw::COUNT);

    /// So many hundredths of a percent; `None` above 10,000.
    #[must_use]
    pub const fn from_hundredths(hundredths: u16) -> Option<Self> {
        if hundredths <= Draw::COUNT { Some(Self(hundredths)) } else { None }
    }

    /// In hundredths of a percent: 0 to 10,000.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// Whether it takes in who has drawn this. What one percentage takes in, every higher one does.
    #[must_use]
    pub const fn takes_in(self, draw: Draw) -> bool {
        draw.0 < self.0
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 100, self.0 % 100)
    }
}

/// A number of 0 to 9,999: the share of draws below a percentage is that percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(u16);

impl Draw {
    const COUNT: u16 = 10_000;

    /// The draw of a session in one matter (a database's name, a rule's operation): the same in every broker, on every
    /// machine and in every version, for a session that moved must not move back with an upgrade.
    ///
    /// The hash is FNV-1a with 64 bits over the matter, the byte FF (which no UTF-8 text holds) and the session's id,
    /// then the finaliser of MurmurHash3, without which the higher bits of short texts are all but alike.
    #[must_use]
    pub fn of(matter: &str, session_id: &str) -> Self {
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let bytes = matter.bytes().chain(std::iter::once(0xff)).chain(session_id.bytes());
        let mut hash = bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self::at(hash ^ (hash >> 33))
    }

    /// The draw for a number that is evenly spread over all of `u64`: for calls without a session, a random one.
    #[must_use]
    pub fn at(number: u64) -> Self {
        let scaled = (u128::from(number) * u128::from(Self::COUNT)) >> 64;
        Self(u16::try_from(scaled).unwrap_or(Self::COUNT - 1))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// One of the two clusters of a database that is being moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// Where it is.
    Origin,
    /// The cluster of its own that it is moved to.
    Own,
}

impl Site {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Origin => Self::Own,
            Self::Own => Self::Origin,
        }
    }

    /// For metrics, logs and explanations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Own => "own",
        }
    }
}

/// How far a database has been moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RolloutState {
    /// Set: everybody (true) or nobody (false), whatever the percentage.
    pub use_own: Option<bool>,
    /// Writes stay on the origin's primary, which the own cluster's replicas follow.
    pub reuse_primary: bool,
    /// The share of sessions that has moved.
    pub percentage: Percentage,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The side whose primary takes what must go to one.
    pub primary: Site,
    /// The side whose replicas take reads.
    pub replica: Site,
}

impl Placement {
    /// As if nothing were moved.
    pub const ORIGIN: Self = Self { primary: Site::Origin, replica: Site::Origin };
}

/// Where a call goes, by its session's draw. One without a session has nothing that could decide alike each time: it
/// stays, unless everybody moves.
#[must_use]
pub const fn place(state: RolloutState, has_session: bool, drawn: bool) -> Placement {
    let moved = match state.use_own {
        Some(forced) => forced,
        None => has_session && drawn,
    };
    match (moved, state.reuse_primary) {
        (false, _) => Placement::ORIGIN,
        (true, false) => Placement { primary: Site::Own, replica: Site::Own },
        (true, true) => Placement { primary: Site::Origin, replica: Site::Own },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_twelve_rows() {
        const ANY: [bool; 2] = [false, true];
        // override, reuse_primary, session, drawn → ci primary, ci replica; the database that is not moved stays in main.
        type Row = (Option<bool>, bool, &'static [bool], &'static [bool], Site, Site);
        use Site::{Origin as Main, Own as Ci};
        let rows: [Row; 12] = [
            (Some(true), false, &ANY, &ANY, Ci, Ci),
            (Some(true), true, &ANY, &ANY, Main, Ci),
            (Some(false), false, &ANY, &ANY, Main, Main),
            (Some(false), true, &ANY, &ANY, Main, Main),
            (None, false, &[false], &[false], Main, Main),
            (None, false, &[false], &[true], Main, Main),
            (None, false, &[true], &[false], Main, Main),
            (None, false, &[true], &[true], Ci, Ci),
            (None, true, &[false], &[false], Main, Main),
            (None, true, &[false], &[true], Main, Main),
            (None, true, &[true], &[false], Main, Main),
            (None, true, &[true], &[true], Main, Ci),
        ];
        for (use_own, reuse_primary, sessions, draws, primary, replica) in rows {
            let state = RolloutState { use_own, reuse_primary, percentage: Percentage::NONE };
            for (&has_session, &drawn) in sessions.iter().flat_map(|s| draws.iter().map(move |d| (s, d))) {
                let row = format!("{use_own:?} {reuse_primary} {has_session} {drawn}");
                assert_eq!(place(state, has_session, drawn), Placement { primary, replica }, "{row}");
            }
        }
    }

    /// A change of the hash would move sessions back and forth between brokers of two versions. As another implementation of the two hashes gives them.
    #[test]
    fn draws_never_change() {
        let draws = [("ci", "u7"), ("ci", "u8"), ("ci", ""), ("", "u7"), ("orders", "a session, longer than a word")];
        assert_eq!(draws.map(|(matter, session)| Draw::of(matter, session).get()), [5097, 1879, 4596, 9829, 2486]);
        assert_ne!(Draw::of("ab", "c"), Draw::of("a", "bc"));
    }

    #[test]
    fn draws_are_evenly_spread() {
        // Ids as services make them: counters, and names with a common beginning and end.
        for (matter, id) in [("ci", "u"), ("orders", "session-of-user-"), ("", "")] {
            let mut buckets = [0_u32; 20];
            for n in 0..20_000 {
                buckets[usize::from(Draw::of(matter, &format!("{id}{n}")).get()) / 500] += 1;
            }
            // 1,000 each; the deviation is some 31, so this is six of them.
            assert!(buckets.iter().all(|count| (815..1185).contains(count)), "{matter} {id}: {buckets:?}");
        }
        let ends = [Draw::at(0), Draw::at(u64::MAX)].map(Draw::get);
        assert_eq!(ends, [0, 9_999]);
    }

    #[test]
    fn percentages_in_words() {
        let shown = |hundredths| Percentage::from_hundredths(hundredths).map(|it| it.to_string());
        assert_eq!(shown(2505).as_deref(), Some("25.05 %"));
        assert_eq!(shown(10_001), None);
    }

    proptest! {
        #[test]
        fn a_session_always_decides_alike_and_never_moves_back(
            matter in ".{0,20}", session in ".{0,40}", low in 0_u16..=10_000, high in 0_u16..=10_000,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let [low, high] = [low, high].map(|it| Percentage::from_hundredths(it).unwrap());
            let draw = Draw::of(&matter, &session);
            prop_assert_eq!(draw, Draw::of(&matter, &session));
            prop_assert!(high.takes_in(draw) || !low.takes_in(draw));
            prop_assert!(!Percentage::NONE.takes_in(draw) && Percentage::ALL.takes_in(draw));
        }
    }
}
