//! One run from its start to its end: cluster, brokers, sessions and nemesis; then nothing may be held any more, and the
//! history is judged.

use std::{sync::Arc, time::Duration};

use tidegate::{
    app,
    config::{ServeFlags, load},
    dev::{Cluster, ClusterOptions, Server},
    postgres::KeyTable,
};
use tokio::task::JoinSet;

use super::{
    brokers::{self, Broker},
    checker::{Rule, Violation, judge},
    dice::Dice,
    nemesis::{Nemesis, Phase},
    plan::{Fault, plan},
    recorder::Recorder,
    report::{self, Summary},
    session::{Kind, Link, Session, honours_causal},
    store,
};

const SESSIONS: u32 = 200;
const PROGRESS: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run goes by.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seconds: u64,
    pub seed: u64,
}

/// A cluster with its tables.
async fn prepare() -> Cluster {
    let options = ClusterOptions { name: "torture".into(), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await.expect("the cluster starts");
    cluster.primary().sql(&store::schema()).await.expect("the tables are made");
    cluster
}

/// Makes the table of idempotency keys, as `tidegate check --init` does.
async fn make_key_table(broker: &Broker) {
    let flags = ServeFlags { config: Some(broker.file().to_owned()), ..ServeFlags::default() };
    let config = load(&flags, &std::collections::BTreeMap::new()).expect("the configuration is valid");
    let target = app::target(&config.clusters[0].hosts[0], &config);
    let (mut table, _) = KeyTable::open(&target).await.expect("the primary answers");
    table.create().await.expect("the table is made");
}

/// Every promise, under every fault. True if nothing was violated; and the line of JSON.
pub async fn torture(options: Options) -> (bool, String) {
    let cluster = prepare().await;
    let both = [Broker::start(&cluster, "broker1", false).await, Broker::start(&cluster, "broker2", false).await];
    make_key_table(&both[0]).await;
    let links: &[Link] = Vec::leak(both.iter().map(Link::to).collect());
    let (recorder, phase) = (for_all_tasks(Recorder::new()), for_all_tasks(Phase::default()));
    let mut nemesis = Nemesis::new(&cluster, &both, recorder, phase);
    nemesis.replicate_synchronously().await.expect("the servers are set");
    nemesis.settle("the start").await.expect("the servers answer");
    let (causal, reload) = (honours_causal(&links[0]).await.expect("the broker answers"), brokers::reloads().await);
    println!("torture: seed {}, {} s, {SESSIONS} sessions, 2 brokers", options.seed, options.seconds);
    println!(
        "torture: CAUSAL is {}honoured; SIGHUP {}",
        not(causal),
        if reload { "reloads" } else { "does not reload" }
    );
    let allowed = |fault| reload || fault != Fault::Reload;
    let steps: Vec<String> =
        plan(options.seed, allowed).take(1 + options.seconds as usize / 4).map(|it| it.to_string()).collect();
    println!("torture: the plan: {}", steps.join(", "));

    let sessions = spawn_sessions(SESSIONS, causal, options.seed, links, recorder);
    let watch = [tokio::spawn(recorder.watch_own_lateness()), tokio::spawn(progress(recorder, phase))];
    let broken = harass(&mut nemesis, plan(options.seed, allowed), recorder, options.seconds).await;
    recorder.end();
    sessions.join_all().await;
    watch.iter().for_each(tokio::task::JoinHandle::abort);
    let primary = nemesis.primary().name().to_owned();
    let mut unhealed = std::mem::take(&mut nemesis.unhealed);
    unhealed.extend(broken);
    let faults = nemesis.faults;
    let servers = cluster.servers();
    let left_behind = what_is_held(&both, servers).await;
    let last = servers.iter().find(|server| server.name() == primary).expect("the primary is one of the servers");
    let mut history = recorder.history();
    let mut end = store::end(last).await.expect("the primary answers");
    (end.left_behind, end.unhealed) = (left_behind, unhealed);
    history.end = Some(end);
    let violations = judge(&history);
    if !violations.is_empty() {
        report::explain(&violations, &history);
        both.iter().for_each(|broker| println!("--- {}:\n{}", broker.name, broker.log_tail(40)));
    }
    let summary = Summary { options, recorder, faults, violations: &violations, causal, reload };
    let line = summary.line();
    cluster.shutdown().await.expect("the cluster stops");
    (violations.is_empty(), line)
}

/// Tasks of their own look at it: it stays until the process ends.
fn for_all_tasks<T>(it: T) -> &'static T {
    Box::leak(Box::new(it))
}

/// Each session is a task: the nemesis, which looks at files meanwhile, must hold up none of them.
fn spawn_sessions(
    count: u32,
    causal: bool,
    seed: u64,
    links: &'static [Link],
    recorder: &'static Recorder,
) -> JoinSet<()> {
    let sessions = (0..count).map(|id| Session::new(id, count, kind(id, causal), seed, links, recorder));
    sessions.map(Session::run).collect()
}

fn not(is_so: bool) -> &'static str {
    if is_so { "" } else { "not " }
}

/// Half of the sessions stay with a broker that remembers for them; the other half carries tokens from one to the other,
/// every second of them without a session id. Every second sets no deadline of its own, a quarter is causal.
fn kind(id: u32, causal: bool) -> Kind {
    let roams = id % 4 >= 2;
    Kind {
        roams,
        has_id: !roams || id % 8 < 4,
        has_timeout: (id / 8).is_multiple_of(2),
        is_causal: causal && (id / 16).is_multiple_of(4),
    }
}

/// The nemesis goes by its plan until the time is over. What kept it from that, if anything did.
async fn harass(
    nemesis: &mut Nemesis<'_>,
    plan: impl Iterator<Item = super::plan::Step>,
    recorder: &Recorder,
    seconds: u64,
) -> Option<String> {
    // First without any fault: a run so short that it has one only is then still half calm.
    recorder.set_calm(true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for step in plan {
        if recorder.now() > seconds * 1_000_000 {
            break;
        }
        if let Err(error) = nemesis.go(&step).await {
            return Some(format!("the nemesis could not go on at {step}: {error}"));
        }
    }
    recorder.set_calm(false);
    None
}

async fn progress(recorder: &'static Recorder, phase: &'static Phase) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        let (all, _) = recorder.routes();
        println!(
            "torture: {:>4} s  {:>7} calls  {:>5.1} % of reads on replicas  {}",
            recorder.now() / 1_000_000,
            recorder.calls(),
            all.replica_pct(),
            phase.get()
        );
    }
}

/// Waits until nobody holds anything, then stops the brokers and looks again: what is held all the same, a line each.
async fn what_is_held(brokers: &[Broker], servers: &[Arc<Server>]) -> Vec<String> {
    let mut held = vec![];
    for broker in brokers {
        held.extend(broker.is_idle().await.err().map(|what| format!("{} still holds: {what}", broker.name)));
    }
    let transactions = "state LIKE 'idle in transaction%'";
    for server in servers {
        held.extend(backends(server, transactions).await);
    }
    for broker in brokers {
        if !broker.stop().await {
            held.push(format!("{} did not stop in order", broker.name));
        }
    }
    for server in servers {
        held.extend(backends(server, "true").await);
    }
    held
}

/// Waits until no backend of a broker is so; else what there is.
async fn backends(server: &Server, so: &str) -> Option<String> {
    let sql = format!(
        "SELECT string_agg(concat_ws(' ', pid, state, wait_event, query), '; ') FROM pg_stat_activity \
         WHERE application_name = 'tidegate' AND ({so})"
    );
    let mut found = String::new();
    let gone = async {
        loop {
            found = server.sql(&sql).await.unwrap_or_else(|error| error.to_string());
            if found.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, gone).await.is_ok();
    (!in_time).then(|| format!("{} has backends where {so}: {found}", server.name()))
}

/// A broker that ignores what its sessions must see: the checker must say so, soon.
pub async fn blind(seed: u64) -> bool {
    const ENOUGH: Duration = Duration::from_secs(30);
    let cluster = prepare().await;
    let broker = [Broker::start(&cluster, "blind", true).await];
    make_key_table(&broker[0]).await;
    let links: &[Link] = Vec::leak(vec![Link::to(&broker[0])]);
    let recorder = for_all_tasks(Recorder::new());
    for replica in cluster.replicas() {
        replica.apply_delay(Duration::from_millis(300)).await.expect("the replica is slowed down");
    }
    let sessions = spawn_sessions(SESSIONS / 4, false, Dice::of(seed, 7).next(), links, recorder);
    let caught = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let found = judge(&recorder.history());
            // Others look for writes that are still under way here.
            let caught: Vec<Violation> = found.into_iter().filter(|it| it.rule == Rule::ReadYourWrites).collect();
            if !caught.is_empty() {
                return caught;
            }
        }
    };
    let caught = tokio::time::timeout(ENOUGH, caught).await.unwrap_or_default();
    recorder.end();
    sessions.join_all().await;
    if let Some(first) = caught.first() {
        println!("torture: caught after {} calls: {}", recorder.calls(), first.says);
    }
    broker[0].stop().await;
    cluster.shutdown().await.expect("the cluster stops");
    !caught.is_empty()
}
