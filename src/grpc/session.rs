//! The Session stream: messages in, checked for order, to commands; answers out; and the status at its end.

use std::sync::{Arc, OnceLock};

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, metadata::MetadataMap};
use tracing::Instrument;

use super::{
    accept::Call,
    copying::{self, Copying},
    limit, reply,
    request::{self, session::Defaults},
    service::CallSettings,
};
use crate::{
    broker::{Broker, Context, Failure, Reason, SessionAnswer, SessionEnd, SessionQueue, session_queue},
    proto::{self, session_request::Request},
};

/// Answers under way to the client.
const ANSWERS_IN_FLIGHT: usize = 2;

/// Boxed: a channel has room for its first 32 items from the start, and most sessions wait with none.
type Out = mpsc::Sender<Box<Result<proto::SessionResponse, Status>>>;

/// Starts a session; a task of its own serves it until the stream ends.
pub(super) fn start(
    broker: Arc<Broker>,
    settings: CallSettings,
    call: Call,
    metadata: MetadataMap,
    requests: Streaming<proto::SessionRequest>,
) -> impl Stream<Item = Result<proto::SessionResponse, Status>> + Send {
    let (out, answers) = mpsc::channel(ANSWERS_IN_FLIGHT);
    let span = call.span().clone();
    let serving = Arc::clone(&broker);
    broker.spawn(serve(serving, settings, call, metadata, requests, out).instrument(span));
    ReceiverStream::new(answers).map(|answer| *answer)
}

async fn serve(
    broker: Arc<Broker>,
    settings: CallSettings,
    call: Call,
    metadata: MetadataMap,
    mut requests: Streaming<proto::SessionRequest>,
    out: Out,
) {
    let opened = tokio::select! {
        // Boxed, with all that only the beginning needs: the session may wait for hours.
        opened = Box::pin(open(&broker, settings, metadata, &mut requests, &out)) => opened,
        () = out.closed() => return,
    };
    let (mut context, last_id) = match opened {
        Ok(Some(opened)) => opened,
        // Half-closed before it began.
        Ok(None) => return call.succeeded(),
        Err(failure) => {
            let _ = out.send(Box::new(Err(call.failed(&failure)))).await;
            return;
        }
    };
    context.caller = call.caller();
    let left = CancellationToken::new();
    // However this ends, whatever still works for the session stops.
    let _left = left.clone().drop_guard();
    let fault = OnceLock::new();
    // A request waits here or is being executed; one more than announced is too many.
    let (queue, queued) = session_queue(broker.settings().max_unanswered);
    let (answers, mut answered) = mpsc::channel::<Box<SessionAnswer>>(1);
    let defaults = Defaults {
        timeout: settings.default_timeout,
        message_bytes_max: settings.max_message_bytes,
        request_bytes_max: settings.max_request_bytes,
    };
    let database = context.database.clone();
    let reading = async {
        if let Err(failure) = read_requests(requests, queue, defaults, database, last_id).await {
            if let Some(failure) = failure {
                let _ = fault.set(failure);
            }
            left.cancel();
        }
        // The session goes on until what is queued is answered.
        std::future::pending::<()>().await;
    };
    let serving = broker.serve_session(context, queued, answers, left.clone());
    let idle_timeout = broker.settings().stream_idle_timeout;
    let forwarding = async {
        while let Some(answer) = answered.recv().await {
            let sent = tokio::time::timeout(idle_timeout, out.send(Box::new(Ok(reply::session_answer(*answer))))).await;
            // Gone, or it does not read: both end the session.
            if !matches!(sent, Ok(Ok(()))) {
                left.cancel();
            }
        }
    };
    let watching = async {
        out.closed().await;
        left.cancel();
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        (end, ()) = futures_util::future::join(serving, forwarding) => end,
        () = reading => return,
        () = watching => return,
    };
    let failure = match (fault.into_inner(), end) {
        (Some(fault), _) => fault,
        (None, SessionEnd::Failed(failure)) => *failure,
        (None, SessionEnd::Complete) => return call.succeeded(),
        (None, SessionEnd::Gone) => return,
    };
    let _ = tokio::time::timeout(idle_timeout, out.send(Box::new(Err(call.failed(&failure))))).await;
}

/// The first message must open the session; it is answered with the session's limits.
async fn open(
    broker: &Broker,
    settings: CallSettings,
    metadata: MetadataMap,
    requests: &mut Streaming<proto::SessionRequest>,
    out: &Out,
) -> Result<Option<(Context, u64)>, Failure> {
    if broker.is_draining() {
        return Err(Failure::new(Reason::Draining, "the broker is shutting down"));
    }
    let first = tokio::time::timeout(settings.default_timeout, requests.message()).await;
    let first =
        first.map_err(|_| Failure::new(Reason::DeadlineExceeded, "no open came; a session begins with open"))?;
    let first = match first {
        Ok(Some(first)) => first,
        Ok(None) => return Ok(None),
        Err(status) => {
            let left = || Failure::new(Reason::CallerLeft, "the caller left before the session was open");
            return Err(limit::failure(&status, settings.max_request_bytes).unwrap_or_else(left));
        }
    };
    let id = first.request_id;
    if id == 0 {
        return Err(Failure::field(Reason::FieldInvalid, "request_id", "request_id is 0; choose growing ids from 1"));
    }
    let Some(Request::Open(open)) = first.request else {
        return Err(Failure::field(Reason::FieldMissing, "open", "the first request of a session must be open"));
    };
    let mut context = request::context(open.context, &metadata)?;
    context.positions.extend(first.positions);
    broker.check(&context)?;
    let limits = broker.settings();
    let opened = proto::SessionOpened {
        max_unanswered: u32::try_from(limits.max_unanswered).unwrap_or(u32::MAX),
        transaction_idle_timeout: limits.transaction_idle_timeout.try_into().ok(),
        max_lifetime: limits.session_max_lifetime.try_into().ok(),
    };
    let response = Some(proto::session_response::Response::Opened(opened));
    let answer = proto::SessionResponse { request_id: id, last: true, response, ..Default::default() };
    // A client that is gone is noticed by whoever waits for `out` to close.
    let _ = out.send(Box::new(Ok(answer))).await;
    Ok(Some((context, id)))
}

/// Passes requests on until the client half-closes. An error ends the session: with a failure when the client broke the
/// protocol, without when it is gone.
async fn read_requests(
    mut requests: Streaming<proto::SessionRequest>,
    mut queue: SessionQueue,
    defaults: Defaults,
    database: String,
    mut last_id: u64,
) -> Result<(), Option<Failure>> {
    // Too large, or not a message at all; a client that is gone does not hear it.
    let broken = |status: Status| {
        let no_message = || Failure::field(Reason::FieldInvalid, "request", status.message());
        Some(limit::failure(&status, defaults.request_bytes_max).unwrap_or_else(no_message))
    };
    let mut copying = Copying::default();
    while let Some(request) = requests.message().await.map_err(broken)? {
        let mut request = Box::new(request);
        let id = request.request_id;
        if let Some(piece) = copying::take_piece(&mut request.request) {
            copying.take(id, piece).await.map_err(Some)?;
            continue;
        }
        if id <= last_id {
            let message = format!("request_id {id} does not grow: the last was {last_id}");
            return Err(Some(Failure::field(Reason::FieldInvalid, "request_id", message)));
        }
        last_id = id;
        let is_copy = matches!(request.request, Some(Request::CopyIn(_)));
        let pieces = if is_copy { Some(copying.begin(id).map_err(Some)?) } else { None };
        queue.push(request::session::command(*request, pieces, defaults, &database)).map_err(Some)?;
    }
    Ok(())
}
