//! The caller's side of a running call: whether it is still there, and until when it waits.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::{admission::CallerId, clock, model::Deadline};

/// Why a call is to stop before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupted {
    CallerLeft,
    Deadline,
    /// A session's client cancelled this request, and waits for its answer.
    Cancelled,
}

impl Interrupted {
    /// For metric labels.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Interrupted::CallerLeft => "caller_left",
            Interrupted::Deadline => "deadline",
            Interrupted::Cancelled => "request",
        }
    }

    pub(crate) fn failure(self) -> Failure {
        match self {
            Interrupted::CallerLeft => Failure::caller_left(),
            Interrupted::Deadline => Failure::deadline("before the call was done"),
            Interrupted::Cancelled => Failure::request_cancelled(),
        }
    }
}

/// The caller as the task that works for it sees it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    left: CancellationToken,
    deadline: Deadline,
    /// None: nobody can cancel the request and wait for its answer.
    cancelled: Option<CancellationToken>,
    id: CallerId,
    has_turn: bool,
}

impl Caller {
    /// A caller that is gone once `left` is cancelled.
    pub(crate) fn new(left: CancellationToken, deadline: Deadline) -> Caller {
        Caller { left, deadline, cancelled: None, id: CallerId::Unknown, has_turn: false }
    }

    /// The same, whose one request here ends once `cancelled` is.
    pub(crate) fn cancellable(self, cancelled: CancellationToken) -> Caller {
        Caller { cancelled: Some(cancelled), ..self }
    }

    /// The same, known by who it is.
    pub(crate) fn known_as(self, id: CallerId) -> Caller {
        Caller { id, ..self }
    }

    /// The same, while its turn to run is kept beside its connections.
    pub(crate) fn in_turn(self) -> Caller {
        Caller { has_turn: true, ..self }
    }

    pub(crate) fn has_turn(&self) -> bool {
        self.has_turn
    }

    pub(crate) fn id(&self) -> &CallerId {
        &self.id
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Whether the call is to stop already. Arms nothing, as waiting does.
    pub(crate) fn interruption(&self) -> Option<Interrupted> {
        let is_cancelled = self.cancelled.as_ref().is_some_and(CancellationToken::is_cancelled);
        let reasons = [
            (is_cancelled, Interrupted::Cancelled),
            (self.left.is_cancelled(), Interrupted::CallerLeft),
            (self.deadline.is_over(clock::now()), Interrupted::Deadline),
        ];
        reasons.into_iter().find_map(|(applies, interrupted)| applies.then_some(interrupted))
    }

    /// Resolves when the call is to stop.
    pub(crate) async fn interrupted(&self) -> Interrupted {
        let Some(cancelled) = &self.cancelled else { return self.gave_up().await };
        tokio::select! {
            () = cancelled.cancelled() => Interrupted::Cancelled,
            interrupted = self.gave_up() => interrupted,
        }
    }

    /// Resolves when nobody waits for the call any more: a cancel leaves a client that does.
    pub(crate) async fn gave_up(&self) -> Interrupted {
        tokio::select! {
            () = self.left.cancelled() => Interrupted::CallerLeft,
            () = tokio::time::sleep_until(self.deadline.instant().into()) => Interrupted::Deadline,
        }
    }

    /// Waits for `pause`, or less when the call is to stop before.
    pub(crate) async fn pause(&self, pause: Duration) -> Result<(), Interrupted> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            interrupted = self.interrupted() => Err(interrupted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_sees_what_ends_the_call() {
        let (left, cancelled) = (CancellationToken::new(), CancellationToken::new());
        let caller = Caller::new(left.clone(), Deadline::after(clock::now(), Duration::from_secs(60)));
        let cancellable = caller.clone().cancellable(cancelled.clone());
        assert_eq!([&caller, &cancellable].map(Caller::interruption), [None, None]);
        cancelled.cancel();
        assert_eq!([&caller, &cancellable].map(Caller::interruption), [None, Some(Interrupted::Cancelled)]);
        left.cancel();
        assert_eq!(caller.interruption(), Some(Interrupted::CallerLeft));
        let late = Caller::new(CancellationToken::new(), Deadline::after(clock::now(), Duration::ZERO));
        assert_eq!(late.interruption(), Some(Interrupted::Deadline));
    }
}
