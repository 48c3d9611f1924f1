//! Listening: what is notified, as it arrives.

use std::time::Duration;

use tonic::Streaming;

use crate::{
    error::Error,
    proto::{self, listen_response::Event},
};

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenEvent {
    /// A NOTIFY was committed.
    Notification {
        /// Its channel.
        channel: String,
        /// Its payload; empty: none.
        payload: String,
    },
    /// Notifications may be missing since the last one, as after a failover: look at the data again.
    Gap {
        /// Why; for people to read.
        reason: String,
    },
}

/// What is notified on some channels; from [`crate::Client::listen`]. Dropping it ends the listening.
#[derive(Debug)]
pub struct ListenStream {
    stream: Streaming<proto::ListenResponse>,
}

impl ListenStream {
    /// Waits, for `limit` at most, until the broker listens.
    pub(crate) async fn open(
        call: impl Future<Output = Result<tonic::Response<Streaming<proto::ListenResponse>>, tonic::Status>>,
        limit: Option<Duration>,
    ) -> Result<Self, Error> {
        let opening = async {
            let mut stream = ListenStream { stream: call.await?.into_inner() };
            match stream.event().await? {
                Some(Event::Ready(_)) => Ok(stream),
                _ => Err(Error::Protocol("listening does not begin with ready")),
            }
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, opening).await.map_err(|_| Error::TimedOut)?,
            None => opening.await,
        }
    }

    /// The next event. Safe to drop while it waits.
    ///
    /// # Errors
    /// What ends the stream, such as `DRAINING`: listen again, perhaps to another broker, and look at the data again.
    pub async fn next(&mut self) -> Result<ListenEvent, Error> {
        match self.event().await? {
            Some(Event::Notification(proto::Notification { channel, payload })) => {
                Ok(ListenEvent::Notification { channel, payload })
            }
            Some(Event::Gap(gap)) => Ok(ListenEvent::Gap { reason: gap.reason }),
            Some(Event::Ready(_)) => Err(Error::Protocol("listening begins a second time")),
            None => Err(Error::Protocol("an event without a kind")),
        }
    }

    async fn event(&mut self) -> Result<Option<Event>, Error> {
        Ok(self.stream.message().await?.ok_or(Error::Cut)?.event)
    }
}
