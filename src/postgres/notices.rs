//! What a server says on a connection without being asked, on its way from the connection's driver to whoever listens.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::error::ServerError;

/// How many may wait to be heard; a server that says more than that meanwhile is not heard out.
const WAITING_MAX: usize = 64;

/// The driver's end: whoever listens, if anybody does. When the driver ends, so does what is heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Listener(Arc<Mutex<Option<mpsc::Sender<ServerError>>>>);

impl Listener {
    /// Listens from now on, in place of whoever did before.
    pub(super) fn listen(&self) -> Notices {
        let (said, heard) = mpsc::channel(WAITING_MAX);
        self.set(Some(said));
        Notices(heard)
    }

    /// Passes something on, without waiting.
    pub(super) fn say(&self, said: ServerError) {
        if let Some(listener) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // Nobody listens any more, or not fast enough.
            let _ = listener.try_send(said);
        }
    }

    fn set(&self, listener: Option<mpsc::Sender<ServerError>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = listener;
    }
}

/// Says that nothing more will be heard, also when the driver is stopped.
#[derive(Debug)]
pub(super) struct EndOfNotices(pub(super) Listener);

impl Drop for EndOfNotices {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The listener's end: notices, and the error with which the server ended the connection.
#[derive(Debug)]
pub struct Notices(mpsc::Receiver<ServerError>);

impl Notices {
    /// The next one; None once the connection has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<ServerError> {
        self.0.recv().await
    }

    /// The next one that is here already. What a statement said is here before its result is.
    pub fn try_next(&mut self) -> Option<ServerError> {
        self.0.try_recv().ok()
    }
}
