//! The rounds: what is measured is measured in turns, so that whatever else the machine does meets all alike. A run that
//! fails is told of and remembered; the others go on.

use std::time::Duration;

use super::{
    arena::{Arena, ArenaError, Load, Outcome},
    broker_counts::{Counts, CountsError},
    h2load,
    plan::Plan,
    report::{Cell, Deadline, FixedRate, Report, Run, System, micros},
    rows::{self, RowsError},
    stats::Latencies,
    workload::{Request, Workload},
};

/// Of the lower of both peaks.
const FIXED_RATE_SHARE: f64 = 0.7;
/// More than there are connections: some wait for one until their deadline, the others for PostgreSQL.
const DEADLINE_CALLERS: u32 = 64;
const DEADLINE: Duration = Duration::from_millis(200);

/// Everything, one after the other, into one report.
pub(super) struct Rounds<'a> {
    pub(super) arena: Arena,
    pub(super) plan: &'a Plan,
    pub(super) report: &'a mut Report,
    pub(super) note: &'a dyn Fn(String),
}

impl Rounds<'_> {
    pub(super) async fn all(mut self) -> Arena {
        match self.arena.choose_bouncer_mode(self.plan.window()).await {
            Ok(mode) => (self.note)(format!("PgBouncer reads the fastest by pgbench -M {}", mode.name())),
            Err(error) => self.problem("PgBouncer", &error),
        }
        for (workload, callers) in &self.plan.cells {
            let cells = self.cells(&System::ALL.map(|system| (system, *callers)), *workload, None).await;
            self.tell(*workload, &cells);
            self.report.cells.extend(cells);
        }
        if let Some(callers) = self.plan.fixed_rate_callers {
            let sweep: Vec<_> = self.plan.direct_connections.iter().map(|number| (System::Direct, *number)).collect();
            let cells = self.cells(&sweep, Workload::Point, None).await;
            self.tell(Workload::Point, &cells);
            self.report.direct_sweep = cells;
            self.fixed_rate(callers).await;
        }
        self.rows().await;
        match self.deadlines().await {
            Ok(deadline) => self.report.deadline = Some(deadline),
            Err(error) => self.problem("deadlines", &error),
        }
        self.arena
    }

    fn problem(&mut self, what: &str, error: &dyn std::fmt::Display) {
        let line = format!("{what}: {error}");
        (self.note)(format!("FAILED {line}"));
        self.report.problems.push(line);
    }

    /// These systems with so many callers, in rounds.
    async fn cells(&mut self, systems: &[(System, u32)], workload: Workload, rate: Option<f64>) -> Vec<Cell> {
        let cell = |(system, callers): &(System, u32)| {
            Cell::new(workload, *callers, *system, self.arena.client_of(*system, workload, rate))
        };
        let mut cells: Vec<Cell> = systems.iter().map(cell).collect();
        for _ in 0..self.plan.settings.rounds {
            for cell in &mut cells {
                if cell.not_possible.is_some() {
                    continue;
                }
                let load = Load { callers: cell.callers, window: self.plan.window(), rate };
                let outcome = self.arena.run(cell.system, workload, load).await;
                match outcome.and_then(Outcome::with_calls) {
                    Ok(Outcome::Measured(measured)) => cell.runs.push(Run::from(&measured)),
                    Ok(Outcome::NotPossible(why)) => cell.not_possible = Some(why),
                    Err(error) => {
                        let at = rate.map_or_else(String::new, |_| " at a fixed rate".into());
                        let who = cell.system.title();
                        self.problem(&format!("{}{at}, {} callers, {who}", workload.title(), cell.callers), &error);
                    }
                }
            }
        }
        cells.into_iter().map(Cell::conclude).collect()
    }

    fn tell(&self, workload: Workload, cells: &[Cell]) {
        let same = cells.windows(2).all(|pair| pair[0].callers == pair[1].callers);
        let words = |cell: &Cell| match same {
            true => cell.in_words(),
            false => format!("{} connections {}", cell.callers, cell.in_words()),
        };
        let callers =
            cells.first().filter(|_| same).map_or_else(String::new, |cell| format!(", {} callers", cell.callers));
        let words: Vec<String> = cells.iter().map(words).collect();
        (self.note)(format!("{}{callers}: {}", workload.title(), words.join(", ")));
    }

    /// Broker and PgBouncer at one rate, which both can do.
    async fn fixed_rate(&mut self, callers: u32) {
        let peak = |system| {
            let cell = self.report.cell(Workload::Point, callers, system)?;
            cell.per_second.map(|rate| rate.median)
        };
        let (Some(ours), Some(theirs)) = (peak(System::Broker), peak(System::PgBouncer)) else { return };
        let rate = ours.min(theirs) * FIXED_RATE_SHARE;
        let systems = [System::PgBouncer, System::Broker].map(|system| (system, callers));
        let cells = self.cells(&systems, Workload::Point, Some(rate)).await;
        (self.note)(format!(
            "one row at {rate:.0}/s, due at any moment: {}",
            cells.iter().map(quantiles).collect::<Vec<_>>().join("; ")
        ));
        self.report.fixed_rate = Some(FixedRate { per_second: rate, callers, cells });
    }

    /// Long results.
    async fn rows(&mut self) {
        let settings = self.plan.settings.clone();
        let streams = rows::streams(&self.arena, settings.stream_rows, settings.rounds).await;
        self.report.streams = self.told("long results", streams);
        if self.plan.python {
            let python = rows::python(&self.arena, settings.python_rows, settings.rounds).await;
            self.report.python = self.told("Python", python);
        }
    }

    fn told(&mut self, what: &str, measured: Result<Vec<super::report::Rows>, RowsError>) -> Vec<super::report::Rows> {
        match measured {
            Ok(rows) => {
                let words = rows.iter().map(|one| format!("{} {:.0} rows/s", one.system, one.median));
                (self.note)(format!("{what}: {}", words.collect::<Vec<_>>().join(", ")));
                rows
            }
            Err(error) => {
                self.problem(what, &error);
                Vec::new()
            }
        }
    }

    /// Calls that outlive their deadline: by how much they are late in hearing of it. The client has no clock of its own
    /// for that, so that it is the broker's answer which is measured.
    async fn deadlines(&mut self) -> Result<Deadline, ArenaError> {
        let (calls, broker) = (self.plan.deadline_calls, &self.arena.broker);
        let before = Counts::ask(broker.http()).await?;
        let request = Request::read("SELECT pg_sleep(10)", &[]);
        let ended = h2load::run_into_deadline(broker.url(), &request, DEADLINE_CALLERS, calls, DEADLINE).await?;
        let (code, made) = ("DEADLINE_EXCEEDED", u64::from(calls));
        let counts = Counts::ask_until(broker.http(), |counts| counts.of(&before, code) >= made).await?;
        let counted = counts.of(&before, code);
        if counted != made {
            return Err(CountsError::Differ { code, counted, made }.into());
        }
        let took = Latencies::from(ended.iter().map(|call| call.took_us).collect::<Vec<_>>());
        let at = |share| took.percentile(share).unwrap_or(u32::MAX);
        let (p50_us, p99_us) = (at(0.5), at(0.99));
        (self.note)(format!(
            "{calls} calls with a deadline of {DEADLINE:?} heard that it was exceeded {} after they were sent (p99 {})",
            micros(p50_us.into()),
            micros(p99_us.into())
        ));
        let late = |took_us: u32| i64::from(took_us) - i64::try_from(DEADLINE.as_micros()).unwrap_or(i64::MAX);
        let (late_p50_us, late_p99_us) = (late(p50_us), late(p99_us));
        let deadline_ms = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
        Ok(Deadline { calls, deadline_ms, late_p50_us, late_p99_us })
    }
}

fn quantiles(cell: &Cell) -> String {
    let shown = [("p50", &cell.p50_us), ("p99", &cell.p99_us), ("p99.9", &cell.p999_us)];
    let shown = shown.map(|(name, figure)| match figure {
        Some(figure) => format!("{name} {}", micros(figure.median)),
        None => format!("{name} failed"),
    });
    let lag = cell.lag_p99_us.map_or_else(String::new, |lag| format!(", sent late by {} (p99)", micros(lag.median)));
    format!("{} {}{lag}", cell.system.title(), shown.join(" "))
}
