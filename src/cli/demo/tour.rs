//! The tour's steps, in order. Each makes real calls, prints them with their receipts, and fails unless they show what
//! its title says.

use tidegate_client::{Client, Error, HostRole, Receipt, RouteReason, params};

use super::{
    checks::{self, Tally},
    death,
    report::Report,
};
use crate::{
    cli::local::{Local, PATIENCE},
    dev::DevError,
};

/// Why a step did not show what it says.
#[derive(Debug, thiserror::Error)]
pub(super) enum TourError {
    #[error("{what}: {error}")]
    Call { what: String, error: Error },
    #[error(transparent)]
    Server(#[from] DevError),
    #[error("did not happen within {}s: {what}", PATIENCE.as_secs())]
    TimedOut { what: &'static str },
    #[error("{0}")]
    NotShown(String),
}

/// The reads of a tour.
const READ: &str = "SELECT n FROM visits WHERE id = $1";
/// The row that the first steps write.
const ROW: i64 = 0;

/// A tour under way.
pub(super) struct Tour<'a> {
    pub(super) local: &'a Local,
    pub(super) report: &'a mut Report,
    /// Without a session.
    client: Client,
    pub(super) writer: Client,
    other: Client,
}

impl<'a> Tour<'a> {
    /// Connects, and makes a table.
    pub(super) async fn begin(local: &'a Local, report: &'a mut Report) -> Result<Tour<'a>, TourError> {
        let url = format!("http://{}", local.app.grpc_address());
        // Without position tokens: what is shown is the broker's memory, not the client's.
        let builder = Client::builder().remember_positions(false).timeout(PATIENCE);
        let client = builder.connect(url).await.map_err(call("connect"))?;
        let (writer, other) = (client.for_session("writer"), client.for_session("other"));
        let table = "CREATE TABLE visits (id bigint PRIMARY KEY, n bigint NOT NULL)";
        client.execute(table, []).await.map_err(call("create a table"))?;
        Ok(Tour { local, report, client, writer, other })
    }

    /// All steps.
    pub(super) async fn run(mut self, checks: u64) -> Result<Tally, TourError> {
        self.write_and_read().await?;
        self.pause().await?;
        self.resume().await?;
        death::show(self.local, self.report, &self.client).await?;
        let tally = checks::show(self.local, self.report, &self.client, checks).await?;
        self.failover().await?;
        Ok(tally)
    }

    async fn write_and_read(&mut self) -> Result<(), TourError> {
        self.report.step("A write goes to the primary; a replica serves its reader as soon as it has replayed it");
        let sql = "INSERT INTO visits VALUES ($1, 1)";
        let written = self.writer.execute(sql, params![ROW]).await.map_err(call("the write"))?;
        self.report.call("session `writer` inserts 1", &written.receipt);
        demand(is(&written.receipt, HostRole::Primary, RouteReason::Write), "the write did not go to the primary")?;
        self.read_from_replica(1).await
    }

    async fn pause(&mut self) -> Result<(), TourError> {
        let servers = &self.local.cluster;
        for replica in servers.replicas() {
            replica.catch_up(servers.primary()).await?;
            replica.pause_replay().await?;
        }
        self.report.step("Replay is paused on every replica: the writer's read goes to the primary, others' do not");
        let sql = "UPDATE visits SET n = n + 1 WHERE id = $1";
        let written = self.writer.execute(sql, params![ROW]).await.map_err(call("the write"))?;
        self.report.call("session `writer` increments it to 2", &written.receipt);
        let (n, receipt) = read(&self.writer, ROW).await?;
        self.report.call(&format!("session `writer` reads {n}"), &receipt);
        demand(n == 2, "the writer did not see its own write")?;
        demand(is(&receipt, HostRole::Primary, RouteReason::Behind), "the writer's read did not go to the primary")?;
        let (n, receipt) = read(&self.other, ROW).await?;
        self.report.call(&format!("session `other` reads {n}: it did not ask for more"), &receipt);
        demand(receipt.role() == HostRole::Replica, "the other session's read did not stay on a replica")?;
        demand(n == 1, "a replica shows what it cannot have replayed")
    }

    async fn resume(&mut self) -> Result<(), TourError> {
        for replica in self.local.cluster.replicas() {
            replica.resume_replay().await?;
        }
        self.report.step("Replay is resumed: the writer is back on the replicas");
        self.read_from_replica(2).await
    }

    /// Reads the writer's row, again with each news of the hosts, until a replica answers.
    pub(super) async fn read_from_replica(&mut self, expected: i64) -> Result<(), TourError> {
        let mut changes = self.local.app.topology().changes();
        let answered = async {
            loop {
                changes.mark_unchanged();
                let (n, receipt) = read(&self.writer, ROW).await?;
                demand(n == expected, "the writer did not see its own write")?;
                if receipt.role() == HostRole::Replica {
                    return Ok::<_, TourError>(receipt);
                }
                let stopped = |_| TourError::NotShown("the broker has stopped".into());
                changes.changed().await.map_err(stopped)?;
            }
        };
        let late = |_| TourError::TimedOut { what: "a replica serves the writer's read" };
        let receipt = tokio::time::timeout(PATIENCE, answered).await.map_err(late)??;
        self.report.call(&format!("session `writer` reads {expected}"), &receipt);
        demand(receipt.reason() == RouteReason::CaughtUp, "the replica was not chosen for what it has replayed")
    }
}

/// Reads one number, with the receipt.
pub(super) async fn read(client: &Client, id: i64) -> Result<(i64, Receipt), TourError> {
    let one = async {
        let rows = client.read(READ, params![id]).await?.rows().await?;
        let n = rows.iter().next().map(|row| row.get::<i64>(0)).transpose()?;
        Ok((n, rows.receipt().clone()))
    };
    match one.await.map_err(call("a read"))? {
        (Some(n), receipt) => Ok((n, receipt)),
        (None, receipt) => Err(TourError::NotShown(format!("{} has no row {id}", receipt.host))),
    }
}

/// Names the call that failed.
pub(super) fn call(what: &str) -> impl FnOnce(Error) -> TourError {
    move |error| TourError::Call { what: what.to_owned(), error }
}

/// What a step claims.
pub(super) fn demand(is_so: bool, otherwise: &str) -> Result<(), TourError> {
    if is_so { Ok(()) } else { Err(TourError::NotShown(otherwise.to_owned())) }
}

fn is(receipt: &Receipt, role: HostRole, reason: RouteReason) -> bool {
    (receipt.role(), receipt.reason()) == (role, reason)
}
