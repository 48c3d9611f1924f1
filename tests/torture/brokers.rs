//! The brokers of a run: the program itself in a process of its own, which can be killed and told to reload; or, for the
//! broker that is made blind, an `App` in this one. Both read the same kind of file and keep their ports.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tidegate::{
    app::App,
    config::{ServeFlags, load},
    dev::{Cluster, DATABASE, Server},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
};

use super::store::ROLE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");
/// What the brokers share, so that each accepts the other's tokens.
const SECRET: &str = "a secret for the torture";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// How long a position binds a session. Short, so that a run is full of positions that expire.
pub const STICK_TIMEOUT: Duration = Duration::from_secs(5);
/// The deadline of calls without one of their own.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(4);

enum Running {
    Not,
    Process(Child),
    Here(App),
}

/// One broker.
pub struct Broker {
    pub name: String,
    grpc: u16,
    http: u16,
    file: PathBuf,
    log: PathBuf,
    servers: Vec<Arc<Server>>,
    is_blind: bool,
    running: Mutex<Running>,
}

impl Broker {
    /// Starts one in front of a cluster. A blind one runs here, and ignores what sessions must see.
    pub async fn start(cluster: &Cluster, name: &str, is_blind: bool) -> Broker {
        let grpc = free_port();
        let http = free_port();
        // With the cluster's marker in its command line the watchdog ends it too, however we end.
        let file = cluster.folder().join(format!("{}.toml", cluster.marker(name)));
        let broker = Broker {
            name: name.to_owned(),
            grpc,
            http,
            file,
            log: cluster.folder().join(format!("{name}.log")),
            servers: cluster.servers().to_vec(),
            is_blind,
            running: Mutex::new(Running::Not),
        };
        broker.configure(None);
        broker.run().await;
        broker
    }

    /// Its configuration.
    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Writes the configuration, without one of the hosts if so wished.
    pub fn configure(&self, without: Option<&Server>) {
        let left_out = |server: &&Arc<Server>| without.is_none_or(|without| without.name() != server.name());
        let hosts = self.servers.iter().filter(left_out);
        let url = |server: &Server| format!("postgres://{ROLE}@127.0.0.1:{}/{DATABASE}", server.proxy().port());
        let hosts = hosts.map(|server| format!("{{ name = \"{}\", url = \"{}\" }}", server.name(), url(server)));
        let hosts = hosts.collect::<Vec<_>>().join(", ");
        let text = format!(
            "[[cluster]]\nname = \"main\"\nhosts = [{hosts}]\n[grpc]\nlisten = \"127.0.0.1:{}\"\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n\
             [consistency]\nstick_timeout = \"{}s\"\nmax_lag = \"3s\"\nmax_clock_skew = \"1s\"\n\
             [timeouts]\ndefault_timeout = \"{}s\"\ndrain_timeout = \"3s\"\n\
             [tokens]\nsecret = \"{SECRET}\"\n[telemetry]\nlog_level = \"info\"\n",
            self.grpc,
            self.http,
            STICK_TIMEOUT.as_secs(),
            DEFAULT_TIMEOUT.as_secs()
        );
        // Whole at once: a broker may look whenever it likes.
        let new = self.file.with_extension("new");
        std::fs::write(&new, text).expect("the configuration is written");
        std::fs::rename(&new, &self.file).expect("the configuration takes its place");
    }

    /// Starts it; it must not run.
    pub async fn run(&self) {
        let mut running = self.running.lock().await;
        *running = if self.is_blind {
            let flags = ServeFlags { config: Some(self.file.clone()), ..ServeFlags::default() };
            let config = load(&flags, &BTreeMap::new()).expect("the configuration is valid");
            let app = App::start(&config).await.expect("the broker starts");
            app.broker().ignore_positions();
            Running::Here(app)
        } else {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("its log");
            let mut command = Command::new(PROGRAM);
            command.arg("serve").arg("--config").arg(&self.file).env_clear();
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
            Running::Process(command.spawn().expect("the program starts"))
        };
    }

    /// Stops it in order; false if it does not end in time, and had to be killed.
    pub async fn stop(&self) -> bool {
        match std::mem::replace(&mut *self.running.lock().await, Running::Not) {
            Running::Not => true,
            Running::Here(app) => {
                app.begin_shutdown();
                tokio::time::timeout(PATIENCE, app.stopped()).await.is_ok()
            }
            Running::Process(mut child) => {
                signal(&child, Signal::TERM);
                let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
                // Dropped, it is killed.
                ended.is_ok()
            }
        }
    }

    /// Kills it.
    pub async fn kill(&self) {
        if let Running::Process(child) = &mut *self.running.lock().await {
            child.kill().await.expect("it is ours to kill");
        }
        self.stop().await;
    }

    /// Tells it to read its configuration again.
    pub async fn reload(&self) {
        if let Running::Process(child) = &*self.running.lock().await {
            signal(child, Signal::HUP);
        }
    }

    /// Whether it ended without being told to; its process is then gone for good.
    pub async fn has_ended(&self) -> Option<String> {
        match &mut *self.running.lock().await {
            Running::Process(child) => child.try_wait().ok()?.map(|status| status.to_string()),
            _ => None,
        }
    }

    /// Waits until it takes a primary and so many replicas for up; false if that does not happen.
    pub async fn finds(&self, replicas: usize) -> bool {
        let found = async {
            loop {
                let text = self.metrics().await.unwrap_or_default();
                let up = |role: &str| count(&text, &["tidegate_host_up{", role], |value| value == 1.0);
                let following = count(&text, &["tidegate_replica_lag_seconds{"], |lag| lag < 3.0);
                let others = count(&text, &["tidegate_host_up{"], |value| value != 1.0);
                if (up("role=\"primary\""), up("role=\"replica\""), following, others) == (1, replicas, replicas, 0) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(2 * PATIENCE, found).await.is_ok()
    }

    /// Waits until nobody holds anything of it: the figures that are not 0 if that does not happen.
    pub async fn is_idle(&self) -> Result<(), String> {
        const HELD: [&[&str]; 5] = [
            &["tidegate_pool_connections{", "state=\"in_use\""],
            &["tidegate_pool_waiting{"],
            &["tidegate_transactions_open"],
            &["tidegate_sessions_active"],
            &["tidegate_streams_active"],
        ];
        let mut held = "no metrics".to_owned();
        for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
            if let Some(text) = self.metrics().await {
                // A name that nothing has any more would look like nothing held.
                let all_known = HELD.iter().all(|parts| count(&text, parts, |_| true) > 0);
                assert!(all_known, "a metric that tells what is held is missing:\n{text}");
                let lines = text.lines().filter(|line| {
                    let is_held = HELD.iter().any(|parts| parts.iter().all(|part| line.contains(part)));
                    is_held && !line.starts_with('#') && !line.ends_with(" 0")
                });
                held = lines.collect::<Vec<_>>().join("; ");
                if held.is_empty() {
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(held)
    }

    async fn metrics(&self) -> Option<String> {
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.http)).await.ok()?;
            let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        };
        tokio::time::timeout(Duration::from_secs(5), asked).await.ok().flatten()
    }

    /// The end of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// How many series have all of `parts` and such a value.
fn count(text: &str, parts: &[&str], is_so: impl Fn(f64) -> bool) -> usize {
    let lines = text.lines().filter(|line| !line.starts_with('#') && parts.iter().all(|part| line.contains(part)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).filter(|value| is_so(*value)).count()
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // A child of ours that was not waited for yet: the pid is still its own.
        let _ = kill_process(pid, signal);
    }
}

/// A port that nobody has now, below those that systems hand out: it must be free again after a restart.
/// Not by the seed: two runs with one seed must not meet.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Whether the program says that it reloads at a SIGHUP, which would otherwise end it.
pub async fn reloads() -> bool {
    let help = Command::new(PROGRAM).args(["serve", "--help"]).env_clear().output().await.expect("the program runs");
    String::from_utf8_lossy(&help.stdout).contains("SIGHUP")
}
