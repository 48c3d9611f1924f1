//! Asks one host what it is, within `pool.connect_timeout`.

use crate::{
    app,
    config::{Config, ConfiguredRole, HostConfig},
    postgres::{Facts, Identity, PgError, ProbeConnection, Reading, Target, server_behind},
};

/// A host and what it said.
pub(super) struct Examined {
    pub(super) name: String,
    pub(super) configured: ConfiguredRole,
    /// The login role.
    pub(super) user: String,
    /// What it said, or why it said nothing.
    pub(super) answer: Result<Answer, String>,
    /// What a server said to which the host's pooler led; None: it has none.
    pub(super) pooler: Option<Result<Facts, String>>,
}

/// What a server said of itself.
pub(super) struct Answer {
    pub(super) identity: Identity,
    pub(super) reading: Reading,
    /// Connections that it lets ordinary roles have.
    pub(super) connections_allowed: u32,
}

pub(super) async fn host(host: &HostConfig, config: &Config) -> Examined {
    let target = app::target(host, config);
    let limit = target.connect_timeout;
    let asked = tokio::time::timeout(limit, ask(&target)).await;
    let answer = asked.unwrap_or_else(|_| Err(format!("no answer within {}s", limit.as_secs_f64())));
    let pooler = match app::pooler(host, config) {
        Some(target) => Some(server_behind(&target).await.map_err(|error| error.to_string())),
        None => None,
    };
    Examined { name: host.name.clone(), configured: host.configured_role, user: host.url.user.clone(), answer, pooler }
}

async fn ask(target: &Target) -> Result<Answer, String> {
    let connection = ProbeConnection::open(target).await.map_err(|error| error.to_string())?;
    let limit = target.connect_timeout;
    let failed = |error: PgError| error.to_string();
    let reading = connection.read(limit).await.map_err(failed)?;
    let connections_allowed = connection.connections_allowed(limit).await.map_err(failed)?;
    Ok(Answer { identity: connection.identity().clone(), reading, connections_allowed })
}
