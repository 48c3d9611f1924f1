//! A real PgBouncer in front of one server of a local cluster, for tests of what it does to the broker. It carries the
//! cluster's marker in its command line, so whatever ends the cluster ends it too.

use std::{fs::OpenOptions, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::Signal;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    cluster::{Cluster, DATABASE, PASSWORD, USER},
    error::DevError,
    folder, ports, processes,
    server::Server,
};

const BOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);
const TRIES: usize = 20;

/// A PgBouncer in transaction mode.
#[derive(Debug)]
pub struct PgBouncer {
    program: PathBuf,
    folder: PathBuf,
    marker: String,
    port: u16,
    server_connections: u32,
    installation: super::Installation,
    child: Mutex<Option<Child>>,
}

impl PgBouncer {
    /// Starts one that leads to `server` with so many server connections; it must be one of `cluster`'s, or of another
    /// cluster that lives on for as long.
    pub async fn start(cluster: &Cluster, server: &Server, server_connections: u32) -> Result<PgBouncer, DevError> {
        let unique: u32 = rand::random();
        let mut bouncer = PgBouncer {
            program: program()?,
            folder: cluster.folder().join(format!("pgbouncer-{unique:08x}")),
            marker: cluster.marker(&format!("pgbouncer-{unique:08x}")),
            port: 0,
            server_connections,
            installation: cluster.installation().clone(),
            child: Mutex::default(),
        };
        folder::make(&bouncer.folder, &bouncer.installation)?;
        for _ in 0..TRIES {
            bouncer.port = ports::free()?;
            bouncer.point(server)?;
            if bouncer.launch().await? {
                return Ok(bouncer);
            }
        }
        Err(DevError::NoPort { tries: TRIES })
    }

    /// For the service's role, through the proxy.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// Makes its next start lead to another server.
    pub fn point(&self, server: &Server) -> Result<(), DevError> {
        let folder = self.folder.display();
        let users = self.folder.join("users.txt");
        folder::write(&users, &format!("\"{USER}\" \"{PASSWORD}\"\n"), &self.installation)?;
        let conf = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = {}\nmax_client_conn = 500\n\
             auth_type = scram-sha-256\nauth_file = {}\nadmin_users = {USER}\nlogfile = {folder}/log\n",
            server.port(),
            self.port,
            self.server_connections,
            users.display(),
        );
        folder::write(&self.folder.join("pgbouncer.ini"), &conf, &self.installation)
    }

    /// Starts it again on its port; it must not run.
    pub async fn start_again(&self) -> Result<(), DevError> {
        if self.launch().await? { Ok(()) } else { Err(self.not_started()) }
    }

    /// SIGKILL: all its connections end at once.
    pub async fn kill(&self) -> Result<(), DevError> {
        let mut held = self.child.lock().await;
        let Some(mut child) = held.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            processes::signal(pid, Signal::KILL)?;
        }
        child.wait().await.map(drop).map_err(DevError::io("wait for pgbouncer"))
    }

    /// The answer of its administrator's console, unaligned: `SHOW POOLS` and its like.
    pub async fn console(&self, command: &str) -> Result<String, DevError> {
        self.psql("pgbouncer", command).await
    }

    /// Runs SQL through it as the service's role would without a broker, as one message.
    pub async fn sql(&self, sql: &str) -> Result<String, DevError> {
        self.psql(DATABASE, sql).await
    }

    async fn psql(&self, database: &str, sql: &str) -> Result<String, DevError> {
        let mut command = self.installation.command("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER, "-d", database]);
        command.args(["-p", &self.port.to_string(), "-c", sql]).env("PGPASSWORD", PASSWORD).kill_on_drop(true);
        let output = timeout(BOUND, command.output()).await;
        let late = |_| DevError::TimedOut { what: "an answer of pgbouncer".into(), bound: BOUND };
        let output = output.map_err(late)?.map_err(DevError::io("run psql"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(DevError::Sql { server: "pgbouncer".into(), message })
    }

    /// False when somebody else has the port.
    async fn launch(&self) -> Result<bool, DevError> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("output"));
        let log = log.map_err(DevError::io("open pgbouncer's output"))?;
        let mut command: Command = self.installation.command_at(&self.program);
        // The marker makes the process known as ours.
        command.arg0(format!("pgbouncer {}", self.marker)).arg(self.folder.join("pgbouncer.ini"));
        command.stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(DevError::io("start pgbouncer"))?;
        let ready = async {
            loop {
                if child.try_wait().map_err(DevError::io("wait for pgbouncer"))?.is_some() {
                    return Ok(false);
                }
                if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                    return Ok(true);
                }
                sleep(POLL).await;
            }
        };
        let late = |_| DevError::TimedOut { what: "the start of pgbouncer".into(), bound: BOUND };
        if timeout(BOUND, ready).await.map_err(late)?? {
            *self.child.lock().await = Some(child);
            return Ok(true);
        }
        let said = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        if said.contains("ddress already in use") { Ok(false) } else { Err(self.not_started()) }
    }

    fn not_started(&self) -> DevError {
        let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        DevError::NotStarted { server: "pgbouncer".into(), log: format!("{}{}", read("log"), read("output")) }
    }
}

fn program() -> Result<PathBuf, DevError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs it where only root looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    let found = folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file());
    found.ok_or(DevError::NoPgBouncer)
}
