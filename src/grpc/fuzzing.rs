//! What the fuzz targets (`fuzz/`) reach of this module: a message's bytes become the typed request, or the failure with
//! the status that its caller would get. Compiled only with the feature `fuzzing`, which no release has.

use std::time::Duration;

use http::HeaderMap;
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, metadata::MetadataMap};

use super::{deadline, request, status};
use crate::{
    broker::{Context, Failure, ReadRequest, SessionCommand, WriteRequest},
    clock,
    proto::{self, session_request::Request},
};

/// The timeout of a call that sets none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest message that the broker sends, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The result for bytes that are a message at all.
pub type Judged<T> = Option<Result<T, Refusal>>;

/// A request that was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// What the caller gets.
    pub status: Status,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { status: status::status(&failure), failure }
    }
}

/// An `ExecuteReadRequest` with the headers of its call.
pub fn read(message: &[u8], headers: &HeaderMap) -> Judged<ReadRequest> {
    let message = proto::ExecuteReadRequest::decode(message).ok()?;
    let deadline = deadline::of_call(headers, DEFAULT_TIMEOUT, clock::now());
    let judged = deadline.and_then(|deadline| request::read(message, &metadata(headers), deadline, MESSAGE_BYTES_MAX));
    Some(judged.map_err(Refusal::from))
}

/// An `ExecuteWriteRequest` with the headers of its call.
pub fn write(message: &[u8], headers: &HeaderMap) -> Judged<WriteRequest> {
    let message = proto::ExecuteWriteRequest::decode(message).ok()?;
    let deadline = deadline::of_call(headers, DEFAULT_TIMEOUT, clock::now());
    let judged = deadline.and_then(|deadline| request::write(message, &metadata(headers), deadline));
    Some(judged.map_err(Refusal::from))
}

/// A `SessionRequest` of an open session; the data of a COPY takes another way. What is refused comes as a command, too:
/// it is answered in its turn.
pub fn session(message: &[u8]) -> Option<SessionCommand> {
    let message = proto::SessionRequest::decode(message).ok()?;
    if matches!(message.request, Some(Request::CopyData(_) | Request::CopyEnd(_))) {
        return None;
    }
    let defaults = request::session::Defaults {
        timeout: DEFAULT_TIMEOUT,
        message_bytes_max: MESSAGE_BYTES_MAX,
        request_bytes_max: MESSAGE_BYTES_MAX,
    };
    let pieces = mpsc::channel(1).1;
    Some(request::session::command(message, Some(pieces), defaults, "app"))
}

/// The context of a `SessionOpen` or of a `ListenRequest`, which hold it in the same field.
pub fn context(message: &[u8], headers: &HeaderMap) -> Judged<Context> {
    let message = proto::SessionOpen::decode(message).ok()?;
    Some(request::context(message.context, &metadata(headers)).map_err(Refusal::from))
}

fn metadata(headers: &HeaderMap) -> MetadataMap {
    MetadataMap::from_headers(headers.clone())
}
