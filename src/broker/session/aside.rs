//! What a session's client is told beside the answers to its requests, also while one runs: that its cancels were carried
//! out, and that the session's life is about to end.

use std::{convert::Infallible, future::pending, time::Duration};

use tokio::sync::mpsc;

use super::{Answers, Gone, Notice, SessionAnswer, SessionEnd, SessionReply, queue::Answered};
use crate::model::Deadline;

/// The end of a session's life is announced this part of it ahead, but no longer than this before.
const AHEAD: (u32, Duration) = (10, Duration::from_secs(60));

/// Says what is to be said beside the answers.
pub(super) struct Aside {
    pub(super) answers: Answers,
    pub(super) cancels: mpsc::Receiver<Answered>,
    /// Taken from the queue, and not sent yet.
    pub(super) unsaid: Option<SessionAnswer>,
    pub(super) idle_timeout: Duration,
    pub(super) lifetime: Duration,
    pub(super) dies_at: Deadline,
}

impl Aside {
    /// Goes on until it is dropped; nothing is lost then. A client that is gone, or does not listen, is the session's to
    /// notice.
    pub(super) async fn run(&mut self) -> Infallible {
        let _gone = self.speak().await;
        pending().await
    }

    /// The client has half-closed, and all else is answered: says what is left.
    pub(super) async fn finish(mut self) -> SessionEnd {
        let finish = async {
            loop {
                self.say().await?;
                match self.cancels.recv().await {
                    Some(answered) => self.unsaid = Some(answer(answered)),
                    None => return Ok(()),
                }
            }
        };
        match finish.await {
            Ok(()) => SessionEnd::Complete,
            Err(Gone) => SessionEnd::Gone,
        }
    }

    async fn speak(&mut self) -> Result<Infallible, Gone> {
        let ahead = AHEAD.1.min(self.lifetime / AHEAD.0);
        let mut announce_at = self.dies_at.instant().checked_sub(ahead);
        loop {
            self.say().await?;
            let announcing = async {
                match announce_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            self.unsaid = Some(tokio::select! {
                () = announcing => {
                    announce_at = None;
                    SessionAnswer::notice(Notice::Closing(ahead))
                }
                Some(answered) = self.cancels.recv() => answer(answered),
            });
        }
    }

    /// Sends what was taken. Cancel-safe.
    async fn say(&mut self) -> Result<(), Gone> {
        if self.unsaid.is_none() {
            return Ok(());
        }
        let room = tokio::time::timeout(self.idle_timeout, self.answers.reserve()).await;
        let room = room.map_err(|_| Gone)?.map_err(|_| Gone)?;
        if let Some(answer) = self.unsaid.take() {
            room.send(Box::new(answer));
        }
        Ok(())
    }
}

fn answer(Answered { id, refused }: Answered) -> SessionAnswer {
    let reply = refused.map_or(SessionReply::Done, SessionReply::Failure);
    SessionAnswer { id, last: true, position: String::new(), receipt: None, reply }
}
