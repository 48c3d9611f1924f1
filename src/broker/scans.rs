//! What statements' texts say (`sql::inspect`), kept by text: most calls send one of a few. The places are of a fixed
//! number, and nobody waits for anybody: two texts of one place put each other out, and cost a scan more.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwapOption;

use crate::sql::{self, Place, SqlError, Statement};

/// Texts that are kept, at most.
const PLACES: usize = 1024;
/// Longer texts are scanned each time, in bytes: with them all, 16 MiB are kept.
const TEXT_MAX: usize = 16 << 10;

/// The texts that were scanned last.
pub(super) struct Scans {
    places: Box<[ArcSwapOption<Scanned>]>,
    /// Keyed at random, so that nobody can choose texts that put out another's.
    hasher: RandomState,
}

struct Scanned {
    sql: Box<str>,
    place: Place,
    said: Result<Statement, SqlError>,
}

impl Default for Scans {
    fn default() -> Scans {
        Scans {
            places: std::iter::repeat_with(ArcSwapOption::empty).take(PLACES).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Scans {
    /// As [`sql::inspect`].
    pub(super) fn inspect(&self, sql: &str, place: Place) -> Result<Statement, SqlError> {
        let Some(kept) = self.place_of(sql) else { return sql::inspect(sql, place) };
        if let Some(scanned) = &*kept.load()
            && scanned.place == place
            && *scanned.sql == *sql
        {
            return scanned.said;
        }
        let said = sql::inspect(sql, place);
        kept.store(Some(Arc::new(Scanned { sql: sql.into(), place, said })));
        said
    }

    fn place_of(&self, sql: &str) -> Option<&ArcSwapOption<Scanned>> {
        if sql.len() > TEXT_MAX {
            return None;
        }
        self.places.get(self.hasher.hash_one(sql) as usize % PLACES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_the_same_whether_it_is_kept_or_not() {
        let scans = Scans::default();
        // More texts than places, so that some are put out.
        let texts: Vec<String> = (0..3 * PLACES)
            .map(|n| match n % 4 {
                0 => format!("SELECT {n}"),
                1 => format!("COMMIT -- {n}"),
                2 => format!("SELECT {n}; SELECT 1"),
                _ => format!("NOTIFY a, '{n}'"),
            })
            .collect();
        for _ in 0..2 {
            for (text, place) in texts.iter().flat_map(|text| [(text, Place::Read), (text, Place::Write)]) {
                assert_eq!(scans.inspect(text, place), sql::inspect(text, place), "{text} {place:?}");
            }
        }
    }

    #[test]
    fn a_text_that_is_kept_is_not_scanned_again() {
        let scans = Scans::default();
        let sql = "SELECT 1";
        let kept = |scans: &Scans| scans.place_of(sql).and_then(|place| place.load_full());
        assert!(kept(&scans).is_none());
        let said = scans.inspect(sql, Place::Read);
        let first = kept(&scans).expect("it was scanned");
        assert_eq!(scans.inspect(sql, Place::Read), said);
        assert!(Arc::ptr_eq(&first, &kept(&scans).expect("it is kept")));
        let long = format!("SELECT '{}'", "x".repeat(TEXT_MAX));
        assert!(scans.inspect(&long, Place::Read).is_ok() && scans.place_of(&long).is_none());
    }
}
