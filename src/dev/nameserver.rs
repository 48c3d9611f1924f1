//! A real DNS server (NSD) on loopback with a zone that tests write, for tests of discovery.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::Signal;

use super::{cluster::Cluster, daemon::Daemon, error::DevError};

/// A name server of the zone `test.`, by UDP and TCP.
#[derive(Debug)]
pub struct NameServer {
    daemon: Daemon,
    serial: AtomicU32,
}

impl NameServer {
    /// Starts one whose zone holds these records, each a line of a zone file: `db 1 IN A 127.0.0.2`.
    pub async fn start(cluster: &Cluster, records: &[String]) -> Result<NameServer, DevError> {
        let daemon = Daemon::new(cluster, "nsd", &[], DevError::NoNameServer)?;
        let mut server = NameServer { daemon, serial: AtomicU32::new(0) };
        server.write_zone(records)?;
        server.daemon.start(configure).await?;
        Ok(server)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.daemon.port()))
    }

    /// Replaces the zone's records; it answers with them soon.
    pub async fn set(&self, records: &[String]) -> Result<(), DevError> {
        self.write_zone(records)?;
        self.daemon.signal(Signal::HUP).await
    }

    /// Ends it: nobody answers any more.
    pub async fn stop(&self) -> Result<(), DevError> {
        self.daemon.end(Signal::TERM).await
    }

    /// Starts it again on its port; it must not run.
    pub async fn start_again(&self) -> Result<(), DevError> {
        self.daemon.start_again().await
    }

    fn write_zone(&self, records: &[String]) -> Result<(), DevError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        let zone = format!(
            "$ORIGIN test.\n@ 1 IN SOA ns.test. admin.test. {serial} 60 60 60 1\n@ 1 IN NS ns.test.\nns 1 IN A 127.0.0.1\n{}\n",
            records.join("\n")
        );
        self.daemon.write("zone", &zone)
    }
}

fn configure(daemon: &Daemon) -> Result<Vec<std::ffi::OsString>, DevError> {
    let folder = daemon.folder().display();
    let settings = format!(
        "server:\n  ip-address: 127.0.0.1\n  port: {}\n  username: \"\"\n  zonesdir: \"{folder}\"\n  database: \"\"\n  \
         pidfile: \"\"\n  xfrdfile: \"{folder}/xfrd\"\n  zonelistfile: \"{folder}/zones\"\n  xfrdir: \"{folder}\"\n  \
         server-count: 1\n  zonefiles-check: yes\nremote-control:\n  control-enable: no\n\
         zone:\n  name: \"test\"\n  zonefile: \"zone\"\n",
        daemon.port()
    );
    daemon.write("nsd.conf", &settings)?;
    Ok(vec!["-d".into(), "-c".into(), daemon.folder().join("nsd.conf").into()])
}
