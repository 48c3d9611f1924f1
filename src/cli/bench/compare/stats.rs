//! From single measurements to what is reported: percentiles of latencies, median and spread of rounds. Pure.

use serde::Serialize;

/// Latencies of one run, in microseconds, in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Latencies(Vec<u32>);

impl From<Vec<u32>> for Latencies {
    fn from(mut micros: Vec<u32>) -> Latencies {
        micros.sort_unstable();
        Latencies(micros)
    }
}

impl Latencies {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest latency that at least this share of all (0 to 1) does not exceed, in microseconds: the nearest rank.
    pub(super) fn percentile(&self, share: f64) -> Option<u32> {
        let rank = (share * self.0.len() as f64).ceil().max(1.0) as usize;
        self.0.get(rank.min(self.0.len()).checked_sub(1)?).copied()
    }
}

/// The median of several rounds, and what lies at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// None without a value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::{Latencies, Spread};

    #[test]
    fn percentiles_are_latencies_that_were_measured() {
        let latencies = Latencies::from((1..=1000).rev().collect::<Vec<u32>>());
        let at = |share| latencies.percentile(share).expect("a value");
        assert_eq!([at(0.5), at(0.99), at(0.999), at(1.0), at(0.0)], [500, 990, 999, 1000, 1]);
        assert_eq!(Latencies::from(vec![7]).percentile(0.999), Some(7));
        assert!(Latencies::default().is_empty());
        assert_eq!(Latencies::default().percentile(0.5), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }
}
