//! The stream of the topology: the newest whenever it has changed and the reader has room, never more often than asked.

use std::{sync::Arc, time::Duration, time::Instant};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;

use super::{access::Caller, reply};
use crate::{
    broker::{Broker, Failure, Reason},
    clock,
    grpc::accept::Call,
    model::Deadline,
    proto,
};

/// One that watches.
pub(super) struct Watcher<A> {
    broker: Arc<Broker>,
    /// Judges the caller, before each answer: a token may have been changed meanwhile.
    admit: A,
    caller: Caller,
    changes: watch::Receiver<u64>,
    min_interval: Duration,
    deadline: Option<Deadline>,
    answered_at: Option<Instant>,
}

impl<A: Fn(&Caller) -> Result<(), Failure>> Watcher<A> {
    pub(super) fn new(
        broker: Arc<Broker>,
        admit: A,
        caller: Caller,
        min_interval: Duration,
        deadline: Option<Deadline>,
    ) -> Self {
        let changes = broker.topology_changes();
        Watcher { broker, admit, caller, changes, min_interval, deadline, answered_at: None }
    }

    /// The messages; an error is the last. Nothing is made before it is asked for, so nothing queues up.
    pub(super) fn messages(self, call: Call) -> impl Stream<Item = Result<proto::WatchTopologyResponse, Status>> + Send
    where
        A: Send + 'static,
    {
        stream::unfold(Some((call, self)), |state| async {
            let (call, mut watcher) = state?;
            match watcher.next().await {
                Ok(topology) => {
                    Some((Ok(proto::WatchTopologyResponse { topology: Some(topology) }), Some((call, watcher))))
                }
                Err(failure) => Some((Err(call.failed(&failure)), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<proto::Topology, Failure> {
        let broker = Arc::clone(&self.broker);
        let deadline = self.deadline;
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.instant().into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = broker.drain_begun() => return Err(draining()),
            () = late => return Err(Failure::new(Reason::DeadlineExceeded, "the deadline passed while watching")),
            changed = self.changed() => changed?,
        }
        (self.admit)(&self.caller)?;
        // Before the look: a change that comes behind it is another one.
        self.changes.mark_unchanged();
        let now = clock::now();
        self.answered_at = Some(now);
        Ok(reply::topology(&self.broker.report(), now))
    }

    /// The first answer waits for nothing.
    async fn changed(&mut self) -> Result<(), Failure> {
        let Some(answered_at) = self.answered_at else { return Ok(()) };
        // The monitor ends with the broker.
        self.changes.changed().await.map_err(|_| draining())?;
        tokio::time::sleep_until((answered_at + self.min_interval).into()).await;
        Ok(())
    }
}

fn draining() -> Failure {
    let retry_delay = Some(Duration::from_millis(250));
    Failure { retry_delay, ..Failure::new(Reason::Draining, "the broker is shutting down") }
}
