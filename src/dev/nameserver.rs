//! A real DNS server (NSD) on loopback with a zone that tests write, for tests of discovery. It carries the cluster's marker
//! in its command line, so whatever ends the cluster ends it too.

use std::{
    fs::OpenOptions,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{cluster::Cluster, error::DevError, folder, ports, processes};

const BOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);
const TRIES: usize = 20;

/// A name server of the zone `test.`, by UDP and TCP.
#[derive(Debug)]
pub struct NameServer {
    program: PathBuf,
    folder: PathBuf,
    marker: String,
    port: u16,
    serial: AtomicU32,
    installation: super::Installation,
    child: Mutex<Option<Child>>,
}

impl NameServer {
    /// Starts one whose zone holds these records, each a line of a zone file: `db 1 IN A 127.0.0.2`.
    pub async fn start(cluster: &Cluster, records: &[String]) -> Result<NameServer, DevError> {
        let unique: u32 = rand::random();
        let mut server = NameServer {
            program: program()?,
            folder: cluster.folder().join(format!("nsd-{unique:08x}")),
            marker: cluster.marker(&format!("nsd-{unique:08x}")),
            port: 0,
            serial: AtomicU32::new(0),
            installation: cluster.installation().clone(),
            child: Mutex::default(),
        };
        folder::make(&server.folder, &server.installation)?;
        server.write_zone(records)?;
        for _ in 0..TRIES {
            server.port = ports::free()?;
            server.write_settings()?;
            if server.launch().await? {
                return Ok(server);
            }
        }
        Err(DevError::NoPort { tries: TRIES })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port))
    }

    /// Replaces the zone's records; it answers with them soon.
    pub async fn set(&self, records: &[String]) -> Result<(), DevError> {
        self.write_zone(records)?;
        let held = self.child.lock().await;
        let pid = held.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        pid.map_or(Ok(()), |pid| processes::signal(pid, Signal::HUP))
    }

    /// Ends it: nobody answers any more.
    pub async fn stop(&self) -> Result<(), DevError> {
        let mut held = self.child.lock().await;
        let Some(mut child) = held.take() else { return Ok(()) };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            processes::signal(pid, Signal::TERM)?;
        }
        child.wait().await.map(drop).map_err(DevError::io("wait for nsd"))
    }

    /// Starts it again on its port; it must not run.
    pub async fn start_again(&self) -> Result<(), DevError> {
        if self.launch().await? { Ok(()) } else { Err(self.not_started()) }
    }

    fn write_zone(&self, records: &[String]) -> Result<(), DevError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let zone = format!(
            "$ORIGIN test.\n@ 1 IN SOA ns.test. admin.test. {serial} 60 60 60 1\n@ 1 IN NS ns.test.\nns 1 IN A 127.0.0.1\n{}\n",
            records.join("\n")
        );
        folder::write(&self.folder.join("zone"), &zone, &self.installation)
    }

    fn write_settings(&self) -> Result<(), DevError> {
        let folder = self.folder.display();
        let settings = format!(
            "server:\n  ip-address: 127.0.0.1\n  port: {}\n  username: \"\"\n  zonesdir: \"{folder}\"\n  database: \"\"\n  \
             pidfile: \"\"\n  xfrdfile: \"{folder}/xfrd\"\n  zonelistfile: \"{folder}/zones\"\n  xfrdir: \"{folder}\"\n  \
             server-count: 1\n  zonefiles-check: yes\nremote-control:\n  control-enable: no\n\
             zone:\n  name: \"test\"\n  zonefile: \"zone\"\n",
            self.port
        );
        folder::write(&self.folder.join("nsd.conf"), &settings, &self.installation)
    }

    /// False when somebody else has the port.
    async fn launch(&self) -> Result<bool, DevError> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("output"));
        let log = log.map_err(DevError::io("open nsd's output"))?;
        let mut command: Command = self.installation.command_at(&self.program);
        // The marker makes the process known as ours.
        command.arg0(format!("nsd {}", self.marker)).arg("-d").arg("-c").arg(self.folder.join("nsd.conf"));
        command.stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(DevError::io("start nsd"))?;
        let ready = async {
            loop {
                if child.try_wait().map_err(DevError::io("wait for nsd"))?.is_some() {
                    return Ok(false);
                }
                if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                    return Ok(true);
                }
                sleep(POLL).await;
            }
        };
        let late = |_| DevError::TimedOut { what: "the start of nsd".into(), bound: BOUND };
        if timeout(BOUND, ready).await.map_err(late)?? {
            *self.child.lock().await = Some(child);
            return Ok(true);
        }
        let said = std::fs::read_to_string(self.folder.join("output")).unwrap_or_default();
        if said.contains("ddress already in use") { Ok(false) } else { Err(self.not_started()) }
    }

    fn not_started(&self) -> DevError {
        let log = std::fs::read_to_string(self.folder.join("output")).unwrap_or_default();
        DevError::NotStarted { server: "nsd".into(), log }
    }
}

fn program() -> Result<PathBuf, DevError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs it where only root looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    let found = folders.map(|folder| folder.join("nsd")).find(|program| program.is_file());
    found.ok_or(DevError::NoNameServer)
}
