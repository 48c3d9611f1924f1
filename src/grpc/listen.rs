//! The Listen stream: the request to the broker, what is heard to messages.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tonic::{Request, Status};

use super::{accept::Call, request};
use crate::{
    broker::{Broker, Failure, ListenEvent, ListenRequest, ListenStream},
    proto::{self, listen_response::Event},
};

/// Starts listening. Waits for the beginning, so that a failure before it is a plain status; without a deadline of the
/// caller's the stream has none.
pub(super) async fn start(
    broker: &Arc<Broker>,
    call: &Call,
    request: Request<proto::ListenRequest>,
) -> Result<(ListenEvent, ListenStream), Failure> {
    let deadline = call.given_deadline(&request)?;
    let (metadata, _, message) = request.into_parts();
    let context = request::context(message.context, &metadata)?;
    let mut stream = broker.listen(ListenRequest { context, channels: message.channels, deadline })?;
    let first = stream.next().await?;
    Ok((first, stream))
}

/// The messages; an error is the last.
pub(super) fn events(
    call: Call,
    (first, rest): (ListenEvent, ListenStream),
) -> impl Stream<Item = Result<proto::ListenResponse, Status>> + Send {
    stream::unfold((Some(Ok(first)), Some((call, rest))), |(next, state)| async move {
        let (call, mut rest) = state?;
        let event = match next {
            Some(event) => event,
            None => rest.next().await,
        };
        Some(match event {
            Ok(event) => (Ok(message(event)), (None, Some((call, rest)))),
            Err(failure) => (Err(call.failed(&failure)), (None, None)),
        })
    })
}

fn message(event: ListenEvent) -> proto::ListenResponse {
    let event = match event {
        ListenEvent::Ready => Event::Ready(proto::ListenReady {}),
        ListenEvent::Heard(heard) => {
            Event::Notification(proto::Notification { channel: heard.channel.clone(), payload: heard.payload.clone() })
        }
        ListenEvent::Gap(reason) => Event::Gap(proto::ListenGap { reason: reason.to_owned() }),
    };
    proto::ListenResponse { event: Some(event) }
}
