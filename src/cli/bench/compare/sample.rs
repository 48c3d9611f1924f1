//! One run of one system: the calls of its window, from a log of single calls, whoever wrote it.

use super::stats::Latencies;

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// When it was due, in microseconds of any clock. In a closed loop that is when it was sent.
    pub(super) due_us: u64,
    /// From then to its last byte.
    pub(super) took_us: u32,
    /// From then to when it was sent: 0 in a closed loop.
    pub(super) lag_us: u32,
}

impl Call {
    fn end_us(&self) -> u64 {
        self.due_us + u64::from(self.took_us)
    }
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) per_second: f64,
    pub(super) latencies: Latencies,
    /// How late calls were sent, in an open loop: how far the client itself can be trusted.
    pub(super) lags: Latencies,
    /// All calls of the run, also those before and after its window: what the processor time was for.
    pub(super) calls: u64,
}

/// What a run measures, after a time that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) warm_up_seconds: u32,
    pub(super) seconds: u32,
}

impl Window {
    pub(super) fn whole_seconds(self) -> u32 {
        self.warm_up_seconds + self.seconds
    }

    /// Of a closed loop: the calls that ended in the window, which begins so long after the first call was sent.
    pub(super) fn closed(self, calls: &[Call]) -> Sample {
        self.sample(calls, Call::end_us)
    }

    /// Of an open loop: the calls that were due in the window, however late they ended. To count by the end would leave
    /// out those that a stall held up.
    pub(super) fn open(self, calls: &[Call]) -> Sample {
        self.sample(calls, |call| call.due_us)
    }

    fn sample(self, calls: &[Call], when_us: impl Fn(&Call) -> u64) -> Sample {
        let start = calls.iter().map(|call| call.due_us).min().unwrap_or_default();
        self.sample_from(start + u64::from(self.warm_up_seconds) * 1_000_000, calls, when_us)
    }

    /// Of several processes at once, each of which began with its callers' connections and stopped sending after a time of its
    /// own: the window's end is the first moment at which one of them sent no more. None: before the window some process did
    /// not call for at least half of the warm-up.
    pub(super) fn of_processes(self, logs: &[Vec<Call>], open: bool) -> Option<Sample> {
        let sent = |log: &Vec<Call>| log.iter().map(|call| call.due_us + u64::from(call.lag_us)).max();
        let to = logs.iter().map(sent).min()??;
        let from = to.checked_sub(u64::from(self.seconds) * 1_000_000)?;
        let all_call = logs.iter().filter_map(|log| log.iter().map(|call| call.due_us).min()).max()?;
        if from < all_call + u64::from(self.warm_up_seconds) * 500_000 {
            return None;
        }
        let calls = logs.concat();
        Some(self.sample_from(from, &calls, |call| if open { call.due_us } else { call.end_us() }))
    }

    fn sample_from(self, from: u64, calls: &[Call], when_us: impl Fn(&Call) -> u64) -> Sample {
        let to = from + u64::from(self.seconds) * 1_000_000;
        let counted = calls.iter().filter(|call| (from..to).contains(&when_us(call)));
        let (took, lags): (Vec<u32>, Vec<u32>) = counted.map(|call| (call.took_us, call.lag_us)).unzip();
        let per_second = took.len() as f64 / f64::from(self.seconds.max(1));
        Sample { per_second, latencies: took.into(), lags: lags.into(), calls: calls.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Window};

    const WINDOW: Window = Window { warm_up_seconds: 1, seconds: 2 };

    fn call(due_ms: u64, took_ms: u32) -> Call {
        Call { due_us: due_ms * 1000, took_us: took_ms * 1000, lag_us: 0 }
    }

    #[test]
    fn the_warm_up_and_the_end_do_not_count() {
        let calls = [call(500, 10), call(1480, 30), call(2000, 40), call(3490, 20)];
        let sample = WINDOW.closed(&calls);
        assert_eq!((sample.per_second, sample.calls), (1.0, 4));
        assert_eq!(sample.latencies, vec![30_000, 40_000].into());
    }

    #[test]
    fn connecting_shortens_the_warm_up_and_never_the_window() {
        let log = |from_ms: u64, to_ms: u64| (from_ms..to_ms).step_by(10).map(|due| call(due, 10)).collect::<Vec<_>>();
        // One of them took 300 ms longer to connect; both stop three seconds after they were started.
        let sample = WINDOW.of_processes(&[log(0, 3000), log(300, 3000)], false).expect("a sample");
        assert_eq!((sample.per_second, sample.calls), (200.0, 570));
        assert_eq!(WINDOW.of_processes(&[log(0, 3000), log(600, 3000)], false), None);
        assert_eq!(WINDOW.of_processes(&[log(0, 3000), Vec::new()], false), None);
        assert_eq!(WINDOW.of_processes(&[], false), None);
    }

    #[test]
    fn a_stall_counts_for_every_call_that_was_due_in_it() {
        // Due every 10 ms; the server stops for a second at 2000 ms, and then answers all at once.
        let due = (0..400).map(|n| n * 10);
        let calls: Vec<Call> =
            due.map(|due_ms| {
                if (2000..3000).contains(&due_ms) { call(due_ms, (3000 - due_ms) as u32) } else { call(due_ms, 1) }
            })
            .collect();
        let sample = WINDOW.open(&calls);
        assert_eq!(sample.per_second, 100.0, "also those that ended later");
        assert_eq!(sample.latencies.percentile(0.25), Some(1000));
        assert_eq!(sample.latencies.percentile(0.995), Some(990_000));
        // A caller who waits for its answer before it asks again would have sent one call in that second.
        let omitting: Vec<Call> =
            calls.iter().copied().filter(|call| call.took_us <= 1000 || call.took_us == 1_000_000).collect();
        assert_eq!(WINDOW.open(&omitting).latencies.percentile(0.98), Some(1000));
    }
}
