//! A server program beside PostgreSQL that belongs to a local cluster: in the foreground on a free port, in a folder of its
//! own. It carries the cluster's marker in its command line, so whatever ends the cluster ends it too.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{cluster::Cluster, error::DevError, folder, installation::Installation, ports, processes};

const BOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);
const TRIES: usize = 20;

#[derive(Debug)]
pub(super) struct Daemon {
    /// Of its program, and of its messages.
    name: &'static str,
    program: PathBuf,
    folder: PathBuf,
    marker: String,
    port: u16,
    installation: Installation,
    arguments: Vec<OsString>,
    /// The files in its folder that it writes its messages to, beside its standard error.
    logs: &'static [&'static str],
    child: Mutex<Option<Child>>,
}

impl Daemon {
    /// With a folder for it, and not started yet; `missing` when the program is not installed.
    pub(super) fn new(
        cluster: &Cluster,
        name: &'static str,
        logs: &'static [&'static str],
        missing: DevError,
    ) -> Result<Daemon, DevError> {
        let unique: u32 = rand::random();
        let own = format!("{name}-{unique:08x}");
        let daemon = Daemon {
            name,
            program: program(name).ok_or(missing)?,
            folder: cluster.folder().join(&own),
            marker: cluster.marker(&own),
            port: 0,
            installation: cluster.installation().clone(),
            arguments: Vec::new(),
            logs,
            child: Mutex::default(),
        };
        folder::make(&daemon.folder, &daemon.installation)?;
        Ok(daemon)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Its process, if it runs.
    pub(super) async fn pid(&self) -> Option<i32> {
        self.child.lock().await.as_ref().and_then(|child| i32::try_from(child.id()?).ok())
    }

    /// The first line that its program prints for `--version`.
    pub(super) async fn version(&self) -> Result<String, DevError> {
        let output = self.installation.command_at(&self.program).arg("--version").output().await;
        let output = output.map_err(DevError::io(&format!("run {}", self.name)))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Writes a file into its folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), DevError> {
        folder::write(&self.folder.join(name), text, &self.installation)
    }

    /// Starts it on a free port; `configure` writes its configuration for that, and gives its arguments.
    pub(super) async fn start(
        &mut self,
        configure: impl Fn(&Daemon) -> Result<Vec<OsString>, DevError>,
    ) -> Result<(), DevError> {
        for _ in 0..TRIES {
            self.port = ports::free()?;
            self.arguments = configure(self)?;
            if self.launch().await? {
                return Ok(());
            }
        }
        Err(DevError::NoPort { tries: TRIES })
    }

    /// Starts it again on its port; it must not run.
    pub(super) async fn start_again(&self) -> Result<(), DevError> {
        if self.launch().await? { Ok(()) } else { Err(self.not_started()) }
    }

    /// Tells it something, if it runs.
    pub(super) async fn signal(&self, signal: Signal) -> Result<(), DevError> {
        let held = self.child.lock().await;
        held.as_ref().map_or(Ok(()), |child| send(child, signal))
    }

    /// Ends it by that signal, and waits for its end.
    pub(super) async fn end(&self, signal: Signal) -> Result<(), DevError> {
        let mut held = self.child.lock().await;
        let Some(mut child) = held.take() else { return Ok(()) };
        send(&child, signal)?;
        child.wait().await.map(drop).map_err(DevError::io(&format!("wait for {}", self.name)))
    }

    /// False when somebody else has the port.
    async fn launch(&self) -> Result<bool, DevError> {
        let name = self.name;
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("output"));
        let log = log.map_err(DevError::io(&format!("open the output of {name}")))?;
        let mut command: Command = self.installation.command_at(&self.program);
        // The marker makes the process known as ours.
        command.arg0(format!("{name} {}", self.marker)).args(&self.arguments);
        command.stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(DevError::io(&format!("start {name}")))?;
        let ready = async {
            loop {
                if child.try_wait().map_err(DevError::io(&format!("wait for {name}")))?.is_some() {
                    return Ok(false);
                }
                if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                    return Ok(true);
                }
                sleep(POLL).await;
            }
        };
        let late = |_| DevError::TimedOut { what: format!("the start of {name}"), bound: BOUND };
        if timeout(BOUND, ready).await.map_err(late)?? {
            *self.child.lock().await = Some(child);
            return Ok(true);
        }
        if self.said().contains("ddress already in use") { Ok(false) } else { Err(self.not_started()) }
    }

    fn said(&self) -> String {
        let files = self.logs.iter().copied().chain(["output"]);
        // What it did not write says nothing.
        files.filter_map(|name| std::fs::read_to_string(self.folder.join(name)).ok()).collect()
    }

    fn not_started(&self) -> DevError {
        DevError::NotStarted { server: self.name.into(), log: self.said() }
    }
}

fn send(child: &Child, signal: Signal) -> Result<(), DevError> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    pid.map_or(Ok(()), |pid| processes::signal(pid, signal))
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs servers where only root looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}
