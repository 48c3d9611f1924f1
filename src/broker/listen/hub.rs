//! Who listens to what on one database: fans notifications out, each stream from the moment when it is told so.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use tokio::sync::{Notify, mpsc};

use super::{Backlog, ListenEvent, QUEUE_BYTES, QUEUE_EVENTS, size};
use crate::{broker::Failure, postgres::Heard, telemetry::Metrics};

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for its first LISTEN.
    Joining,
    /// It hears.
    Listening,
    /// It heard, until this happened; it will be told so when it hears again.
    Interrupted(&'static str),
}

struct Stream {
    channels: BTreeSet<Arc<str>>,
    phase: Phase,
    events: mpsc::Sender<Result<ListenEvent, Failure>>,
    backlog: Arc<Backlog>,
}

impl Stream {
    /// Queues an event, or leaves a mark that some were dropped: then true.
    fn push(&self, event: ListenEvent) -> bool {
        let bytes = if let ListenEvent::Heard(heard) = &event { size(heard) } else { 0 };
        if self.backlog.overflowed.load(Ordering::Acquire) {
            return false;
        }
        let queued = self.backlog.bytes.load(Ordering::Acquire) + bytes <= QUEUE_BYTES && {
            // Counted before it can be taken.
            self.backlog.bytes.fetch_add(bytes, Ordering::AcqRel);
            let sent = self.events.try_send(Ok(event)).is_ok();
            if !sent {
                self.backlog.bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
            sent
        };
        if !queued {
            self.backlog.overflowed.store(true, Ordering::Release);
        }
        !queued
    }
}

#[derive(Default)]
struct State {
    streams: BTreeMap<u64, Stream>,
    /// The streams of each channel.
    channels: HashMap<Arc<str>, BTreeSet<u64>>,
    last_id: u64,
    is_kept: bool,
}

/// What LISTEN and UNLISTEN are needed for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) listen: Vec<Arc<str>>,
    pub(super) unlisten: Vec<Arc<str>>,
}

/// A stream's place in the hub.
pub(super) struct Joined {
    pub(super) id: u64,
    pub(super) events: mpsc::Receiver<Result<ListenEvent, Failure>>,
    pub(super) backlog: Arc<Backlog>,
    /// Nobody keeps a connection: whoever joined must see to it.
    pub(super) is_first: bool,
}

/// The streams of one database.
#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: Notify,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way; what a panic elsewhere left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream in; None when there are `limit` already.
    pub(super) fn join(&self, channels: BTreeSet<Arc<str>>, limit: usize) -> Option<Joined> {
        let (sender, events) = mpsc::channel(QUEUE_EVENTS);
        let backlog = Arc::new(Backlog::default());
        let mut state = self.state();
        if state.streams.len() >= limit {
            return None;
        }
        state.last_id += 1;
        let id = state.last_id;
        for channel in &channels {
            state.channels.entry(Arc::clone(channel)).or_default().insert(id);
        }
        let stream = Stream { channels, phase: Phase::Joining, events: sender, backlog: Arc::clone(&backlog) };
        state.streams.insert(id, stream);
        let is_first = !std::mem::replace(&mut state.is_kept, true);
        drop(state);
        self.changed.notify_one();
        Some(Joined { id, events, backlog, is_first })
    }

    /// Lets a stream go.
    pub(super) fn leave(&self, id: u64) {
        self.state().remove(id);
        self.changed.notify_one();
    }

    /// Resolves after a stream has come or gone.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// True when no stream is left.
    pub(super) fn is_empty(&self) -> bool {
        self.state().streams.is_empty()
    }

    /// True when no stream is left; then nobody keeps a connection, and the next one to join is the first again.
    pub(super) fn is_done(&self) -> bool {
        let mut state = self.state();
        state.is_kept = !state.streams.is_empty();
        !state.is_kept
    }

    /// What is to be changed on a connection that listens to these. When it is nothing, everybody is told that they hear.
    pub(super) fn changes(&self, listening: &BTreeSet<Arc<str>>, metrics: &Metrics) -> Option<Changes> {
        let mut state = self.state();
        let wanted = state.channels.keys().filter(|channel| !listening.contains(*channel));
        let unwanted = listening.iter().filter(|channel| !state.channels.contains_key(*channel));
        let changes = Changes { listen: wanted.cloned().collect(), unlisten: unwanted.cloned().collect() };
        if !changes.listen.is_empty() || !changes.unlisten.is_empty() {
            return Some(changes);
        }
        for stream in state.streams.values_mut() {
            match std::mem::replace(&mut stream.phase, Phase::Listening) {
                Phase::Listening => {}
                Phase::Joining => drop(stream.push(ListenEvent::Ready)),
                Phase::Interrupted(why) => {
                    metrics.listen_gap("reconnect");
                    stream.push(ListenEvent::Gap(why));
                }
            }
        }
        None
    }

    /// Hands a notification to whoever listens to its channel.
    pub(super) fn hear(&self, heard: Heard, metrics: &Metrics) {
        let state = self.state();
        let Some(ids) = state.channels.get(heard.channel.as_str()) else { return };
        let heard = Arc::new(heard);
        for stream in ids.iter().filter_map(|id| state.streams.get(id)) {
            if stream.phase == Phase::Listening && stream.push(ListenEvent::Heard(Arc::clone(&heard))) {
                metrics.listen_gap("overflow");
            }
        }
    }

    /// Nobody hears any more, for this reason.
    pub(super) fn interrupt(&self, why: &'static str) {
        for stream in self.state().streams.values_mut() {
            if stream.phase == Phase::Listening {
                stream.phase = Phase::Interrupted(why);
            }
        }
    }

    /// Ends all streams: nothing will be heard any more.
    pub(super) fn end_all(&self, failure: &Failure) {
        let mut state = self.state();
        for id in state.streams.keys().copied().collect::<Vec<_>>() {
            if let Some(stream) = state.remove(id) {
                // A full queue is cut short: its end is seen behind it.
                let _ = stream.events.try_send(Err(failure.clone()));
            }
        }
    }

    /// Ends the streams that have not heard anything yet: no connection could be made.
    pub(super) fn refuse_joining(&self, failure: &Failure) {
        let mut state = self.state();
        let joining = state.streams.iter().filter(|(_, stream)| stream.phase == Phase::Joining);
        for id in joining.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(stream) = state.remove(id) {
                // Nothing was queued before it.
                let _ = stream.events.try_send(Err(failure.clone()));
            }
        }
    }
}

impl State {
    fn remove(&mut self, id: u64) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        for channel in &stream.channels {
            if let Some(ids) = self.channels.get_mut(channel) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.channels.remove(channel);
                }
            }
        }
        Some(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(channel: &str, payload: &str) -> Heard {
        Heard { channel: channel.into(), payload: payload.into() }
    }

    fn join(hub: &Hub, channels: &[&str]) -> Joined {
        hub.join(channels.iter().map(|channel| Arc::from(*channel)).collect(), 10).expect("there is room")
    }

    fn texts(joined: &mut Joined) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(Ok(event)) = joined.events.try_recv() {
            texts.push(match event {
                ListenEvent::Ready => "ready".to_owned(),
                ListenEvent::Heard(heard) => heard.payload.clone(),
                ListenEvent::Gap(why) => format!("gap: {why}"),
            });
        }
        texts
    }

    #[test]
    fn a_stream_hears_its_channels_from_ready_on_and_is_told_of_gaps() {
        let (hub, metrics) = (Hub::default(), Metrics::new());
        let mut first = join(&hub, &["a"]);
        assert!(first.is_first);
        hub.hear(heard("a", "too early"), &metrics);
        let changes = hub.changes(&BTreeSet::new(), &metrics).expect("it listens to nothing yet");
        assert_eq!((changes.listen, changes.unlisten), (vec![Arc::from("a")], vec![]));
        let listening = BTreeSet::from([Arc::from("a")]);
        assert!(hub.changes(&listening, &metrics).is_none());
        let mut second = join(&hub, &["a", "b"]);
        assert!(!second.is_first);
        hub.hear(heard("a", "1"), &metrics);
        let changes = hub.changes(&listening, &metrics).expect("another channel");
        assert_eq!((changes.listen, changes.unlisten), (vec![Arc::from("b")], vec![]));
        let listening = BTreeSet::from([Arc::from("a"), Arc::from("b")]);
        assert!(hub.changes(&listening, &metrics).is_none());
        hub.hear(heard("b", "2"), &metrics);
        hub.interrupt("lost");
        hub.hear(heard("b", "nobody hears"), &metrics);
        assert!(hub.changes(&listening, &metrics).is_none());
        hub.hear(heard("a", "3"), &metrics);
        assert_eq!(texts(&mut first), ["ready", "1", "gap: lost", "3"]);
        assert_eq!(texts(&mut second), ["ready", "2", "gap: lost", "3"]);

        hub.leave(second.id);
        let changes = hub.changes(&listening, &metrics).expect("a channel that nobody wants");
        assert_eq!((changes.listen, changes.unlisten), (vec![], vec![Arc::from("b")]));
        assert!(!hub.is_done());
        hub.leave(first.id);
        assert!(hub.is_done());
        assert!(join(&hub, &["a"]).is_first);
    }

    #[test]
    fn a_queue_is_bounded_by_events_and_by_bytes() {
        for payload in ["", &"x".repeat(7000)] {
            let (hub, metrics) = (Hub::default(), Metrics::new());
            let (mut slow, mut fast) = (join(&hub, &["a"]), join(&hub, &["a"]));
            assert!(hub.changes(&BTreeSet::from([Arc::from("a")]), &metrics).is_none());
            let mut taken = 0;
            for _ in 0..2 * QUEUE_EVENTS {
                hub.hear(heard("a", payload), &metrics);
                taken += texts(&mut fast).len();
                fast.backlog.bytes.store(0, Ordering::Release);
            }
            assert_eq!(taken, 2 * QUEUE_EVENTS + 1, "a slow one holds nobody up");
            assert!(slow.backlog.overflowed.load(Ordering::Acquire));
            let queued = texts(&mut slow).len();
            assert!(queued <= QUEUE_EVENTS && queued * payload.len() <= QUEUE_BYTES, "{queued}");
            assert!(metrics.render().contains("tidegate_listen_gaps_total{reason=\"overflow\"} 1"));
        }
    }
}
