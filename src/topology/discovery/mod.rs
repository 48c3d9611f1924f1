//! Hosts found by DNS: one task a cluster asks again as often as it must, and tells of differences only. What was found last
//! stays known while the name server fails or has nothing to say: a name server that forgets is not a cluster that is gone.

mod dns;
mod endpoint;

use std::{net::SocketAddr, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Metrics;

pub use dns::{LookupError, find};
pub use endpoint::{Answer, Endpoint};

/// No name is asked for more often, whatever its records' TTL.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Which records name the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A and AAAA: each address is a host.
    Address,
    /// A alone.
    A,
    /// AAAA alone.
    Aaaa,
    /// SRV: each target is a host, with its port, priority and weight.
    Srv,
}

/// What to ask, whom, and how often.
#[derive(Debug, Clone)]
pub struct DiscoverySpec {
    /// The cluster that the hosts belong to.
    pub cluster: String,
    /// The name that is looked up.
    pub name: String,
    /// The records that are asked for.
    pub record: RecordKind,
    /// The port of hosts whose record names none.
    pub port: u16,
    /// The name server; without one, those that the system is configured for.
    pub nameserver: Option<SocketAddr>,
    /// By TCP alone; else by UDP, and by TCP when an answer was too long.
    pub tcp: bool,
    /// The longest time between two look-ups; a shorter TTL is honoured.
    pub interval: Duration,
    /// For one try of one question.
    pub timeout: Duration,
}

/// What a cluster's name led to, when that has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The cluster.
    pub cluster: String,
    /// Its hosts, in a stable order; never empty.
    pub endpoints: Vec<Endpoint>,
}

/// Looks up again and again until `stop`, and tells `found` of the first answer and of every difference. Hosts that are
/// `in_use` already keep their addresses, as in [`find`].
pub async fn watch(
    spec: DiscoverySpec,
    in_use: Vec<Endpoint>,
    found: mpsc::Sender<Discovered>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut watch = Watch { known: in_use, told: false, failing: false, spec, metrics };
    stop.run_until_cancelled(async {
        loop {
            let (pause, changed) = watch.look().await;
            if let Some(discovered) = changed
                && found.send(discovered).await.is_err()
            {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    })
    .await;
}

struct Watch {
    spec: DiscoverySpec,
    known: Vec<Endpoint>,
    /// Whether what is known was told of.
    told: bool,
    failing: bool,
    metrics: Metrics,
}

impl Watch {
    /// One look-up: when the next is due, and what has changed.
    async fn look(&mut self) -> (Duration, Option<Discovered>) {
        let interval = self.spec.interval;
        match find(&self.spec, &self.known).await {
            Ok(answer) if answer.endpoints.is_empty() => {
                self.keep("empty", "it has no records");
                (interval, None)
            }
            Ok(Answer { endpoints, valid_for }) => {
                let pause = valid_for.clamp(LEAST_PAUSE.min(interval), interval);
                (pause, self.take(endpoints))
            }
            Err(error) => {
                self.keep("failed", &error.to_string());
                (interval.min(LEAST_PAUSE.max(interval / 4)), None)
            }
        }
    }

    /// The difference to what was known, if there is any.
    fn take(&mut self, endpoints: Vec<Endpoint>) -> Option<Discovered> {
        let DiscoverySpec { cluster, name, .. } = &self.spec;
        if std::mem::take(&mut self.failing) {
            tracing::info!(%cluster, name, "the name is found again");
        }
        if std::mem::replace(&mut self.told, true) && endpoints == self.known {
            self.metrics.discovery(cluster, "unchanged");
            return None;
        }
        self.metrics.discovery(cluster, "changed");
        let hosts: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
        tracing::info!(%cluster, name, ?hosts, "hosts discovered");
        self.known.clone_from(&endpoints);
        Some(Discovered { cluster: cluster.clone(), endpoints })
    }

    /// Says once why what is known stays as it is.
    fn keep(&mut self, result: &'static str, reason: &str) {
        self.metrics.discovery(&self.spec.cluster, result);
        if !std::mem::replace(&mut self.failing, true) {
            let DiscoverySpec { cluster, name, .. } = &self.spec;
            tracing::warn!(%cluster, name, reason, kept = self.known.len(), "discovery failed: the hosts found last are kept");
        }
    }
}
