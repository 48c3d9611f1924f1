//! What a gauge counts for as long as it is there.

use opentelemetry::metrics::UpDownCounter;

/// Counts one of something as active until it is dropped, however that comes about.
#[derive(Debug)]
pub struct ActiveGuard(UpDownCounter<i64>);

impl ActiveGuard {
    pub(super) fn new(counter: &UpDownCounter<i64>) -> Self {
        counter.add(1, &[]);
        Self(counter.clone())
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
