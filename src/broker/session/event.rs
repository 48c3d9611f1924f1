//! What a session awaits. What it does then is the session's own.

use super::{SessionEnd, queue::Queued};
use crate::postgres::ServerError;

/// What happens next in a session.
pub(super) enum Next {
    Event(Event),
    End(SessionEnd),
}

/// Something to be done.
pub(super) enum Event {
    Command(Box<Queued>),
    TransactionIdle,
    /// PostgreSQL said something; None: the connection of the open transaction has ended.
    Heard(Option<Box<ServerError>>),
    Draining,
}
