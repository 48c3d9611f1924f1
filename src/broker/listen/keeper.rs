//! Keeps the listening connection of one database for as long as anybody listens: to the primary, wherever that is now.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::hub::Hub;
use crate::{
    broker::{Broker, Failure, database::Database},
    clock,
    model::{Backoff, Decision, HostId, HostSet, route_write},
    postgres::Listener,
};

/// Attempts to connect before those who have not heard anything yet are told.
const ATTEMPTS: u32 = 4;
const BACKOFF_BASE: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that hears nothing looks the same as one whose server is gone: it is asked this often, and lost when it
/// does not answer for so long. LISTEN has the same limit.
const PING_EVERY: Duration = Duration::from_secs(3);
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

const LOST: &str = "the connection to PostgreSQL was lost";
const MOVED: &str = "the primary has changed";

pub(super) struct Keeper {
    pub(super) broker: Arc<Broker>,
    pub(super) database: Arc<Database>,
    pub(super) hub: Arc<Hub>,
}

impl Keeper {
    /// Runs until nobody listens any more.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_MAX);
        let mut attempts = 0;
        let mut changes = self.broker.topology.primary_changes();
        while !self.hub.is_done() {
            changes.mark_unchanged();
            let connected = match self.database.check() {
                Ok(()) => self.connect().await,
                Err(failure) => {
                    self.hub.end_all(&failure);
                    Err(failure)
                }
            };
            match connected {
                Ok((host, listener)) => {
                    let _active = self.broker.metrics.listener_active();
                    let mut listening = BTreeSet::new();
                    let why = self.keep(host, &listener, &mut listening).await;
                    self.hub.interrupt(why);
                    if !listening.is_empty() {
                        // It has served: the next attempt is the first again.
                        attempts = 0;
                        backoff.reset();
                    }
                }
                Err(failure) => {
                    attempts += 1;
                    if attempts >= ATTEMPTS {
                        self.hub.refuse_joining(&failure);
                    }
                }
            }
            self.pause(backoff.next(rand::random()), &mut changes).await;
        }
    }

    /// Waits, unless everybody leaves meanwhile, or another primary is found.
    async fn pause(&self, pause: Duration, changes: &mut watch::Receiver<u64>) {
        let everybody_left = async {
            while !self.hub.is_empty() {
                self.hub.changed().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = everybody_left => {}
            // The monitor ends with the broker.
            Ok(()) = changes.changed() => {}
        }
    }

    async fn connect(&self) -> Result<(HostId, Listener), Failure> {
        let host = {
            let snapshot = self.broker.topology.snapshot();
            match route_write(snapshot.cluster(self.database.cluster), HostSet::EMPTY) {
                Decision::Send { host, .. } => host,
                // Only reads wait for a replica.
                Decision::Wait { .. } => return Err(Failure::outvoted()),
                Decision::Reject(rejection) => return Err(Failure::rejected(rejection, &self.database.name)),
            }
        };
        let (target, identity) = (self.database.hosts.target(host), self.database.hosts.identity(host));
        let (Some(target), Some(identity)) = (target, identity) else { return Err(Failure::outvoted()) };
        let (hub, metrics) = (Arc::clone(&self.hub), self.broker.metrics.clone());
        let hear = move |heard| hub.hear(heard, &metrics);
        let listener = Listener::open(&target, &identity, hear).await?;
        if !self.broker.is_primary(&self.database, host, listener.facts()) {
            return Err(Failure::outvoted());
        }
        Ok((host, listener))
    }

    /// Listens to what is wanted until the connection is of no more use; answers why.
    async fn keep(&self, host: HostId, listener: &Listener, listening: &mut BTreeSet<Arc<str>>) -> &'static str {
        let mut topology = self.broker.topology.changes();
        let mut ping_at = clock::now() + PING_EVERY;
        loop {
            while let Some(changes) = self.hub.changes(listening, &self.broker.metrics) {
                if self.hub.is_empty() {
                    return LOST;
                }
                let (listen, unlisten) = (changes.listen.iter(), changes.unlisten.iter());
                let changed = listener.change(listen.map(|name| &**name), unlisten.map(|name| &**name), ANSWER_LIMIT);
                if changed.await.is_err() {
                    return LOST;
                }
                listening.extend(changes.listen);
                listening.retain(|channel| !changes.unlisten.contains(channel));
            }
            if self.hub.is_empty() {
                return LOST;
            }
            topology.mark_unchanged();
            if self.has_moved(host, listener) {
                return MOVED;
            }
            tokio::select! {
                () = listener.ended() => return LOST,
                () = self.database.removed.cancelled() => return LOST,
                () = self.hub.changed() => {}
                // The monitor ends with the broker.
                changed = topology.changed() => if changed.is_err() { return LOST },
                () = tokio::time::sleep_until(ping_at.into()) => {
                    if listener.ping(ANSWER_LIMIT).await.is_err() {
                        return LOST;
                    }
                    ping_at = clock::now() + PING_EVERY;
                }
            }
        }
    }

    /// While no primary is known there is none to go to: the connection may still be to the one that comes back.
    fn has_moved(&self, host: HostId, listener: &Listener) -> bool {
        let known = self.broker.topology.snapshot().cluster(self.database.cluster).primary.is_some();
        let has_left = self.database.hosts.identity(host).is_none();
        known && (has_left || !self.broker.is_primary(&self.database, host, listener.facts()))
    }
}
