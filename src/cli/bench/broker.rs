//! A broker as a process of its own, so that what is measured of it is its own: how it starts and ends, and its memory.

use std::{io, net::SocketAddr, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tidegate_client::Client;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

pub(super) use super::process::Resident;
use super::process::{self, ProcessError};
use crate::cli::local::PATIENCE;

/// A running broker. Dropped, it is killed.
pub(super) struct Broker {
    child: Child,
    pid: Pid,
    url: String,
    grpc: SocketAddr,
    http: SocketAddr,
}

/// Why the broker could not be started, measured or stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokerError {
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
    #[error("the broker did not say within {PATIENCE:?} where it listens; its log is above")]
    Silent,
    #[error("the broker did not take a read within {PATIENCE:?}: {0}")]
    NotReady(String),
    #[error("measuring the broker: {0}")]
    Process(#[from] ProcessError),
    #[error("the broker ended with {0}")]
    Ended(std::process::ExitStatus),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> BrokerError {
    move |error| BrokerError::Io { what, error }
}

impl Broker {
    /// Starts one in front of a primary, with this configuration besides (as `TIDEGATE_*` variables), and awaits its first
    /// read.
    pub(super) async fn start(
        primary: &str,
        configuration: &[(&str, String)],
    ) -> Result<(Broker, Client), BrokerError> {
        let program = std::env::current_exe().map_err(io_error("find this program"))?;
        let mut command = Command::new(program);
        command.args(["serve", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-level", "warn"]);
        // The configuration is what is given here alone.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TIDEGATE_")) {
                command.env_remove(name);
            }
        }
        command.env("TIDEGATE_PRIMARY", primary).envs(configuration.iter().map(|(name, value)| (name, value)));
        // Ctrl-C is for us, who stop it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(io_error("start the broker"))?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).ok_or(BrokerError::Silent)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or(BrokerError::Silent)?).lines();
        let grpc: SocketAddr = said(&mut lines, "gRPC on ").await?.parse().map_err(|_| BrokerError::Silent)?;
        let http = said(&mut lines, "HTTP on ").await?.parse().map_err(|_| BrokerError::Silent)?;
        let url = format!("http://{grpc}");
        let broker = Broker { child, pid, url, grpc, http };
        let client = broker.ready().await?;
        Ok((broker, client))
    }

    /// Waits until it answers a read: it must have found its host.
    async fn ready(&self) -> Result<Client, BrokerError> {
        let not_ready = |error: tidegate_client::Error| BrokerError::NotReady(error.to_string());
        let client = Client::builder().connect(&self.url).await.map_err(not_ready)?;
        let mut last = None;
        let answered = timeout(PATIENCE, async {
            loop {
                match client.read("SELECT 1", []).await {
                    Ok(stream) => match stream.rows().await {
                        Ok(_) => return,
                        Err(error) => last = Some(error),
                    },
                    Err(error) => last = Some(error),
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        let answered = answered.await;
        match (answered, last) {
            (Ok(()), _) => Ok(client),
            (Err(_), Some(error)) => Err(not_ready(error)),
            (Err(_), None) => Err(BrokerError::NotReady("no answer".into())),
        }
    }

    /// Where it listens for gRPC.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The same as an address.
    pub(super) fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// Where its metrics are.
    pub(super) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its process.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// What it takes now.
    pub(super) fn resident(&self) -> Result<Resident, BrokerError> {
        Ok(process::memory(self.pid, "VmRSS")?)
    }

    /// The most that it took since [`Broker::forget_peak`].
    pub(super) fn peak(&self) -> Result<Resident, BrokerError> {
        Ok(process::memory(self.pid, "VmHWM")?)
    }

    /// The peak counts from now on (proc(5), `clear_refs`).
    pub(super) fn forget_peak(&self) -> Result<(), BrokerError> {
        Ok(process::forget_peak(self.pid)?)
    }

    /// Stops it in order.
    pub(super) async fn stop(mut self) -> Result<(), BrokerError> {
        kill_process(self.pid, Signal::TERM).map_err(|errno| io_error("stop the broker")(errno.into()))?;
        let ended = self.child.wait().await.map_err(io_error("wait for the broker"))?;
        if ended.success() { Ok(()) } else { Err(BrokerError::Ended(ended)) }
    }
}

/// The address in the line that begins so: the next that it prints.
async fn said(lines: &mut Lines<BufReader<ChildStdout>>, start: &str) -> Result<String, BrokerError> {
    let line = timeout(PATIENCE, lines.next_line()).await.map_err(|_| BrokerError::Silent)?;
    let line = line.map_err(io_error("read what the broker says"))?.unwrap_or_default();
    let address = line.strip_prefix(start).and_then(|rest| rest.split(' ').next());
    address.map(str::to_owned).ok_or(BrokerError::Silent)
}
