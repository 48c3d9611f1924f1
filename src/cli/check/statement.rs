//! `tidegate check --statement`: whether a statement is clean on each database, and if not, why.

use serde_json::json;

use crate::{
    app,
    config::{Config, DatabaseConfig},
    postgres::ProbeConnection,
    sql,
};

/// A database and what speaks against the statement there.
pub(super) struct StatementVerdict {
    database: String,
    /// Empty: the statement is clean there.
    reasons: Vec<String>,
}

impl StatementVerdict {
    pub(super) fn is_clean(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Judges the text, and asks one server of each database.
pub(super) async fn judge(statement: &str, config: &Config) -> Vec<StatementVerdict> {
    let footprint = sql::footprint(statement);
    let mut verdicts = Vec::with_capacity(config.databases.len());
    for database in &config.databases {
        let reasons = match &footprint {
            Ok(footprint) => ask(footprint, database, config).await,
            Err(why) => vec![why.to_string()],
        };
        verdicts.push(StatementVerdict { database: database.name.clone(), reasons });
    }
    verdicts
}

/// The first host of the database's cluster that answers has the catalogue of all of them.
async fn ask(footprint: &sql::Footprint, database: &DatabaseConfig, config: &Config) -> Vec<String> {
    let mut reasons = vec!["its cluster has no host".to_owned()];
    let hosts = config.clusters.iter().filter(|cluster| cluster.name == database.cluster).flat_map(|it| &it.hosts);
    for host in hosts {
        let target = app::target(host, config).with_database(&database.dbname);
        let asked = match ProbeConnection::open(&target).await {
            Ok(connection) => {
                connection.objections(footprint, target.connect_timeout).await.map_err(|it| it.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match asked {
            Ok(objections) => return objections.iter().map(ToString::to_string).collect(),
            Err(error) => reasons = vec![error],
        }
    }
    reasons
}

/// A line a database, and one a reason.
pub(super) fn text(verdicts: &[StatementVerdict]) -> String {
    let lines = verdicts.iter().flat_map(|StatementVerdict { database, reasons }| {
        let verdict = if reasons.is_empty() { "clean" } else { "not clean" };
        let reasons = reasons.iter().map(|reason| format!("  {reason}"));
        std::iter::once(format!("{database}: {verdict}")).chain(reasons)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One document.
pub(super) fn json(verdicts: &[StatementVerdict]) -> String {
    let all = verdicts.iter().map(|StatementVerdict { database, reasons }| {
        json!({ "name": database, "clean": reasons.is_empty(), "reasons": reasons })
    });
    let clean = verdicts.iter().all(StatementVerdict::is_clean);
    json!({ "clean": clean, "databases": all.collect::<Vec<_>>() }).to_string()
}
