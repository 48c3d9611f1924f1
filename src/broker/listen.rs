//! Listen: one listening connection a database, to its primary, for all streams together. It is opened for the first of
//! them and closed after the last, made anew when it is lost or the primary changes, and holds up nobody for a slow reader.

mod hub;
mod keeper;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::Instrument;

use super::{Broker, Context, Failure, Reason};
use crate::{model::Deadline, postgres::Heard, telemetry::ActiveGuard};
use keeper::Keeper;

pub(crate) use hub::Hub;

/// PostgreSQL's limit for a name, in bytes (NAMEDATALEN - 1). It would cut a longer one; so would two names become one.
const CHANNEL_BYTES_MAX: usize = 63;
/// Channels of one call.
const CHANNELS_MAX: usize = 100;
/// What may wait for one reader: events, and bytes of them.
const QUEUE_EVENTS: usize = 1024;
const QUEUE_BYTES: usize = 1 << 20;
/// The wait suggested before a retry.
const RETRY: Duration = Duration::from_millis(250);
const READ_FASTER: &str = "notifications were dropped: read faster";

/// What a call to Listen asks for.
#[derive(Debug, Clone)]
pub struct ListenRequest {
    /// Whom it is for.
    pub context: Context,
    /// The channels.
    pub channels: Vec<String>,
    /// When it ends; None: with its caller.
    pub deadline: Option<Deadline>,
}

/// What a listening caller hears.
#[derive(Debug, Clone)]
pub enum ListenEvent {
    /// From now on it hears what is notified.
    Ready,
    /// A NOTIFY.
    Heard(Arc<Heard>),
    /// Notifications may be missing here, for this reason.
    Gap(&'static str),
}

/// Bounds what waits for one reader.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Something was dropped. Nothing more is queued until the reader was told.
    overflowed: AtomicBool,
}

/// A caller's end. Dropping it ends the listening.
pub struct ListenStream {
    broker: Arc<Broker>,
    hub: Arc<Hub>,
    id: u64,
    events: mpsc::Receiver<Result<ListenEvent, Failure>>,
    backlog: Arc<Backlog>,
    deadline: Option<Deadline>,
    _active: ActiveGuard,
}

impl ListenStream {
    /// The next event. An error is the last item.
    ///
    /// # Errors
    /// The deadline, a drain, or that no listening connection could be made at the beginning.
    pub async fn next(&mut self) -> Result<ListenEvent, Failure> {
        let deadline = self.deadline;
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.instant().into()).await,
                None => std::future::pending().await,
            }
        };
        let broker = Arc::clone(&self.broker);
        tokio::select! {
            biased;
            () = broker.draining.cancelled() => {
                Err(Failure { retry_delay: Some(RETRY), ..Failure::new(Reason::Draining, "the broker is shutting down") })
            }
            () = late => Err(Failure::deadline("while listening")),
            event = self.event() => event,
        }
    }

    async fn event(&mut self) -> Result<ListenEvent, Failure> {
        let event = match self.events.try_recv() {
            Ok(event) => event,
            // Behind all that was queued before it.
            Err(_) if self.backlog.overflowed.swap(false, Ordering::AcqRel) => Ok(ListenEvent::Gap(READ_FASTER)),
            Err(_) => {
                let ended = || Err(Failure::new(Reason::Internal, "the listening ended"));
                self.events.recv().await.unwrap_or_else(ended)
            }
        };
        if let Ok(ListenEvent::Heard(heard)) = &event {
            self.backlog.bytes.fetch_sub(size(heard), Ordering::AcqRel);
        }
        event
    }
}

impl Drop for ListenStream {
    fn drop(&mut self) {
        self.hub.leave(self.id);
    }
}

/// What a notification counts for in a queue.
fn size(heard: &Heard) -> usize {
    heard.channel.len() + heard.payload.len() + 64
}

impl Broker {
    /// Starts listening; the first event is `Ready`, or an error.
    ///
    /// # Errors
    /// A field that is not acceptable, too many streams, or a drain.
    pub fn listen(self: &Arc<Self>, request: ListenRequest) -> Result<ListenStream, Failure> {
        self.check(&request.context)?;
        let database = Arc::clone(self.place(&request.context)?.primary());
        let channels = check_channels(request.channels)?;
        let hub = Arc::clone(&database.listening);
        let limit = self.settings().listen_max_streams;
        let joined = hub.join(channels, limit).ok_or_else(|| {
            let message = format!("{limit} Listen streams are open on this database (listen.max_streams)");
            Failure { retry_delay: Some(RETRY), ..Failure::new(Reason::Overloaded, message) }
        })?;
        if joined.is_first {
            let keeper = Keeper { broker: Arc::clone(self), database, hub: Arc::clone(&hub) };
            // It works for every stream: the first one's trace is not its own.
            self.tasks.spawn(keeper.run().instrument(tracing::Span::none()));
        }
        Ok(ListenStream {
            broker: Arc::clone(self),
            hub,
            id: joined.id,
            events: joined.events,
            backlog: joined.backlog,
            deadline: request.deadline,
            _active: self.metrics.listen_stream_active(),
        })
    }
}

/// The channels, each once.
fn check_channels(channels: Vec<String>) -> Result<BTreeSet<Arc<str>>, Failure> {
    if channels.is_empty() {
        return Err(Failure::field(Reason::FieldMissing, "channels", "channels is empty; name at least one"));
    }
    let count = channels.len();
    if count > CHANNELS_MAX {
        let message = format!("{count} channels are given; {CHANNELS_MAX} at most go into one call: make several");
        return Err(Failure::field(Reason::FieldInvalid, "channels", message));
    }
    for (index, channel) in channels.iter().enumerate() {
        let wrong = match channel.len() {
            0 => "is empty; name a channel".to_owned(),
            length if length > CHANNEL_BYTES_MAX => {
                format!("has {length} bytes; PostgreSQL's names have {CHANNEL_BYTES_MAX} at most")
            }
            _ if channel.contains('\0') => "holds a NUL character, which no name can".to_owned(),
            _ => continue,
        };
        let field = format!("channels[{index}]");
        return Err(Failure::field(Reason::FieldInvalid, &field, format!("{field} {wrong}")));
    }
    Ok(channels.into_iter().map(Arc::from).collect())
}
