//! One PostgreSQL server of a local cluster: its process (start, stop, kill, pause), its log, and SQL on it. What
//! replicas do is in `replication`.

use std::{path::PathBuf, process::Stdio, str::FromStr, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::AsyncWriteExt,
    process::Child,
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    cluster::{DATABASE, PASSWORD, SUPERUSER, USER},
    error::DevError,
    folder,
    installation::Installation,
    ports,
    postmaster::{Launch, Launched},
    processes,
    proxy::Proxy,
    settings,
};

const PORT_TRIES: usize = 20;
/// How long a fast shutdown may take: a primary waits for its replicas, of which one may be paused.
const FAST_BOUND: Duration = Duration::from_secs(10);
const SQL_BOUND: Duration = Duration::from_secs(120);
pub(super) const POLL: Duration = Duration::from_millis(10);
pub(super) const WAIT_BOUND: Duration = Duration::from_secs(60);

/// A server. All its methods take `&self`, so that it can be shared (`Arc`) with the tasks of a test.
#[derive(Debug)]
pub struct Server {
    pub(super) site: Site,
    port: u16,
    proxy: Proxy,
    /// The postmaster, if it was started. Held across a whole start or stop, so that two of them never interleave.
    child: Mutex<Option<Child>>,
}

/// What a server is before it runs: where it lives, and with what.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    /// The random text that its processes carry in their titles.
    pub(super) marker: String,
    pub(super) installation: Installation,
    /// The text of `tidegate.conf`.
    pub(super) conf: String,
}

impl Site {
    fn launch(&self, port: u16) -> Launch<'_> {
        let Self { name, data, log, marker, installation, .. } = self;
        Launch { installation, name, data, log, marker, port }
    }
}

impl Server {
    /// Starts a server whose data folder is ready, on a port of its own, with a proxy before it.
    pub(super) async fn first_start(site: Site) -> Result<Self, DevError> {
        folder::write(&site.data.join(settings::FILE), &site.conf, &site.installation)?;
        for _ in 0..PORT_TRIES {
            let port = ports::free()?;
            if let Launched::Ready(child) = site.launch(port).run().await? {
                let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await?;
                return Ok(Self { site, port, proxy, child: Mutex::new(Some(child)) });
            }
        }
        Err(DevError::NoPort { tries: PORT_TRIES })
    }

    /// Its name at the cluster's start: `primary`, `replica1`, `replica2`, … A promotion does not rename it.
    pub fn name(&self) -> &str {
        &self.site.name
    }

    /// The server's own TCP port on 127.0.0.1, which stays the same when it is started again.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The proxy before it, where clients can be cut off and delayed.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// For the service's role (password `tidegate`), through the proxy.
    pub fn url(&self) -> String {
        url(self.proxy.port())
    }

    /// The same, past the proxy.
    pub fn direct_url(&self) -> String {
        url(self.port)
    }

    /// For the superuser (no password), past the proxy.
    pub fn superuser_url(&self) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The text of its log, over all its starts.
    pub fn log(&self) -> Result<String, DevError> {
        let bytes = std::fs::read(&self.site.log);
        let bytes = bytes.map_err(DevError::io(format!("read {}", self.site.log.display())))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The process id of its postmaster.
    pub async fn postmaster_pid(&self) -> Result<i32, DevError> {
        let mut held = self.child.lock().await;
        running(&mut held)?.map(|(_, pid)| pid).ok_or_else(|| self.not_running())
    }

    /// Whether its postmaster runs (it may be paused, or be recovering from a crash).
    pub async fn is_running(&self) -> Result<bool, DevError> {
        Ok(running(&mut *self.child.lock().await)?.is_some())
    }

    /// Starts it again on its port; returns once it accepts connections.
    pub async fn start(&self) -> Result<(), DevError> {
        let mut held = self.child.lock().await;
        if running(&mut held)?.is_some() {
            return Err(DevError::Running { server: self.site.name.clone() });
        }
        for _ in 0..PORT_TRIES {
            if let Launched::Ready(child) = self.site.launch(self.port).run().await? {
                *held = Some(child);
                return Ok(());
            }
            // Replicas and the proxy know this port: wait for it rather than take another.
            sleep(Duration::from_millis(100)).await;
        }
        Err(DevError::NoPort { tries: PORT_TRIES })
    }

    /// Stops it in good order ("fast": sessions are ended, a checkpoint is written). Nothing to do if it is stopped.
    ///
    /// A primary waits until its replicas have everything; after ten seconds it is told to stop at once.
    pub async fn stop(&self) -> Result<(), DevError> {
        let mut held = self.child.lock().await;
        let Some((child, pid)) = running(&mut held)? else { return Ok(()) };
        processes::signal_all(&self.site.marker, Signal::CONT).await?;
        for signal in [Signal::INT, Signal::QUIT] {
            // Our own child that was not waited for yet: its pid cannot have been given to another process.
            processes::signal(pid, signal)?;
            if timeout(FAST_BOUND, child.wait()).await.is_ok() {
                *held = None;
                return Ok(());
            }
        }
        self.kill_held(&mut held).await
    }

    /// `stop`, then `start`.
    pub async fn restart(&self) -> Result<(), DevError> {
        self.stop().await?;
        self.start().await
    }

    /// SIGKILL for the postmaster and all its children: the machine is gone. Returns once they are.
    pub async fn kill(&self) -> Result<(), DevError> {
        self.kill_held(&mut *self.child.lock().await).await
    }

    async fn kill_held(&self, held: &mut Option<Child>) -> Result<(), DevError> {
        // The postmaster first: it would answer the death of a child with a restart.
        if let Some((child, pid)) = running(held)? {
            processes::signal(pid, Signal::KILL)?;
            child.wait().await.map_err(DevError::io("wait for postgres"))?;
        }
        *held = None;
        processes::signal_all(&self.site.marker, Signal::KILL).await?;
        if processes::wait_gone(&self.site.marker, WAIT_BOUND).await? {
            return Ok(());
        }
        Err(DevError::TimedOut { what: format!("the end of `{}`", self.site.name), bound: WAIT_BOUND })
    }

    /// SIGKILL for one backend. PostgreSQL then ends all sessions and recovers from a crash, with the same postmaster: see
    /// [`wait_ready`](Self::wait_ready). Returns at once.
    pub async fn kill_backend(&self, pid: i32) -> Result<(), DevError> {
        if !processes::with_marker(&self.site.marker).await?.contains(&pid) {
            return Err(DevError::NotOurs { pid, server: self.site.name.clone() });
        }
        processes::signal(pid, Signal::KILL)
    }

    /// Ends one session in good order (`pg_terminate_backend`); waits until it is gone.
    pub async fn terminate_backend(&self, pid: i32) -> Result<(), DevError> {
        let question = "pg_terminate_backend";
        match self.sql(&format!("SELECT pg_terminate_backend({pid}, 10000)")).await?.as_str() {
            "t" => Ok(()),
            other => Err(DevError::Answer { server: self.site.name.clone(), question, answer: other.to_owned() }),
        }
    }

    /// SIGSTOP for the postmaster and all its children: a hung machine, on which connections stay open and nothing moves.
    pub async fn pause(&self) -> Result<(), DevError> {
        // The postmaster first, or it would fork children that are missed.
        processes::signal(self.postmaster_pid().await?, Signal::STOP)?;
        processes::signal_all(&self.site.marker, Signal::STOP).await.map(|_| ())
    }

    /// Ends [`pause`](Self::pause).
    pub async fn unpause(&self) -> Result<(), DevError> {
        processes::signal_all(&self.site.marker, Signal::CONT).await.map(|_| ())
    }

    /// Waits until it answers a statement, such as after a crash of one backend.
    pub async fn wait_ready(&self) -> Result<(), DevError> {
        let answers = async {
            while self.sql("SELECT 1").await.is_err() {
                sleep(POLL).await;
            }
        };
        let answered = timeout(WAIT_BOUND, answers).await;
        answered.map_err(|_| DevError::TimedOut { what: format!("an answer of `{}`", self.name()), bound: WAIT_BOUND })
    }

    /// Runs SQL as the superuser in database `app`, past the proxy. Answers psql's unaligned text: a line a row, `|`
    /// between columns. Statements run one by one, each in its own transaction unless the text says BEGIN.
    pub async fn sql(&self, sql: &str) -> Result<String, DevError> {
        self.sql_in(DATABASE, sql).await
    }

    /// The same in another database.
    pub async fn sql_in(&self, database: &str, sql: &str) -> Result<String, DevError> {
        let asked = timeout(SQL_BOUND, self.psql(database, sql)).await;
        asked.map_err(|_| DevError::TimedOut { what: format!("SQL on `{}`", self.site.name), bound: SQL_BOUND })?
    }

    /// The single value that a statement answers.
    pub async fn sql_value<T: FromStr>(&self, sql: &str) -> Result<T, DevError> {
        let answer = self.sql(sql).await?;
        let question = "a single value";
        answer.parse().map_err(|_| DevError::Answer { server: self.site.name.clone(), question, answer })
    }

    async fn psql(&self, database: &str, sql: &str) -> Result<String, DevError> {
        let mut command = self.site.installation.command("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", SUPERUSER, "-d", database]);
        command.args(["-p", &self.port.to_string(), "-f", "-"]);
        // By the standard input, not `-c`: that would run several statements as one transaction.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(DevError::io("start psql"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A psql that could not connect has closed its end: what it says is the better error.
            let _ = stdin.write_all(sql.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(DevError::io("wait for psql"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(DevError::Sql { server: self.site.name.clone(), message })
    }

    fn not_running(&self) -> DevError {
        DevError::NotRunning { server: self.site.name.clone() }
    }
}

/// The postmaster and its pid, if it runs.
fn running(held: &mut Option<Child>) -> Result<Option<(&mut Child, i32)>, DevError> {
    let Some(child) = held.as_mut() else { return Ok(None) };
    if child.try_wait().map_err(DevError::io("wait for postgres"))?.is_some() {
        return Ok(None);
    }
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    Ok(pid.map(|pid| (child, pid)))
}

fn url(port: u16) -> String {
    format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}")
}
