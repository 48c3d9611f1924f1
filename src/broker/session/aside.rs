//! What a session's client is told beside the answers to its requests, also while one runs: that its cancels were carried
//! out, and that the session's life is about to end.

use std::{convert::Infallible, future::pending, time::Duration};

use tokio::sync::mpsc;

use super::{Answers, Gone, Notice, SessionAnswer, SessionReply, queue::Answered, send};
use crate::model::Deadline;

/// The end of a session's life is announced this part of it ahead, but no longer than this before.
const AHEAD: (u32, Duration) = (10, Duration::from_secs(60));

/// Says what is to be said beside the answers.
pub(super) struct Aside {
    pub(super) answers: Answers,
    pub(super) cancels: mpsc::Receiver<Answered>,
    pub(super) idle_timeout: Duration,
    pub(super) lifetime: Duration,
    pub(super) dies_at: Deadline,
}

impl Aside {
    /// Goes on until it is dropped. A client that is gone, or does not listen, is the session's to notice.
    pub(super) async fn run(mut self) -> Infallible {
        let _gone = self.speak().await;
        pending().await
    }

    async fn speak(&mut self) -> Result<Infallible, Gone> {
        let ahead = AHEAD.1.min(self.lifetime / AHEAD.0);
        let mut announce_at = self.dies_at.instant().checked_sub(ahead);
        loop {
            let announcing = async {
                match announce_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let answer = tokio::select! {
                () = announcing => {
                    announce_at = None;
                    SessionAnswer::notice(Notice::Closing(ahead))
                }
                Some(Answered { id, refused }) = self.cancels.recv() => {
                    let reply = refused.map_or(SessionReply::Done, |failure| SessionReply::Failure(Box::new(failure)));
                    SessionAnswer { id, last: true, position: String::new(), receipt: None, reply }
                }
            };
            send(&self.answers, self.idle_timeout, answer).await?;
        }
    }
}
