//! That one lane is made at a time; and, after a connection could not be had, none for a while. However the attempt ends, a
//! panic and the end of its task included, the next one may begin.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::clock;

/// After a connection could not be had, none is tried for so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The attempts of one host's lanes.
#[derive(Debug, Default)]
pub(super) struct Openings {
    is_under_way: bool,
    not_before: Option<Instant>,
}

/// One of them. Dropped before it has succeeded it has failed.
pub(super) struct Opening {
    openings: Arc<Mutex<Openings>>,
    has_succeeded: bool,
}

impl Opening {
    /// None: another one is under way, or has failed a moment ago.
    pub(super) fn begin(openings: &Arc<Mutex<Openings>>, now: Instant) -> Option<Opening> {
        let mut state = openings.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_under_way || state.not_before.is_some_and(|not_before| now < not_before) {
            return None;
        }
        state.is_under_way = true;
        Some(Opening { openings: Arc::clone(openings), has_succeeded: false })
    }

    /// There is a connection.
    pub(super) fn succeeded(mut self) {
        self.has_succeeded = true;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let not_before = (!self.has_succeeded).then(|| clock::now() + RETRY_AFTER);
        *self.openings.lock().unwrap_or_else(PoisonError::into_inner) = Openings { is_under_way: false, not_before };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_is_aborted_keeps_no_other_from_making_a_lane() {
        let openings = Arc::default();
        let mut now = clock::now();
        for panics in [true, false] {
            let opening = Opening::begin(&openings, now).expect("none is under way");
            assert!(Opening::begin(&openings, now + RETRY_AFTER).is_none(), "one at a time");
            let task = tokio::spawn(async move {
                let _opening = opening;
                assert!(!panics, "it panics");
                std::future::pending::<()>().await;
            });
            if !panics {
                task.abort();
            }
            assert!(task.await.is_err());
            assert!(Opening::begin(&openings, now).is_none(), "not at once");
            now = clock::now() + RETRY_AFTER;
        }
        Opening::begin(&openings, now).expect("after a while").succeeded();
        assert!(Opening::begin(&openings, clock::now()).is_some());
    }
}
