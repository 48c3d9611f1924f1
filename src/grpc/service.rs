//! `tidegate.v1.BrokerService`: each method translates, calls the broker, and translates back.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::{
    accept::{Call, GrpcWeb},
    listen, reply, request,
    server::ServerSettings,
    session,
    status::{self, POSITION},
};
use crate::{
    broker::{Broker, Failure, ReadPart, ReadStream, Reason},
    proto::{self, broker_service_server::BrokerService},
};

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the adapter needs of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallSettings {
    pub(super) default_timeout: Duration,
    pub(super) max_message_bytes: usize,
    pub(super) max_request_bytes: usize,
}

/// The settings as they are now, but for what a connection was made with.
#[derive(Clone)]
pub(super) struct CallLimits {
    pub(super) changing: watch::Receiver<ServerSettings>,
    pub(super) max_request_bytes: usize,
}

pub(super) struct Service {
    pub(super) broker: Arc<Broker>,
    pub(super) limits: CallLimits,
}

#[tonic::async_trait]
impl BrokerService for Service {
    type ExecuteReadStream = Messages<proto::ExecuteReadResponse>;
    type SessionStream = Messages<proto::SessionResponse>;
    type ListenStream = Messages<proto::ListenResponse>;

    async fn execute_read(
        &self,
        request: Request<proto::ExecuteReadRequest>,
    ) -> Result<Response<Self::ExecuteReadStream>, Status> {
        let call = self.accept("ExecuteRead", &request, request.get_ref().context.as_ref());
        let span = call.span().clone();
        match self.read(&call, request).instrument(span).await {
            Ok((first, rest)) => Ok(Response::new(Box::pin(parts(call, first, rest)))),
            Err(failure) => Err(call.failed(&failure)),
        }
    }

    async fn execute_write(
        &self,
        request: Request<proto::ExecuteWriteRequest>,
    ) -> Result<Response<proto::ExecuteWriteResponse>, Status> {
        let call = self.accept("ExecuteWrite", &request, request.get_ref().context.as_ref());
        let span = call.span().clone();
        match self.write(&call, request).instrument(span).await {
            Ok(response) => {
                call.succeeded();
                Ok(response)
            }
            Err(failure) => Err(call.failed(&failure)),
        }
    }

    async fn session(
        &self,
        request: Request<Streaming<proto::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if request.extensions().get::<GrpcWeb>().is_some() {
            let message =
                "Session needs both directions at once, which gRPC-Web does not have; use ExecuteRead and ExecuteWrite";
            return Err(status::status(&Failure::new(Reason::FieldUnsupported, message)));
        }
        let call = self.accept("Session", &request, None);
        let metadata = request.metadata().clone();
        let answers = session::start(Arc::clone(&self.broker), self.settings(), call, metadata, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn listen(&self, request: Request<proto::ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        let call = self.accept("Listen", &request, request.get_ref().context.as_ref());
        let started = async {
            self.admit()?;
            listen::start(&self.broker, &call, request).await
        };
        let span = call.span().clone();
        match started.instrument(span).await {
            Ok(stream) => Ok(Response::new(Box::pin(listen::events(call, stream)))),
            Err(failure) => Err(call.failed(&failure)),
        }
    }
}

impl Service {
    fn settings(&self) -> CallSettings {
        let CallLimits { changing, max_request_bytes } = &self.limits;
        let ServerSettings { default_timeout, max_message_bytes, .. } = *changing.borrow();
        CallSettings { default_timeout, max_message_bytes, max_request_bytes: *max_request_bytes }
    }

    fn accept<T>(&self, method: &'static str, request: &Request<T>, context: Option<&proto::CallContext>) -> Call {
        let (database, operation) = context.map_or(("", ""), |context| (&context.database, &context.operation));
        Call::new(&self.broker, method, request, database, operation)
    }

    /// Waits for the first part, so that a failure before it is a plain status, which clients can retry.
    async fn read(
        &self,
        call: &Call,
        request: Request<proto::ExecuteReadRequest>,
    ) -> Result<(ReadPart, ReadStream), Failure> {
        self.admit()?;
        let deadline = call.deadline(&request, self.settings().default_timeout)?;
        let (metadata, _, message) = request.into_parts();
        let mut request = request::read(message, &metadata, deadline, self.settings().max_message_bytes)?;
        request.context.caller = call.caller();
        let (first, stream) = self.broker.read_first(request).await?;
        if let Some(header) = &first.header {
            call.routed(&header.receipt);
        }
        Ok((first, stream))
    }

    async fn write(
        &self,
        call: &Call,
        request: Request<proto::ExecuteWriteRequest>,
    ) -> Result<Response<proto::ExecuteWriteResponse>, Failure> {
        self.admit()?;
        let deadline = call.deadline(&request, self.settings().default_timeout)?;
        let (metadata, _, message) = request.into_parts();
        let mut request = request::write(message, &metadata, deadline)?;
        request.context.caller = call.caller();
        let result = self.broker.write(request).await?;
        call.routed(&result.receipt);
        let token = result.position.parse();
        let mut response = Response::new(reply::write_result(result));
        if let Ok(token) = token {
            response.metadata_mut().insert(POSITION, token);
        }
        Ok(response)
    }

    /// While the broker drains, new calls are refused; clients go elsewhere.
    fn admit(&self) -> Result<(), Failure> {
        if !self.broker.is_draining() {
            return Ok(());
        }
        Err(Failure {
            retry_delay: Some(Duration::from_millis(250)),
            ..Failure::new(Reason::Draining, "the broker is shutting down")
        })
    }
}

/// The messages of a result; the call ends with the last of them.
fn parts(
    call: Call,
    first: ReadPart,
    rest: ReadStream,
) -> impl Stream<Item = Result<proto::ExecuteReadResponse, Status>> + Send {
    let active = call.streaming();
    let rest = stream::unfold(Some((call, rest, first.summary.is_some())), |state| async {
        let (call, mut rest, complete) = state?;
        if complete {
            call.succeeded();
            return None;
        }
        match rest.next().await {
            Some(Ok(part)) => {
                let complete = part.summary.is_some();
                Some((Ok(reply::read_part(part)), Some((call, rest, complete))))
            }
            Some(Err(failure)) => Some((Err(call.failed(&failure)), None)),
            None => Some((Err(call.failed(&Failure::new(Reason::Internal, "a result without a summary"))), None)),
        }
    });
    stream::once(std::future::ready(Ok(reply::read_part(first)))).chain(rest).map(move |item| {
        let _counted = &active;
        item
    })
}
