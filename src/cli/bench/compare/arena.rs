//! What is measured, running: PostgreSQL with two replicas, PgBouncer before all of them, and a broker; and one run of each.

use std::{io, time::Duration};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use tidegate_client::Client;

use super::{
    broker_counts::{Counts, CountsError},
    h2load::{self, H2loadError},
    load::{self, LoadError},
    machine,
    pgbench::{Endpoint, Mode, Pgbench, PgbenchError, Run},
    report::System,
    sample::{Sample, Window},
    workload::{self, Servers, Workload},
};
use crate::{
    cli::bench::{
        broker::{Broker, BrokerError},
        process::{self, ProcessError, Resident},
    },
    dev::{Cluster, ClusterOptions, DATABASE, DevError, PgBouncer},
};

/// Connections that the broker may have to a host, whatever they are for, and that PgBouncer may have.
pub(super) const POOL: u32 = 20;
/// More than any system is asked to hold on one server.
const MAX_CONNECTIONS: u32 = 1200;
/// Of these, what direct callers may take: replication and we ourselves need some.
const DIRECT_MAX: u32 = 1100;
/// What a backend takes at the most, for a guess whether so many fit into memory.
const BACKEND_BYTES: u64 = 5 << 20;
/// The roles of those who do not go through the broker: each has its own, so that connections can be counted.
const DIRECT: &str = "direct";
const POOLED: &str = "pooled";

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArenaError {
    #[error(transparent)]
    Cluster(#[from] DevError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Pgbench(#[from] PgbenchError),
    #[error(transparent)]
    H2load(#[from] H2loadError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Counts(#[from] CountsError),
    #[error("no call ended within the time that is measured: let it be longer, or with a longer warm-up")]
    NoCalls,
    #[error("PgBouncer has ended")]
    PgBouncerGone,
    #[error("allowing as many open files as connections need: {0}")]
    Files(io::Error),
}

/// One run, and what it cost.
pub(super) struct Measured {
    pub(super) sample: Sample,
    /// Processor time of what stands between callers and PostgreSQL, for each call.
    pub(super) cpu_us_per_call: Option<f64>,
    /// Processor time of the program that called, for each call.
    pub(super) client_cpu_us_per_call: Option<f64>,
    pub(super) resident: Option<Resident>,
    /// PostgreSQL connections that the system holds, on all servers.
    pub(super) connections: u64,
}

/// A run that was made, or why it cannot be.
pub(super) enum Outcome {
    Measured(Measured),
    NotPossible(String),
}

impl Outcome {
    /// A run in which nothing was done measures nothing.
    pub(super) fn with_calls(self) -> Result<Outcome, ArenaError> {
        match &self {
            Outcome::Measured(measured) if measured.sample.latencies.is_empty() => Err(ArenaError::NoCalls),
            _ => Ok(self),
        }
    }
}

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) callers: u32,
    pub(super) window: Window,
    /// Point reads at so many a second, however long they take; None: each caller calls again when it was answered.
    pub(super) rate: Option<f64>,
}

/// All of it.
pub(super) struct Arena {
    pub(super) cluster: Cluster,
    pub(super) bouncer: PgBouncer,
    pub(super) broker: Broker,
    pub(super) client: Client,
    pgbench: Pgbench,
    bouncer_mode: Mode,
}

impl Arena {
    /// Starts it, with so many rows for long results, and so many threads for the broker.
    pub(super) async fn start(events: u64, threads: u32) -> Result<Arena, ArenaError> {
        allow_open_files().map_err(ArenaError::Files)?;
        let max_connections = ("max_connections".to_owned(), MAX_CONNECTIONS.to_string());
        let settings = vec![max_connections, ("shared_buffers".into(), "256MB".into())];
        let cluster = Cluster::start(ClusterOptions { name: "bench".into(), settings, ..Default::default() }).await?;
        let primary = cluster.primary();
        let roles: String = [DIRECT, POOLED].map(|role| format!("CREATE ROLE {role} LOGIN;")).concat();
        primary.sql(&roles).await?;
        primary.sql(&workload::tables(events)).await?;
        let granted =
            format!("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA public TO {DIRECT}, {POOLED}, {}", crate::dev::USER);
        primary.sql(&granted).await?;
        for replica in cluster.replicas() {
            replica.catch_up(primary).await?;
        }
        let bouncer = PgBouncer::start_before_all(&cluster, POOLED, POOL, 4 * MAX_CONNECTIONS).await?;
        let replicas: Vec<_> = cluster.replicas().iter().map(|replica| replica.direct_url()).collect();
        let configuration = [
            ("TIDEGATE_REPLICAS", replicas.join(",")),
            ("TIDEGATE_POOL_CONNECTIONS_PER_HOST", POOL.to_string()),
            // 2,000 callers are to wait for their turns as PgBouncer's do, not to be refused.
            ("TIDEGATE_POOL_MAX_QUEUE", "4096".into()),
            // The machine is shared with all that it calls, and with its callers.
            ("TIDEGATE_RUNTIME_THREADS", threads.to_string()),
        ];
        let (broker, client) = Broker::start(&primary.direct_url(), &configuration).await?;
        let pgbench = Pgbench { program: cluster.installation().bin().join("pgbench"), threads: machine::cores() };
        Ok(Arena { cluster, bouncer, broker, client, pgbench, bouncer_mode: Mode::Prepared })
    }

    /// The fastest way of sending statements that this PgBouncer allows. Before 1.21 it cannot keep prepared ones.
    pub(super) async fn choose_bouncer_mode(&mut self, window: Window) -> Result<Mode, ArenaError> {
        let load = Load { callers: 32, window, rate: None };
        let mut best: Option<(Mode, f64)> = None;
        let mut failure = None;
        for mode in [Mode::Prepared, Mode::Extended, Mode::Simple] {
            self.bouncer_mode = mode;
            let run = self.run(System::PgBouncer, Workload::Point, load).await;
            match run.and_then(Outcome::with_calls) {
                Ok(Outcome::Measured(measured)) => {
                    let rate = measured.sample.per_second;
                    if best.is_none_or(|(_, other)| rate > other) {
                        best = Some((mode, rate));
                    }
                }
                Ok(Outcome::NotPossible(_)) => {}
                Err(error) => failure = Some(error),
            }
        }
        match (best, failure) {
            (Some((mode, _)), _) => {
                self.bouncer_mode = mode;
                Ok(mode)
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(ArenaError::PgBouncerGone),
        }
    }

    /// Who calls, in words.
    pub(super) fn client_of(&self, system: System, workload: Workload, rate: Option<f64>) -> String {
        match system {
            System::Direct => "pgbench -M prepared".into(),
            System::PgBouncer => format!("pgbench -M {}", self.bouncer_mode.name()),
            System::Broker if rate.is_none() && workload.request().is_some() => "h2load".into(),
            System::Broker => "tidegate's load generator".into(),
        }
    }

    /// One run.
    pub(super) async fn run(&self, system: System, workload: Workload, load: Load) -> Result<Outcome, ArenaError> {
        if let Some(why) = self.not_possible(workload, load.callers).filter(|_| system == System::Direct) {
            return Ok(Outcome::NotPossible(why));
        }
        let pid = match system {
            System::Direct => None,
            System::PgBouncer => {
                Some(self.bouncer.pid().await.and_then(Pid::from_raw).ok_or(ArenaError::PgBouncerGone)?)
            }
            System::Broker => Some(self.broker.pid()),
        };
        let time = || pid.map(process::processor_time).transpose();
        let counted = Counts::ask(self.broker.http()).await?;
        let (before, clients_before) = (time()?, process::own_processor_time()?);
        let mut sample = match system {
            System::Broker => self.call_broker(workload, load).await?,
            _ => self.pgbench(system, workload, load).await?,
        };
        let (cpu, clients) = (time()?, process::own_processor_time()?);
        let ours = self.is_ours(system, workload, load);
        if system == System::Broker {
            // Ours awaits every answer.
            let broken_off = if ours { 0 } else { load.callers };
            let ok = self.judge(&counted, &sample, broken_off).await?;
            if !ours {
                sample.calls = ok; // h2load does not count those of its warm-up
            }
        }
        let each = |time: Duration| (sample.calls > 0).then(|| time.as_secs_f64() * 1e6 / sample.calls as f64);
        let client_cpu = match ours {
            true => clients.itself.saturating_sub(clients_before.itself),
            false => clients.programs.saturating_sub(clients_before.programs),
        };
        let (cpu_us_per_call, client_cpu_us_per_call) =
            (cpu.zip(before).and_then(|(cpu, before)| each(cpu.saturating_sub(before))), each(client_cpu));
        let connections = match system {
            System::Direct => load.callers.into(),
            System::PgBouncer => self.connections(POOLED).await?,
            System::Broker => self.connections(crate::dev::USER).await?,
        };
        let resident = pid.map(|pid| process::memory(pid, "VmRSS")).transpose()?;
        Ok(Outcome::Measured(Measured { sample, cpu_us_per_call, client_cpu_us_per_call, resident, connections }))
    }

    /// Whether our own load generator calls.
    fn is_ours(&self, system: System, workload: Workload, load: Load) -> bool {
        system == System::Broker && (load.rate.is_some() || workload.request().is_none())
    }

    async fn call_broker(&self, workload: Workload, load: Load) -> Result<Sample, ArenaError> {
        let Load { callers, window, rate } = load;
        Ok(match (rate, workload.request()) {
            (Some(rate), _) => load::open(self.broker.grpc(), rate, callers, window).await?,
            (None, None) => load::closed(self.broker.grpc(), workload, callers, window).await?,
            (None, Some(request)) => {
                h2load::run(self.broker.url(), &request, callers, window, workload.answer_bytes_min()).await?
            }
        })
    }

    /// How many calls went well, by the broker's own account. h2load breaks off what runs at its end: so many at the most.
    async fn judge(&self, before: &Counts, sample: &Sample, broken_off: u32) -> Result<u64, ArenaError> {
        let (http, made) = (self.broker.http(), sample.calls);
        let counts = Counts::ask_until(http, |counts| counts.of(before, "OK") >= made).await?;
        Ok(counts.judge(before, made, broken_off.into())?)
    }

    async fn pgbench(&self, system: System, workload: Workload, load: Load) -> Result<Sample, ArenaError> {
        let Load { callers, window, rate } = load;
        let servers = match workload.servers() {
            Servers::Primary => &self.cluster.servers()[..1],
            Servers::Replicas => self.cluster.replicas(),
        };
        let through_bouncer = system == System::PgBouncer;
        let endpoint = |server: &std::sync::Arc<crate::dev::Server>| match through_bouncer {
            true => Endpoint { port: self.bouncer.port(), database: server.name().into(), user: POOLED },
            false => Endpoint { port: server.port(), database: DATABASE.into(), user: DIRECT },
        };
        let endpoints: Vec<Endpoint> = servers.iter().map(endpoint).collect();
        let mode = if through_bouncer { self.bouncer_mode } else { Mode::Prepared };
        Ok(self.pgbench.run(&Run { workload, endpoints: &endpoints, callers, mode, window, rate }).await?)
    }

    fn not_possible(&self, workload: Workload, callers: u32) -> Option<String> {
        let servers = match workload.servers() {
            Servers::Primary => 1,
            Servers::Replicas => self.cluster.replicas().len() as u32,
        };
        if callers.div_ceil(servers) > DIRECT_MAX {
            return Some(format!("a server takes {DIRECT_MAX} direct connections here (max_connections)"));
        }
        let needed = u64::from(callers) * BACKEND_BYTES;
        let free = machine::memory_available_bytes()?;
        (needed > free).then(|| format!("{callers} backends may need {} MiB, {} are free", needed >> 20, free >> 20))
    }

    /// The connections of a role to all servers, probes included.
    async fn connections(&self, role: &str) -> Result<u64, ArenaError> {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'");
        let mut sum = 0;
        for server in self.cluster.servers() {
            sum += server.sql_value::<u64>(&sql).await?;
        }
        Ok(sum)
    }

    /// Stops everything in order.
    pub(super) async fn stop(self) -> Result<(), ArenaError> {
        drop(self.client);
        self.broker.stop().await?;
        self.bouncer.kill().await?;
        Ok(self.cluster.shutdown().await?)
    }
}

/// As many as the system lets us have: each connection is one, on both sides.
fn allow_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
