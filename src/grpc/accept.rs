//! One call as it is accepted: its span with the caller's trace, its deadline, and what is recorded when it ends.

use std::{net::IpAddr, time::Instant};

use tonic::{Code, Request, Status};
use tracing::Span;

use super::{deadline, status};
use crate::{
    broker::{Broker, CallerId, Failure, Receipt},
    clock,
    model::Deadline,
    telemetry::{ActiveGuard, Metrics, parent_from, request_span},
};

/// Marks a request that came over gRPC-Web.
#[derive(Debug, Clone, Copy)]
pub(super) struct GrpcWeb;

/// Where a request's connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// An accepted call. Dropped without a verdict, it counts as CANCELLED: the caller left.
pub(super) struct Call {
    method: &'static str,
    began: Instant,
    metrics: Metrics,
    span: Span,
    ended: bool,
    caller: CallerId,
}

impl Call {
    /// Accepts a call; `database` and `operation` are what its context says.
    pub(super) fn new<T>(
        broker: &Broker,
        method: &'static str,
        request: &Request<T>,
        database: &str,
        operation: &str,
    ) -> Call {
        let span = request_span(method, database, &parent_from(request.metadata().as_ref()));
        if !operation.is_empty() {
            span.record("tidegate.operation", operation);
        }
        let peer = request.extensions().get::<Peer>();
        let caller = peer.map(|peer| CallerId::Address(peer.0.to_canonical())).unwrap_or_default();
        Call { method, began: clock::now(), metrics: broker.metrics().clone(), span, ended: false, caller }
    }

    /// Who calls, for fair queues and limits: until callers are authenticated, the address that they come from.
    pub(super) fn caller(&self) -> CallerId {
        self.caller.clone()
    }

    /// The call's span.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// When the call must be over.
    pub(super) fn deadline<T>(
        &self,
        request: &Request<T>,
        default_timeout: std::time::Duration,
    ) -> Result<Deadline, Failure> {
        deadline::of_call(request.metadata().as_ref(), default_timeout, self.began)
    }

    /// The same, of the caller's own word alone.
    pub(super) fn given_deadline<T>(&self, request: &Request<T>) -> Result<Option<Deadline>, Failure> {
        deadline::given(request.metadata().as_ref(), self.began)
    }

    /// Records where the call went.
    pub(super) fn routed(&self, receipt: &Receipt) {
        self.span.record("server.address", receipt.host.as_str());
        self.span.record("tidegate.route.reason", receipt.reason.as_str());
    }

    /// Counts a result that is being streamed, until the guard is dropped.
    pub(super) fn streaming(&self) -> ActiveGuard {
        self.metrics.stream_active()
    }

    /// The call ended well.
    pub(super) fn succeeded(mut self) {
        self.end(Code::Ok);
    }

    /// The call failed: logged once, here, without SQL or values.
    pub(super) fn failed(mut self, failure: &Failure) -> Status {
        let status = status::status(failure);
        if let Some(receipt) = &failure.receipt {
            self.routed(receipt);
        }
        let sqlstate = failure.server.as_ref().map_or("", |error| &error.sqlstate);
        let (reason, field) = (failure.reason.as_str(), failure.field.as_str());
        self.span.in_scope(|| {
            tracing::debug!(reason, sqlstate, field, outcome = ?failure.outcome, code = ?status.code(), "call failed");
        });
        self.end(status.code());
        status
    }

    fn end(&mut self, code: Code) {
        self.ended = true;
        self.span.record("rpc.grpc.status_code", i32::from(code));
        self.metrics.request(self.method, code_name(code), clock::now().saturating_duration_since(self.began));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled);
        }
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
