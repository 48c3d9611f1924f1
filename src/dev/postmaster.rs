//! Launching one postmaster, and knowing when it accepts connections. Holds nothing: the server keeps the process.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::Child,
    time::{sleep, timeout},
};

use super::{error::DevError, installation::Installation};

const POLL: Duration = Duration::from_millis(5);
const BOUND: Duration = Duration::from_secs(60);
const LOG_LINES: usize = 30;

/// What to launch.
pub(super) struct Launch<'a> {
    pub(super) installation: &'a Installation,
    pub(super) name: &'a str,
    pub(super) data: &'a Path,
    pub(super) log: &'a Path,
    pub(super) marker: &'a str,
    pub(super) port: u16,
}

/// How it went.
pub(super) enum Launched {
    /// It accepts connections.
    Ready(Child),
    /// Somebody else has the port.
    PortTaken,
}

impl Launch<'_> {
    /// Starts the postmaster, and waits until it accepts connections: a replica once it is consistent.
    pub(super) async fn run(&self) -> Result<Launched, DevError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log);
        let log = log.map_err(DevError::io(format!("open {}", self.log.display())))?;
        let log_start = log.metadata().map_or(0, |metadata| metadata.len()) as usize;
        let mut command = self.installation.command("postgres");
        command.arg("-D").arg(self.data).args(["-p", &self.port.to_string()]);
        // On the command line, not in a file: this is what makes the process known as ours.
        command.args(["-c", &format!("cluster_name={}", self.marker)]);
        // Ctrl-C is for us: we stop it. And it outlives a drop of the handle: the watchdog ends it in good order.
        command.stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(false);
        let mut child = command.spawn().map_err(DevError::io("start postgres"))?;
        let ready = timeout(BOUND, self.wait_ready(&mut child)).await;
        if ready.map_err(|_| DevError::TimedOut { what: format!("the start of `{}`", self.name), bound: BOUND })?? {
            return Ok(Launched::Ready(child));
        }
        let said = fs::read(self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(said.get(log_start..).unwrap_or_default()).into_owned();
        if said.contains("could not bind") {
            return Ok(Launched::PortTaken);
        }
        Err(DevError::NotStarted { server: self.name.to_owned(), log: tail(&said) })
    }

    /// True when it is ready; false when it ended.
    async fn wait_ready(&self, child: &mut Child) -> Result<bool, DevError> {
        let pid = child.id().map(|pid| pid.to_string());
        let path = self.data.join("postmaster.pid");
        loop {
            if child.try_wait().map_err(DevError::io("wait for postgres"))?.is_some() {
                return Ok(false);
            }
            // Line 1 is the pid (of an earlier, killed run until ours has written its own), line 8 the state.
            let text = fs::read_to_string(&path).unwrap_or_default();
            let mut lines = text.lines().map(str::trim);
            if lines.next() == pid.as_deref() && lines.nth(6) == Some("ready") {
                return Ok(true);
            }
            sleep(POLL).await;
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
