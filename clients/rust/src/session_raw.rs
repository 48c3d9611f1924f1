//! The session's stream itself: numbers requests, counts what is unanswered, keeps the positions. Which answer belongs to
//! which request is left to the caller, who may send several before receiving.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{Streaming, transport::Channel};

use crate::{
    error::Error,
    positions::Positions,
    proto::{
        self, SessionNotice, SessionOpened, SessionRequest, SessionResponse,
        broker_service_client::BrokerServiceClient, session_request::Request, session_response::Response,
    },
    read::wire_duration,
    session_positions::SessionPositions,
};

/// How many notices are kept for [`RawSession::take_notice`]; the oldest go first.
const NOTICES_MAX: usize = 64;

/// Pieces of a COPY's data that wait to be sent.
const COPY_PIECES_MAX: usize = 4;

/// A request on its way, with the room that it takes.
type Outgoing = (SessionRequest, Option<OwnedSemaphorePermit>);

/// A session without help: send requests, receive responses, in the order of the requests.
///
/// Every request names its transaction, so a request that is sent before the answer to its `begin` cannot slip out of a
/// transaction that failed to begin.
#[derive(Debug)]
pub struct RawSession {
    requests: mpsc::UnboundedSender<Outgoing>, // bounded by `max_unanswered`, and `copy_room`
    copy_room: Arc<Semaphore>,
    responses: Streaming<SessionResponse>,
    opened: SessionOpened,
    last_id: u64,
    unanswered: u32,
    max_message_bytes: u32,
    notices: VecDeque<SessionNotice>,
    positions: Arc<Positions>,
    brought: SessionPositions,
}

impl RawSession {
    pub(crate) async fn open(
        mut stub: BrokerServiceClient<Channel>,
        context: proto::CallContext,
        max_message_bytes: u32,
        positions: Arc<Positions>,
    ) -> Result<Self, Error> {
        let (requests, queue) = mpsc::unbounded_channel();
        let sent = context.positions.clone();
        // Before the call: a broker may hold its headers back until it has read this.
        let open = proto::SessionOpen { context: Some(context) };
        let _ = requests
            .send((SessionRequest { request_id: 1, request: Some(Request::Open(open)), ..Default::default() }, None));
        // The room is free once the transport has taken the request.
        let queue = UnboundedReceiverStream::new(queue).map(|(request, _room)| request);
        let responses = match stub.session(queue).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                let error = Error::from(status);
                positions.failed(&sent, error.position());
                return Err(error);
            }
        };
        let mut brought = SessionPositions::default();
        brought.brings(1, &sent);
        let mut session = RawSession {
            requests,
            copy_room: Arc::new(Semaphore::new(COPY_PIECES_MAX)),
            responses,
            opened: SessionOpened::default(),
            last_id: 1,
            unanswered: 1,
            max_message_bytes,
            notices: VecDeque::new(),
            positions,
            brought,
        };
        match session.receive().await?.response {
            Some(Response::Opened(opened)) => session.opened = opened,
            Some(Response::Failure(failure)) => return Err(failure.into()),
            _ => return Err(Error::Protocol("a session's first answer does not open it")),
        }
        Ok(session)
    }

    /// The session's limits.
    pub fn opened(&self) -> &SessionOpened {
        &self.opened
    }

    /// How many requests have no last answer yet.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Queues a request without waiting; returns its id. `transaction` is the id of the transaction's `begin`, or 0.
    ///
    /// # Errors
    /// [`Error::TooManyUnanswered`]: receive first. [`Error::SessionEnded`]
    pub fn send(&mut self, transaction: u64, timeout: Option<Duration>, request: Request) -> Result<u64, Error> {
        if self.opened.max_unanswered > 0 && self.unanswered >= self.opened.max_unanswered {
            return Err(Error::TooManyUnanswered);
        }
        // Where a transaction runs was decided at its begin: a token that is refused would only keep it from its end.
        let positions = match transaction {
            0 => self.brought.missing(self.positions.current()),
            _ => Vec::new(),
        };
        self.brought.brings(self.last_id + 1, &positions);
        let timeout = timeout.and_then(wire_duration);
        self.queue(SessionRequest {
            transaction_id: transaction,
            timeout,
            positions,
            request: Some(request),
            ..Default::default()
        })
    }

    /// Cancels an earlier request, past those that wait; returns the id of the cancel itself. Both are answered: the cancel
    /// by `done`, perhaps out of order, the cancelled request with its failure, or with its result if that came first.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]
    pub fn cancel(&mut self, target_request_id: u64) -> Result<u64, Error> {
        let cancel = Request::Cancel(proto::SessionCancel { target_request_id });
        // Also when nothing else may be sent, and without tokens, which it would overtake the others with.
        self.queue(SessionRequest { request: Some(cancel), ..Default::default() })
    }

    fn queue(&mut self, request: SessionRequest) -> Result<u64, Error> {
        let request_id = self.last_id + 1;
        self.requests.send((SessionRequest { request_id, ..request }, None)).map_err(|_| Error::SessionEnded)?;
        self.last_id = request_id;
        self.unanswered += 1;
        Ok(request_id)
    }

    /// Sends data of the `copy_in` with this id; waits until there is room for it. Nothing is received meanwhile: a
    /// broker that waits for its answers to be read takes no data.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]
    pub fn send_copy_data(&self, id: u64, data: Vec<u8>) -> impl Future<Output = Result<(), Error>> + use<> {
        let (requests, room) = (self.requests.clone(), Arc::clone(&self.copy_room));
        async move {
            let room = room.acquire_owned().await.map_err(|_| Error::SessionEnded)?;
            send_copy(&requests, id, Request::CopyData(proto::CopyData { data }), Some(room))
        }
    }

    /// Ends the data of the `copy_in` with this id: completely, or, with a reason, so that nothing of it is kept.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]
    pub fn end_copy(&self, id: u64, abort_reason: String) -> Result<(), Error> {
        send_copy(&self.requests, id, Request::CopyEnd(proto::CopyEnd { abort_reason }), None)
    }

    /// The next response to this request; those to earlier ones, which were given up, are passed over.
    pub(crate) async fn receive_for(&mut self, id: u64) -> Result<SessionResponse, Error> {
        loop {
            let response = self.receive().await?;
            if response.request_id == id {
                return Ok(response);
            }
            if response.request_id > id {
                return Err(Error::Protocol("an answer to a request that was not made"));
            }
        }
    }

    /// The next response to a request; notices are put aside. A failure of a request is a response, not an error.
    ///
    /// # Errors
    /// [`Error::SessionEnded`], and what ends a stream. The session is of no use afterwards.
    pub async fn receive(&mut self) -> Result<SessionResponse, Error> {
        loop {
            let response = match self.responses.message().await {
                Ok(response) => response.ok_or(Error::SessionEnded)?,
                Err(status) => {
                    let error = Error::from(status);
                    // Of what is still on its way it may cover nothing.
                    self.positions.failed(&[], error.position());
                    return Err(error);
                }
            };
            self.learn(&response);
            if response.request_id != 0 {
                if response.last {
                    self.unanswered = self.unanswered.saturating_sub(1);
                }
                return Ok(response);
            }
            if let Some(Response::Notice(notice)) = response.response {
                if self.notices.len() == NOTICES_MAX {
                    self.notices.pop_front();
                }
                self.notices.push_back(notice);
            }
        }
    }

    /// The oldest notice that arrived with the responses so far.
    pub fn take_notice(&mut self) -> Option<SessionNotice> {
        self.notices.pop_front()
    }

    /// Ends the sending side and waits until the broker has finished what is queued.
    ///
    /// # Errors
    /// What ends a stream other than OK.
    pub async fn close(mut self) -> Result<(), Error> {
        let (closed, _) = mpsc::unbounded_channel();
        self.requests = closed;
        while self.responses.message().await?.is_some() {}
        Ok(())
    }

    pub(crate) fn max_message_bytes(&self) -> u32 {
        self.max_message_bytes
    }

    /// Takes what a response says of the session's positions.
    fn learn(&mut self, response: &SessionResponse) {
        let id = response.request_id;
        let token = match &response.response {
            _ if !response.position.is_empty() => &response.position,
            // The broker's failures have a token whenever it has taken in any.
            Some(Response::Failure(failure)) if failure.position.is_empty() => return self.brought.refused(id),
            Some(Response::Failure(failure)) => &failure.position,
            Some(Response::Read(proto::ExecuteReadResponse { summary: Some(summary), .. })) => &summary.position,
            _ => "",
        };
        if token.is_empty() {
            return self.brought.taken_in(id);
        }
        let covered = self.brought.covered(id, token);
        self.positions.answered(&covered, token);
    }
}

/// A part of a COPY: it has the number of the request that it belongs to.
fn send_copy(
    requests: &mpsc::UnboundedSender<Outgoing>,
    id: u64,
    request: Request,
    room: Option<OwnedSemaphorePermit>,
) -> Result<(), Error> {
    let request = SessionRequest { request_id: id, request: Some(request), ..Default::default() };
    requests.send((request, room)).map_err(|_| Error::SessionEnded)
}
