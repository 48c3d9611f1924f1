//! What is known of one statement: the verdict whether it is clean, and how long it takes. The verdict is asked for beside a
//! read, never in front of it: until it is there, the read is wrapped and its connection reset like any other.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tracing::Instrument;

use super::{
    Broker, Failure, Outcome,
    caller::Caller,
    choose::Chooser,
    clean::{Deed, Judge},
    database::Database,
    lanes::LaneCounts,
    pools::Seat,
};
use crate::{
    clock,
    model::{ClusterView, Crowd, Deadline, Demotion, HostId, Lsn, Pace, Role, Run, Timeline},
    postgres::{Facts, Objection, RawRow, Vantage},
    sql::{self, Footprint},
};

/// Before a statement's verdict is asked for it must have run so often: one that never comes again is not worth it.
const RUNS_MIN: u32 = 2;

/// Why a statement is not clean, or where it is.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Clean(Option<Arc<Proof>>),
    NotClean(Arc<str>),
}

/// What a verdict of a primary's catalogue rests on. Elsewhere it holds only where the catalogue is as new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    branch: Branch,
    as_of: Lsn,
    search_path: Arc<str>,
}

impl Proof {
    /// Whether it holds for a connection that has been proved to be one to the primary.
    pub(super) fn holds_on_primary(&self, view: &ClusterView, facts: &Facts) -> bool {
        view.system_identifier.zip(view.timeline) == Some(self.branch) && facts.search_path == self.search_path
    }
}

/// Of a cluster's history: system identifier and timeline.
pub(super) type Branch = (u64, Timeline);

impl Verdict {
    /// Of what a server objects to; else what it rests on.
    pub(super) fn of(objections: &[Objection], proof: impl FnOnce() -> Option<Arc<Proof>>) -> Verdict {
        if objections.is_empty() {
            return Verdict::Clean(proof());
        }
        Verdict::NotClean(objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ").into())
    }
}

#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) verdict: Verdict,
    /// Whatever the schema becomes: the text alone says so.
    pub(super) by_text: bool,
    pub(super) asked_at: Instant,
    pub(super) schema: u64,
}

/// What makes a verdict stale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freshness {
    pub(super) now: Instant,
    pub(super) schema: u64,
    pub(super) max_age: Duration,
    /// How long a read may hold up others.
    pub(super) patience: Duration,
}

impl Kept {
    /// Whether it still holds, for three quarters of its time at least if it `is_young`.
    fn holds(&self, fresh: Freshness, is_young: bool) -> bool {
        let max_age = if is_young { fresh.max_age.mul_f64(0.75) } else { fresh.max_age };
        self.by_text || (self.schema == fresh.schema && fresh.now.saturating_duration_since(self.asked_at) < max_age)
    }

    /// Whether a failover has not ended what it rests on; true while nobody knows.
    fn is_of(&self, branch: Option<Branch>) -> bool {
        match (&self.verdict, branch) {
            (Verdict::Clean(Some(proof)), Some(branch)) => proof.branch == branch,
            _ => true,
        }
    }
}

/// One statement's text, and what is known of it.
pub(super) struct Known {
    pub(super) sql: Arc<str>,
    /// Stands for the text, which may be long.
    pub(super) id: u64,
    deed: Deed,
    state: Mutex<State>,
    is_asked_for: AtomicBool,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    pace: Pace,
    runs: u32,
}

impl State {
    fn is_wanted(&self, fresh: Freshness, branch: Option<Branch>) -> bool {
        let is_kept = self.kept.as_ref().is_some_and(|kept| kept.holds(fresh, true) && kept.is_of(branch));
        self.runs >= RUNS_MIN && !is_kept
    }
}

impl Known {
    pub(super) fn new(deed: Deed, sql: &str, id: u64) -> Known {
        Known { sql: sql.into(), id, deed, state: Mutex::default(), is_asked_for: AtomicBool::new(false) }
    }

    /// Of texts that are too long to be judged.
    pub(super) fn too_long() -> Known {
        let known = Known::new(Deed::Read, "", 0);
        let why = sql::too_long(usize::MAX).map(|why| why.to_string()).unwrap_or_default();
        known.keep(Kept { verdict: Verdict::NotClean(why.into()), by_text: true, asked_at: clock::now(), schema: 0 });
        known
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict, if it holds.
    pub(super) fn verdict(&self, fresh: Freshness) -> Option<Verdict> {
        let state = self.lock();
        state.kept.as_ref().filter(|kept| kept.holds(fresh, false)).map(|kept| kept.verdict.clone())
    }

    pub(super) fn keep(&self, kept: Kept) {
        self.lock().kept = Some(kept);
    }

    /// What a server is to be asked about; or the verdict that needs no server, which is kept.
    pub(super) fn footprint(&self, schema: u64) -> Result<Footprint, Verdict> {
        let footprint = match self.deed {
            Deed::Read => sql::footprint(&self.sql),
            Deed::Write => sql::footprint_of_write(&self.sql),
        };
        footprint.map_err(|why| {
            let verdict = Verdict::NotClean(why.to_string().into());
            self.keep(Kept { verdict: verdict.clone(), by_text: true, asked_at: clock::now(), schema });
            verdict
        })
    }

    /// What proves that it is clean, if anything does.
    pub(super) fn proof(&self, fresh: Freshness) -> Option<Arc<Proof>> {
        match self.verdict(fresh)? {
            Verdict::Clean(proof) => proof,
            Verdict::NotClean(_) => None,
        }
    }

    /// Whether the verdict should be asked for again before it is too old, if one proves the statement clean, and it is
    /// short as well, and fits such a message.
    pub(super) fn for_a_lane(&self, fresh: Freshness, message_bytes: usize) -> Option<bool> {
        let state = self.lock();
        let kept = state.kept.as_ref().filter(|kept| kept.holds(fresh, false))?;
        match &kept.verdict {
            Verdict::Clean(Some(_)) if state.pace.is_short(fresh.now) && state.pace.fits(message_bytes, fresh.now) => {
                Some(!kept.holds(fresh, true))
            }
            _ => None,
        }
    }

    /// A run came to its end; answers whether its verdict is wanted.
    fn ran(&self, run: Run, crowd: &Crowd, fresh: Freshness, branch: Option<Branch>) -> (bool, Option<Demotion>) {
        let mut state = self.lock();
        state.runs = state.runs.saturating_add(1);
        (state.is_wanted(fresh, branch), state.pace.ran(run, fresh.patience, crowd, fresh.now))
    }

    /// It is about to run in a write; answers whether its verdict is wanted.
    pub(super) fn runs(&self, fresh: Freshness, branch: Option<Branch>) -> bool {
        let mut state = self.lock();
        state.runs = state.runs.saturating_add(1);
        state.is_wanted(fresh, branch)
    }

    /// A run on a lane came to its end.
    pub(super) fn ran_on_lane(&self, run: Run, crowd: &Crowd, patience: Duration) -> Option<Demotion> {
        self.lock().pace.ran(run, patience, crowd, clock::now())
    }

    /// It held up others on a lane.
    pub(super) fn stalled(&self) -> Option<Demotion> {
        self.lock().pace.stalled(clock::now())
    }

    /// Its result, which is not large, fitted no message of so many bytes.
    pub(super) fn did_not_fit(&self, message_bytes: usize) -> Option<Demotion> {
        self.lock().pace.did_not_fit(message_bytes, clock::now())
    }
}

/// Measures one run of a statement on a connection of its own: of those databases of which it matters.
pub(super) struct Measure {
    known: Option<Arc<Known>>,
    began: Instant,
    bytes: usize,
}

impl Measure {
    pub(super) fn begin(known: Option<&Arc<Known>>) -> Measure {
        Measure { known: known.cloned(), began: clock::now(), bytes: 0 }
    }

    pub(super) fn row(&mut self, row: &RawRow) {
        self.bytes += row.size();
    }

    /// The last row has come.
    pub(super) fn end(&self, broker: &Arc<Broker>, database: &Arc<Database>) {
        let Some(known) = &self.known else { return };
        let fresh = broker.freshness(database);
        let run = Run { took: fresh.now.saturating_duration_since(self.began), bytes: self.bytes };
        let branch = broker.judging_primary(database).map(|(_, branch)| branch);
        let (is_wanted, demotion) = known.ran(run, &database.lane_counts.crowd, fresh, branch);
        database.lane_counts.demoted(demotion);
        if is_wanted {
            broker.judge_beside(database, known);
        }
    }
}

impl Broker {
    pub(super) fn freshness(&self, database: &Database) -> Freshness {
        let settings = self.settings();
        let (max_age, patience) = (settings.statements.max_age, settings.lanes.patience);
        Freshness { now: clock::now(), schema: database.judge.schema(), max_age, patience }
    }

    /// The statement of a read, if it matters whether it is clean.
    pub(super) fn know(&self, database: &Database, sql: &str) -> Option<Arc<Known>> {
        self.wants_verdicts(database).then(|| database.judge.enter(Deed::Read, sql))
    }

    /// Not behind a proxy, where nothing else runs anyway, and not while lanes are off.
    pub(super) fn wants_verdicts(&self, database: &Database) -> bool {
        !database.is_pooled() && !database.follows() && self.settings().lanes.connections > 0
    }

    /// Asks for a statement's verdict, beside what goes on; one question at a time of each, and few in all.
    pub(super) fn judge_beside(self: &Arc<Self>, database: &Arc<Database>, known: &Arc<Known>) {
        let Some(place) = database.judge.place() else { return };
        if known.is_asked_for.swap(true, Ordering::AcqRel) {
            return;
        }
        let (broker, database, known) = (Arc::clone(self), Arc::clone(database), Arc::clone(known));
        let asking = async move {
            let _place = place;
            let asked = Asked(&known);
            if let Err(failure) = broker.ask_beside(&database, asked.0).await {
                tracing::debug!(database = %database.name, reason = failure.reason.as_str(), "no verdict on a statement");
            }
        };
        tokio::spawn(asking.in_current_span());
    }

    async fn ask_beside(&self, database: &Database, known: &Known) -> Result<(), Failure> {
        // Read before asking: what changes meanwhile makes the verdict stale, never the reverse.
        let (asked_at, schema) = (clock::now(), database.judge.schema());
        let Ok(footprint) = known.footprint(schema) else { return Ok(()) };
        let Some((host, branch)) = self.judging_primary(database) else { return Ok(()) };
        let deadline = Deadline::after(asked_at, Judge::ASK_LIMIT);
        let caller = Caller::new(tokio_util::sync::CancellationToken::new(), deadline);
        let mut seat = database.read(host, true, &caller).await?;
        let findings = seat.findings(&footprint, Judge::ASK_LIMIT).await;
        let findings = findings.map_err(|error| Failure::from_exchange(error, Outcome::NotExecuted))?;
        // Behind the answer: it was the primary's all the time.
        if self.judging_primary(database) != Some((host, branch)) || !self.is_primary(database, host, seat.facts()) {
            return Ok(());
        }
        let snapshot = self.topology.snapshot();
        let view = snapshot.cluster(database.cluster);
        let as_of = findings.as_of.without_page_header(view.geometry);
        let search_path = Arc::clone(&seat.facts().search_path);
        let proof = || Some(Arc::new(Proof { branch, as_of, search_path }));
        let verdict = Verdict::of(&findings.objections, proof);
        // A read's holds on replicas that are known to have replayed so much: those that are not are asked soon.
        if matches!((&verdict, known.deed), (Verdict::Clean(_), Deed::Read)) && view.has_replica_behind(as_of) {
            self.topology.seek_position(database.cluster, as_of);
        }
        known.keep(Kept { verdict, by_text: false, asked_at, schema });
        Ok(())
    }

    /// Only a primary is asked: a replica may have yet to replay what this broker knows to have changed the schema.
    fn judging_primary(&self, database: &Database) -> Option<(HostId, Branch)> {
        let snapshot = self.topology.snapshot();
        let view = snapshot.cluster(database.cluster);
        Some((view.primary?, (view.system_identifier?, view.timeline?)))
    }
}

/// The mark that a verdict is asked for, taken off however that ends.
struct Asked<'a>(&'a Known);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.is_asked_for.store(false, Ordering::Release);
    }
}

impl Chooser<'_> {
    /// Whether a read on this connection needs no wrap.
    pub(super) fn is_clean(&self, known: Option<&Arc<Known>>, seat: &Seat, host: HostId, role: Role) -> bool {
        let fresh = self.broker.freshness(self.database);
        let proof = known.filter(|_| seat.is_new_enough(true)).and_then(|known| known.proof(fresh));
        proof.is_some_and(|proof| self.covers(&proof, seat.vantage(), host, role))
    }

    /// Whether a verdict holds for a connection: names mean the same there, and its catalogue is at least as new as the one
    /// that was asked. The connection to a primary has been proved to be one.
    pub(super) fn covers(&self, proof: &Proof, vantage: Vantage<'_>, host: HostId, role: Role) -> bool {
        let snapshot = self.broker.topology.snapshot();
        let view = snapshot.cluster(self.database.cluster);
        let is_of_the_branch = view.system_identifier.zip(view.timeline) == Some(proof.branch);
        let Some(host) = view.host(host).filter(|_| is_of_the_branch) else { return false };
        vantage.facts.search_path == proof.search_path
            && match role {
                Role::Primary => true,
                Role::Replica => {
                    let measured_at =
                        host.measured_at.filter(|_| host.replay.is_some_and(|replay| replay >= proof.as_of));
                    host.history == view.history && vantage.sees(proof.as_of, host.incarnation, measured_at)
                }
            }
    }
}

impl LaneCounts {
    pub(super) fn demoted(&self, demotion: Option<Demotion>) {
        if let Some(demotion) = demotion {
            self.demotions[demotion as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::test_support::{origin, timeline};

    #[test]
    fn a_failover_has_the_verdict_asked_for_anew_by_the_next_run() {
        let known = Known::new(Deed::Read, "SELECT 1", 0);
        let now = origin();
        let patience = Duration::from_millis(50);
        let fresh = Freshness { now, schema: 0, max_age: Duration::from_secs(60), patience };
        let (before, after) = (Some((7, timeline(1))), Some((7, timeline(2))));
        let is_wanted = |branch| known.ran(Run { took: Duration::ZERO, bytes: 1 }, &Crowd::default(), fresh, branch).0;
        assert_eq!([is_wanted(before), is_wanted(before)], [false, true]);
        let proof = Proof { branch: (7, timeline(1)), as_of: Lsn::new(1), search_path: Arc::default() };
        let verdict = Verdict::Clean(Some(Arc::new(proof)));
        known.keep(Kept { verdict, by_text: false, asked_at: now, schema: 0 });
        assert_eq!([is_wanted(before), is_wanted(None), is_wanted(after)], [false, false, true]);
    }
}
