//! What a caller must see and what it has written: its tokens and its session's slot, read before a read and raised after
//! a write.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Broker, Context, Failure, Reason, database::Database, placement};
use crate::{
    clock,
    model::{Binding, ClusterView, HistoryPoint, Lsn, Marks, Position, Timeline, bind},
    position::{SlotIndex, TokenError, TokenPosition, merge},
    topology::Snapshot,
};

/// The longest session id, in bytes.
const SESSION_ID_MAX: usize = 128;
/// The most tokens that one call may carry. Our clients need few; one that compares none carries as many as it has calls at a
/// time. So many are verified in less than 0.1 ms, and in some 3 ms at their longest.
const TOKENS_MAX: usize = 256;

/// Where a committed write left the primary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) system_identifier: u64,
    pub(crate) timeline: Timeline,
    pub(crate) lsn: Lsn,
}

/// A caller's positions.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    tokens: Vec<TokenPosition>,
    slot: Option<SlotIndex>,
    /// While its database is being moved: what the caller has written to that database on this side. The cluster's
    /// positions would not do: other databases' writes raise them too, and would keep its reads here for good.
    trail: Option<Trail>,
}

#[derive(Debug, Clone)]
struct Trail {
    kept: Arc<placement::Trail>,
    slot: Option<SlotIndex>,
}

impl Reach {
    /// Checks the session id and the tokens.
    pub(crate) fn of(broker: &Broker, database: &Database, context: &Context) -> Result<Reach, Failure> {
        let length = context.session_id.len();
        if length > SESSION_ID_MAX {
            let message = format!("context.session_id has {length} bytes; {SESSION_ID_MAX} at most are allowed");
            return Err(Failure::field(Reason::FieldInvalid, "context.session_id", message));
        }
        if context.positions.len() > TOKENS_MAX {
            let message = format!(
                "the call carries {} position tokens; {TOKENS_MAX} at most are allowed",
                context.positions.len()
            );
            return Err(Failure::field(Reason::FieldInvalid, "context.positions", message));
        }
        let lists =
            context.positions.iter().filter(|token| !token.is_empty()).map(|token| broker.token_key.verify(token));
        let lists = lists
            .collect::<Result<Vec<_>, _>>()
            .inspect_err(|error| broker.metrics.position_token_refused(refusal(error)))?;
        Ok(Reach::at(merge(lists), broker, database, context))
    }

    /// The same caller's, on another side of its database: what was checked once is not checked again.
    pub(crate) fn beside(&self, broker: &Broker, database: &Database, context: &Context) -> Reach {
        Reach::at(self.tokens.clone(), broker, database, context)
    }

    fn at(tokens: Vec<TokenPosition>, broker: &Broker, database: &Database, context: &Context) -> Reach {
        let session_id = &context.session_id;
        let slot_of = |name: &str| (!session_id.is_empty()).then(|| broker.positions.slot_of(name, session_id));
        let slot = slot_of(&database.positions_name);
        let trail = database.trail.load_full().map(|kept| Trail { slot: slot_of(&kept.name), kept });
        Reach { tokens, slot, trail }
    }

    /// What binds a read of the cluster now.
    pub(crate) fn binding(&self, broker: &Broker, database: &Database, snapshot: &Snapshot, now: Instant) -> Binding {
        if broker.blindness.is_on() {
            return Binding::NoPosition;
        }
        let kept = (&*database.positions_name, self.slot);
        self.bound_by(kept, self.slot.is_some(), broker, database, snapshot, now)
    }

    /// Whether what the caller wrote to this database on this side still binds its reads.
    pub(crate) fn is_bound(&self, broker: &Broker, database: &Database, snapshot: &Snapshot, now: Instant) -> bool {
        // Without the cluster's floor, which says nothing of this caller.
        let is_bound_by = |kept: (&str, Option<SlotIndex>)| {
            let binding = self.bound_by(kept, false, broker, database, snapshot, now);
            !matches!(binding, Binding::NoPosition | Binding::Expired)
        };
        self.trail.as_ref().is_some_and(|Trail { kept, slot }| {
            // What was written before there was a trail is among all that was written to the cluster.
            let is_young = now < kept.since + broker.settings().stick_timeout;
            self.is_held(broker)
                || is_bound_by((&kept.name, *slot))
                || (is_young && is_bound_by((&database.positions_name, self.slot)))
        })
    }

    /// What is seen from now on leaves no trail on this side: or a caller that goes on reading would never move.
    pub(super) fn leave_no_trail(&mut self) {
        self.trail = None;
    }

    /// What binds by the positions that are kept under a name.
    fn bound_by(
        &self,
        (name, slot): (&str, Option<SlotIndex>),
        has_session: bool,
        broker: &Broker,
        database: &Database,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Binding {
        let stick = broker.settings().stick_timeout;
        let session = slot.map(|slot| broker.positions.load(slot)).unwrap_or_default();
        let mut positions: Vec<Position> = session.positions().to_vec();
        let mut primary_only_until = session.primary_only_until;
        let unix_ms = clock::unix_ms();
        for token in self.tokens.iter().filter(|token| *token.cluster == *name) {
            // A time ahead of this clock is another broker's skew: the position binds for the whole timeout from now.
            let age = Duration::from_millis(unix_ms.saturating_sub(token.written_unix_ms));
            // A clock that cannot go back that far holds no such old position: without a time it never expires.
            let written = now.checked_sub(age);
            if let Some(since) = token.primary_only_unix_ms {
                let age = Duration::from_millis(unix_ms.saturating_sub(since));
                // Its end lies where it lay, also in the past: while no primary answers, time stands still.
                primary_only_until = primary_only_until.max(now.checked_sub(age).map(|since| since + stick));
            }
            let (system_identifier, timeline, lsn) = (token.system_identifier, token.timeline, token.lsn);
            // Its broker's clock may be behind this one's; but what is in hand was written before now.
            let written_by = written.map(|written| (written + broker.settings().max_clock_skew).min(now));
            let point = HistoryPoint::Named { system_identifier, timeline, lsn };
            positions.push(Position { point, written, written_by });
        }
        let marks = Marks { positions: &positions, primary_only_until, has_session };
        bind(&marks, snapshot.cluster(database.positions_in), &snapshot.histories, now, stick)
    }

    /// The caller's tokens, merged into one; empty when it carries none.
    pub(crate) fn token(&self, broker: &Broker) -> String {
        broker.token_key.sign(&self.tokens)
    }

    /// Stores where a write ended, before its caller gets the answer; the token says the same to whoever carries it.
    pub(crate) fn record(&self, broker: &Broker, database: &Database, written: Written) -> String {
        let token = self.store(broker, database, written);
        broker.topology.await_position(database.positions_in, written.lsn);
        token
    }

    /// The same, without telling the probers.
    pub(super) fn store(&self, broker: &Broker, database: &Database, written: Written) -> String {
        let now = clock::now();
        let snapshot = broker.topology.snapshot();
        let history = snapshot.histories.find(database.positions_in, written.system_identifier, written.timeline);
        for slot in self.slots() {
            match history {
                Some(history) => broker.positions.record(slot, history, written.lsn, now),
                // A promotion that the monitor has not seen yet: the position cannot be named, the primary can.
                None => broker.positions.mark_primary_only(slot, now + broker.settings().stick_timeout),
            }
        }
        self.token_with(broker, database, written.system_identifier, written.timeline, written.lsn, history.is_none())
    }

    /// Sends the session's reads to the primary for one stick timeout: what became of a write is not known (rule 3).
    pub(crate) fn mark_unknown(&self, broker: &Broker, database: &Database) -> String {
        self.extend_unknown(broker);
        self.unknown_token(broker, database)
    }

    /// The token's part of [`Reach::mark_unknown`] alone.
    pub(super) fn unknown_token(&self, broker: &Broker, database: &Database) -> String {
        let snapshot = broker.topology.snapshot();
        let view: &ClusterView = snapshot.cluster(database.positions_in);
        match (view.system_identifier, view.timeline) {
            (Some(system), Some(timeline)) => self.token_with(broker, database, system, timeline, Lsn::ZERO, true),
            // Without any primary ever seen nothing can have been written.
            _ => self.token(broker),
        }
    }

    /// The session's part of [`Reach::mark_unknown`] alone.
    pub(crate) fn extend_unknown(&self, broker: &Broker) {
        self.mark_until(broker, clock::now() + broker.settings().stick_timeout);
    }

    /// Sends the session's reads to the primary until then.
    pub(super) fn mark_until(&self, broker: &Broker, until: Instant) {
        for slot in self.slots() {
            broker.positions.mark_primary_only(slot, until);
        }
    }

    fn slots(&self) -> impl Iterator<Item = SlotIndex> {
        self.slot.into_iter().chain(self.trail.as_ref().and_then(|trail| trail.slot))
    }

    /// The session's slot.
    pub(super) fn slot(&self) -> Option<SlotIndex> {
        self.slot
    }

    /// True when the broker itself remembers something for this caller.
    pub(crate) fn has_session(&self) -> bool {
        self.slot.is_some()
    }

    fn token_with(
        &self,
        broker: &Broker,
        database: &Database,
        system_identifier: u64,
        timeline: Timeline,
        lsn: Lsn,
        primary_only: bool,
    ) -> String {
        let cluster = database.positions_name.to_string();
        let written_unix_ms = clock::unix_ms();
        let primary_only_unix_ms = primary_only.then_some(written_unix_ms);
        let position =
            TokenPosition { cluster, system_identifier, timeline, lsn, written_unix_ms, primary_only_unix_ms };
        let trail =
            self.trail.iter().map(|trail| TokenPosition { cluster: trail.kept.name.to_string(), ..position.clone() });
        let positions = trail.chain([position.clone()]).collect();
        broker.token_key.sign(&merge([self.tokens.clone(), positions]))
    }
}

fn refusal(error: &TokenError) -> &'static str {
    match error {
        TokenError::Foreign => "foreign",
        _ => "malformed",
    }
}
