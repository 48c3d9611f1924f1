//! What is to be measured, in which order, for how long. Pure.

use super::{CompareArgs, arena::POOL, pgbench, report::Settings, sample::Window, workload::Workload};

const CALLERS: [u32; 6] = [1, 8, 32, 128, 512, 2000];
/// Where a quick run looks at point reads: what the targets are about, and where it looks at all other workloads.
const QUICK_POINT_CALLERS: [u32; 4] = [1, 32, 128, 2000];
const QUICK_CALLERS: [u32; 1] = [32];
/// Numbers of direct connections, of which one is the best.
pub(super) const DIRECT_CONNECTIONS: [u32; 5] = [4, 8, 16, 32, 64];
const STREAM_ROWS: u64 = 1_000_000;
const PYTHON_ROWS: u64 = 200_000;
/// What the target for a fixed rate is about.
pub(super) const FIXED_RATE_CALLERS: u32 = 128;
/// What a run takes beside its window: connections are made, logs are read.
const BESIDE_SECONDS: f64 = 0.6;
/// Everything else: starts, tables, long results, deadlines, idle sessions, charts; and the micro-benchmarks of `make bench`.
const ONCE_SECONDS: f64 = 65.0;

/// The whole run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) settings: Settings,
    /// In the order in which they are measured.
    pub(super) cells: Vec<(Workload, u32)>,
    pub(super) direct_connections: Vec<u32>,
    /// Callers at a fixed rate: as many as the target says, or fewer if so many were not asked for.
    pub(super) fixed_rate_callers: Option<u32>,
    /// Calls that are to run into their deadline.
    pub(super) deadline_calls: u32,
    pub(super) idle_sessions: u32,
    pub(super) python: bool,
}

/// A number of callers.
pub(super) fn callers(text: &str) -> Result<u32, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=16).contains(number) || (number % 16 == 0 && (17..=4000).contains(number)));
    number
        .ok_or_else(|| format!("{text:?}: say 1 to 16, or a multiple of 16 up to 4000, which connections share evenly"))
}

impl Plan {
    /// The plan for a machine with so many cores.
    pub(super) fn new(args: &CompareArgs, cores: u32) -> Plan {
        let workloads = if args.workloads.is_empty() { Workload::ALL.to_vec() } else { args.workloads.clone() };
        let numbers = |workload: Workload| match (args.callers.as_slice(), args.quick) {
            ([], false) => CALLERS.to_vec(),
            ([], true) if workload == Workload::Point => QUICK_POINT_CALLERS.to_vec(),
            ([], true) => QUICK_CALLERS.to_vec(),
            (chosen, _) => chosen.to_vec(),
        };
        let cells =
            workloads.iter().flat_map(|workload| numbers(*workload).into_iter().map(|number| (*workload, number)));
        let quick = |quick, otherwise| if args.quick { quick } else { otherwise };
        let below = |callers: &u32| *callers <= FIXED_RATE_CALLERS;
        let most = args.callers.iter().max().copied().unwrap_or(u32::MAX);
        let point = numbers(Workload::Point);
        Plan {
            fixed_rate_callers: point.into_iter().filter(below).max().filter(|_| workloads.contains(&Workload::Point)),
            settings: Settings {
                rounds: args.rounds.unwrap_or(quick(2, 5)),
                warm_up_seconds: args.warm_up,
                seconds: args.seconds.unwrap_or(quick(1, 3)),
                pool: POOL,
                broker_threads: args.threads.unwrap_or((cores / 2).max(1)),
                stream_rows: args.stream_rows.unwrap_or(STREAM_ROWS),
                python_rows: PYTHON_ROWS.min(args.stream_rows.unwrap_or(STREAM_ROWS)),
            },
            cells: cells.collect(),
            direct_connections: DIRECT_CONNECTIONS.into_iter().filter(|number| *number <= most).collect(),
            deadline_calls: quick(320, 1600),
            idle_sessions: args.idle_sessions.unwrap_or(quick(2000, 10_000)),
            python: !args.no_python,
        }
    }

    pub(super) fn window(&self) -> Window {
        Window { warm_up_seconds: self.settings.warm_up_seconds, seconds: self.settings.seconds }
    }

    /// How long it will take, about.
    pub(super) fn minutes(&self) -> u32 {
        (self.planned_seconds() / 60.0).ceil() as u32
    }

    fn planned_seconds(&self) -> f64 {
        let fixed_rate = 2;
        let runs = self.cells.len() * 3 + self.direct_connections.len() + fixed_rate;
        let each = f64::from(self.window().whole_seconds()) + BESIDE_SECONDS;
        let connecting = |(_, callers): &(Workload, u32)| 2 * pgbench::connecting_seconds(*callers, self.window());
        let connecting: u32 = self.cells.iter().map(connecting).sum();
        f64::from(self.settings.rounds) * (runs as f64 * each + f64::from(connecting)) + ONCE_SECONDS
    }
}

#[cfg(test)]
impl Plan {
    /// For tests of the report.
    pub(super) fn default_settings() -> Settings {
        let (rounds, warm_up_seconds, seconds) = (5, 1, 3);
        Settings {
            rounds,
            warm_up_seconds,
            seconds,
            pool: POOL,
            broker_threads: 1,
            stream_rows: STREAM_ROWS,
            python_rows: PYTHON_ROWS,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{CompareArgs, Plan, Workload, callers};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn plan(args: &[&str]) -> Plan {
        on(2, args)
    }

    fn on(cores: u32, args: &[&str]) -> Plan {
        let line = [&["bench"], args].concat();
        Plan::new(&Line::try_parse_from(line).expect("arguments").args, cores)
    }

    #[test]
    fn a_whole_run_has_every_cell_and_a_quick_one_is_below_five_minutes() {
        let whole = plan(&[]);
        assert_eq!((whole.cells.len(), whole.settings.rounds), (36, 5));
        let quick = plan(&["--quick"]);
        assert!(quick.planned_seconds() < 280.0, "{}", quick.planned_seconds());
        // Every target finds what it is about.
        for cell in [(Workload::Point, 1), (Workload::Point, 128), (Workload::Point, 2000), (Workload::Update, 32)] {
            assert!(quick.cells.contains(&cell), "{cell:?}");
        }
        assert_eq!(Workload::ALL.iter().filter(|all| quick.cells.iter().any(|(one, _)| one == *all)).count(), 6);
    }

    #[test]
    fn what_is_asked_for_is_all_that_is_measured() {
        let plan = plan(&["--workloads", "update,point", "--callers", "1,32", "--rounds", "1", "--no-python"]);
        let (update, point) = (Workload::Update, Workload::Point);
        assert_eq!(plan.cells, [(update, 1), (update, 32), (point, 1), (point, 32)]);
        assert_eq!(plan.direct_connections, [4, 8, 16, 32]);
        assert!(!plan.python);
        assert_eq!(plan.fixed_rate_callers, Some(32));
    }

    #[test]
    fn the_broker_has_half_of_the_cores_or_what_was_asked_for() {
        let threads = |cores, args: &[&str]| on(cores, args).settings.broker_threads;
        assert_eq!([threads(1, &[]), threads(2, &[]), threads(9, &[]), threads(2, &["--threads", "5"])], [1, 1, 4, 5]);
    }

    #[test]
    fn callers_are_numbers_that_connections_share_evenly() {
        assert_eq!((callers("1"), callers("2000")), (Ok(1), Ok(2000)));
        for wrong in ["0", "17", "x", "100000"] {
            assert!(callers(wrong).is_err(), "{wrong}");
        }
    }
}
