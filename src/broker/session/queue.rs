//! The queue of a session's requests. Requests run in the order in which they came; a cancel overtakes them, and is answered
//! beside them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{SessionCommand, SessionRequest};
use crate::broker::{Failure, Reason};

/// The client's end of a session's queue.
#[derive(Debug)]
pub struct SessionQueue {
    commands: mpsc::Sender<Box<Queued>>,
    cancels: mpsc::Sender<Answered>,
    /// What may be cancelled, oldest first.
    waiting: VecDeque<(u64, CancellationToken)>,
    finished: Arc<AtomicU64>,
}

/// The session's end of it.
#[derive(Debug)]
pub struct SessionRequests {
    pub(super) commands: mpsc::Receiver<Box<Queued>>,
    pub(super) cancels: mpsc::Receiver<Answered>,
    /// The last request that was answered; all before it were.
    pub(super) finished: Arc<AtomicU64>,
}

/// A request in its turn.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) command: SessionCommand,
    pub(super) cancelled: CancellationToken,
}

/// A cancel that was carried out, or refused: only its answer is left to be sent.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) id: u64,
    pub(super) refused: Option<Box<Failure>>,
}

/// Both ends of a queue in which `max_unanswered` requests may wait. What is queued is boxed: a channel has room for its first
/// 32 items from the start, and most sessions wait with none.
pub fn session_queue(max_unanswered: usize) -> (SessionQueue, SessionRequests) {
    let (commands, queued) = mpsc::channel(max_unanswered);
    let (cancels, answered) = mpsc::channel(max_unanswered);
    let finished = Arc::new(AtomicU64::new(0));
    let queue = SessionQueue { commands, cancels, waiting: VecDeque::new(), finished: Arc::clone(&finished) };
    (queue, SessionRequests { commands: queued, cancels: answered, finished })
}

impl SessionQueue {
    /// Queues a request; carries out a cancel at once.
    ///
    /// # Errors
    /// [`Reason::TooManyUnanswered`]: the session is to end.
    pub fn push(&mut self, command: SessionCommand) -> Result<(), Failure> {
        if let SessionRequest::Cancel { target } = command.request {
            return self.cancel(&command, target);
        }
        let finished = self.finished.load(Ordering::Acquire);
        while self.waiting.front().is_some_and(|(id, _)| *id <= finished) {
            self.waiting.pop_front();
        }
        let cancelled = CancellationToken::new();
        // The ends of a transaction are never cancelled: nobody could say what became of it.
        if !matches!(command.request, SessionRequest::Commit | SessionRequest::Rollback) {
            self.waiting.push_back((command.id, cancelled.clone()));
        }
        self.commands.try_send(Box::new(Queued { command, cancelled })).map_err(|_| too_many())
    }

    /// A request that is unknown, or has its answer, is left as it is.
    fn cancel(&mut self, command: &SessionCommand, target: u64) -> Result<(), Failure> {
        let refused = refusal(command, target).map(Box::new);
        if refused.is_none()
            && let Some((_, cancelled)) = self.waiting.iter().find(|(id, _)| *id == target)
        {
            cancelled.cancel();
        }
        self.cancels.try_send(Answered { id: command.id, refused }).map_err(|_| too_many())
    }
}

fn refusal(command: &SessionCommand, target: u64) -> Option<Failure> {
    let refused = |field: &str, message: &str| Some(Failure::field(Reason::FieldInvalid, field, message));
    if command.transaction != 0 {
        return refused("transaction_id", "a cancel belongs to no transaction: leave transaction_id unset");
    }
    if !command.positions.is_empty() {
        return refused("positions", "a cancel overtakes the requests before it and carries no position tokens");
    }
    if target == 0 || target >= command.id {
        return refused("cancel.target_request_id", "cancel.target_request_id must be the id of an earlier request");
    }
    None
}

fn too_many() -> Failure {
    let message = "more requests are unanswered than max_unanswered of the open's answer allows";
    Failure::new(Reason::TooManyUnanswered, message)
}
