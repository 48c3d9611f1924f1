//! A real PgBouncer in front of a local cluster: of one server, for tests of what it does to the broker, or of all, to be
//! measured beside it.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;

use super::{
    cluster::{Cluster, DATABASE, PASSWORD, USER},
    daemon::Daemon,
    error::DevError,
    server::Server,
};

const BOUND: Duration = Duration::from_secs(20);

/// A PgBouncer in transaction mode.
#[derive(Debug)]
pub struct PgBouncer {
    daemon: Daemon,
    server_connections: u32,
}

impl PgBouncer {
    /// Starts one that leads to `server` with so many server connections; it must be one of `cluster`'s, or of another
    /// cluster that lives on for as long.
    pub async fn start(cluster: &Cluster, server: &Server, server_connections: u32) -> Result<PgBouncer, DevError> {
        let mut daemon = Daemon::new(cluster, "pgbouncer", &["log"], DevError::NoPgBouncer)?;
        let configure = |daemon: &Daemon| {
            point(daemon, server, server_connections)?;
            Ok(vec![daemon.folder().join("pgbouncer.ini").into()])
        };
        daemon.start(configure).await?;
        Ok(PgBouncer { daemon, server_connections })
    }

    /// Starts one that leads to each server of the cluster, by its name as a database, with so many connections to each as
    /// `role`; it lets in everybody who names that role, so many at a time. From version 1.21 on it keeps prepared
    /// statements.
    pub async fn start_before_all(
        cluster: &Cluster,
        role: &str,
        server_connections: u32,
        clients_max: u32,
    ) -> Result<PgBouncer, DevError> {
        let mut daemon = Daemon::new(cluster, "pgbouncer", &["log"], DevError::NoPgBouncer)?;
        let prepared = if keeps_prepared(&daemon.version().await?) { "max_prepared_statements = 256\n" } else { "" };
        let server = |server: &Server| {
            format!("{} = host=127.0.0.1 port={} dbname={DATABASE} user={role}\n", server.name(), server.port())
        };
        let databases: String = cluster.servers().iter().map(|one| server(one)).collect();
        let configure = |daemon: &Daemon| {
            let (folder, port) = (daemon.folder().display(), daemon.port());
            daemon.write("users.txt", &format!("\"{role}\" \"\"\n"))?;
            let conf = format!(
                "[databases]\n{databases}[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 pool_mode = transaction\ndefault_pool_size = {server_connections}\nmax_client_conn = {clients_max}\n\
                 auth_type = trust\nauth_file = {folder}/users.txt\nlogfile = {folder}/log\nlog_connections = 0\n\
                 log_disconnections = 0\n{prepared}"
            );
            daemon.write("pgbouncer.ini", &conf)?;
            Ok(vec![daemon.folder().join("pgbouncer.ini").into()])
        };
        daemon.start(configure).await?;
        Ok(PgBouncer { daemon, server_connections })
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// Its process, if it runs.
    pub async fn pid(&self) -> Option<i32> {
        self.daemon.pid().await
    }

    /// What its program says of its version, such as `PgBouncer 1.18.0`.
    pub async fn version(&self) -> Result<String, DevError> {
        self.daemon.version().await
    }

    /// For the service's role, through the proxy.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.daemon.port())
    }

    /// Makes its next start lead to another server.
    pub fn point(&self, server: &Server) -> Result<(), DevError> {
        point(&self.daemon, server, self.server_connections)
    }

    /// Starts it again on its port; it must not run.
    pub async fn start_again(&self) -> Result<(), DevError> {
        self.daemon.start_again().await
    }

    /// SIGKILL: all its connections end at once.
    pub async fn kill(&self) -> Result<(), DevError> {
        self.daemon.end(Signal::KILL).await
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
        let mut command = self.daemon.installation().command("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER, "-d", database]);
        command.args(["-p", &self.daemon.port().to_string(), "-c", sql]).env("PGPASSWORD", PASSWORD).kill_on_drop(true);
        let output = timeout(BOUND, command.output()).await;
        let late = |_| DevError::TimedOut { what: "an answer of pgbouncer".into(), bound: BOUND };
        let output = output.map_err(late)?.map_err(DevError::io("run psql"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(DevError::Sql { server: "pgbouncer".into(), message })
    }
}

/// Writes the configuration that leads to a server.
fn point(daemon: &Daemon, server: &Server, server_connections: u32) -> Result<(), DevError> {
    let folder = daemon.folder().display();
    daemon.write("users.txt", &format!("\"{USER}\" \"{PASSWORD}\"\n"))?;
    let conf = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
         unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = {server_connections}\nmax_client_conn = 500\n\
         auth_type = scram-sha-256\nauth_file = {folder}/users.txt\nadmin_users = {USER}\nlogfile = {folder}/log\n",
        server.port(),
        daemon.port(),
    );
    daemon.write("pgbouncer.ini", &conf)
}

/// Whether it can keep prepared statements while it pools transactions: from 1.21 on.
fn keeps_prepared(version: &str) -> bool {
    let mut numbers = version.rsplit(' ').next().unwrap_or_default().split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 21),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::keeps_prepared;

    #[test]
    fn versions_that_keep_prepared_statements_are_known() {
        let kept =
            ["PgBouncer 1.18.0", "PgBouncer 1.21.0", "PgBouncer 1.9.1", "PgBouncer 2.0.0", ""].map(keeps_prepared);
        assert_eq!(kept, [false, true, false, true, false]);
    }
}
