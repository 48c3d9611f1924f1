//! What a server does as a part of its cluster: settings, replay, promotion, following another primary.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    basebackup,
    error::DevError,
    folder,
    server::{POLL, Server, WAIT_BOUND},
    settings::{self, literal, primary_conninfo},
};

impl Server {
    /// ALTER SYSTEM SET and a reload; returns once the reload was done. Settings that need a restart wait for it.
    pub async fn set(&self, name: &str, value: &str) -> Result<(), DevError> {
        self.alter_system(&format!("SET {name} = {}", literal(value))).await
    }

    /// Takes [`set`](Self::set) back.
    pub async fn reset(&self, name: &str) -> Result<(), DevError> {
        self.alter_system(&format!("RESET {name}")).await
    }

    async fn alter_system(&self, change: &str) -> Result<(), DevError> {
        const LOADED: &str = "SELECT pg_conf_load_time()";
        let before = self.sql(LOADED).await?;
        self.sql(&format!("ALTER SYSTEM {change}; SELECT pg_reload_conf();")).await?;
        // A new session inherits the postmaster's time of loading: once that moved, the others have been told.
        self.wait_until("a reload", async || Ok(self.sql(LOADED).await? != before)).await
    }

    /// Stops replay on a replica: WAL still arrives, and is not applied. Returns once replay stands still.
    pub async fn pause_replay(&self) -> Result<(), DevError> {
        self.sql("SELECT pg_wal_replay_pause()").await?;
        let paused = async || Ok(self.sql("SELECT pg_get_wal_replay_pause_state()").await? == "paused");
        self.wait_until("a pause of replay", paused).await
    }

    /// Ends [`pause_replay`](Self::pause_replay).
    pub async fn resume_replay(&self) -> Result<(), DevError> {
        self.sql("SELECT pg_wal_replay_resume()").await.map(|_| ())
    }

    /// A replica applies each commit this long after it was made on the primary (`recovery_min_apply_delay`).
    pub async fn apply_delay(&self, delay: Duration) -> Result<(), DevError> {
        self.set("recovery_min_apply_delay", &format!("{}ms", delay.as_millis())).await
    }

    /// Makes a replica a primary; returns once it takes writes. The former primary is left as it is.
    pub async fn promote(&self) -> Result<(), DevError> {
        let question = "pg_promote";
        match self.sql("SELECT pg_promote(true, 60)").await?.as_str() {
            "t" => self.wait_until("a promotion", async || Ok(!self.is_in_recovery().await?)).await,
            other => Err(DevError::Answer { server: self.name().to_owned(), question, answer: other.to_owned() }),
        }
    }

    /// Whether it is a replica now.
    pub async fn is_in_recovery(&self) -> Result<bool, DevError> {
        Ok(self.sql("SELECT pg_is_in_recovery()").await? == "t")
    }

    /// Points a replica to another primary, without a restart; returns once it streams from there.
    ///
    /// For a former primary, or a replica that has applied what the new primary lacks, see
    /// [`rebuild_from`](Self::rebuild_from).
    pub async fn follow(&self, primary: &Server) -> Result<(), DevError> {
        self.set("primary_conninfo", &primary_conninfo(primary.port(), self.name())).await?;
        self.wait_streaming(primary).await
    }

    /// Throws this server's data away and makes it a fresh replica of `primary`, on the same port.
    pub async fn rebuild_from(&self, primary: &Server) -> Result<(), DevError> {
        self.kill().await?;
        folder::remove(&self.site.data)?;
        basebackup::copy(&self.site, primary.port()).await?;
        folder::write(&self.site.data.join(settings::FILE), &self.site.conf, &self.site.installation)?;
        basebackup::point(&self.site, primary.port())?;
        self.start().await?;
        self.wait_streaming(primary).await
    }

    /// Starts a former primary, which was stopped in order, as a replica of `primary`: one that had received everything
    /// before it was promoted. The data stays as it is.
    pub async fn rejoin(&self, primary: &Server) -> Result<(), DevError> {
        basebackup::demote(&self.site)?;
        basebackup::point(&self.site, primary.port())?;
        self.start().await?;
        self.wait_streaming(primary).await
    }

    /// Waits until this replica streams from `primary`.
    pub async fn wait_streaming(&self, primary: &Server) -> Result<(), DevError> {
        let question = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = {}",
            literal(self.name())
        );
        self.wait_until("streaming", async || Ok(primary.sql(&question).await? != "0")).await
    }

    /// The end of the WAL that this primary has flushed, such as `16/B374D848`.
    pub async fn flush_lsn(&self) -> Result<String, DevError> {
        self.sql("SELECT pg_current_wal_flush_lsn()").await
    }

    /// Waits until this replica has replayed `lsn`.
    pub async fn wait_replayed(&self, lsn: &str) -> Result<(), DevError> {
        let question = format!("SELECT pg_last_wal_replay_lsn() >= {}::pg_lsn", literal(lsn));
        self.wait_until("replay", async || Ok(self.sql(&question).await? == "t")).await
    }

    /// Waits until this replica has replayed what `primary` has flushed by now.
    pub async fn catch_up(&self, primary: &Server) -> Result<(), DevError> {
        self.wait_replayed(&primary.flush_lsn().await?).await
    }

    async fn wait_until(&self, what: &str, is_so: impl AsyncFn() -> Result<bool, DevError>) -> Result<(), DevError> {
        let poll = async {
            while !is_so().await? {
                sleep(POLL).await;
            }
            Ok(())
        };
        let what = format!("{what} of `{}`", self.name());
        timeout(WAIT_BOUND, poll).await.map_err(|_| DevError::TimedOut { what, bound: WAIT_BOUND })?
    }
}
