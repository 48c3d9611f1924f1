//! The look-up itself. An answer is whole or it is none: half of one would remove hosts that are there.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, Record, RecordType},
};

use super::{Answer, DiscoverySpec, Endpoint, RecordKind};

/// Tries of one question.
const ATTEMPTS: usize = 2;

/// Why a look-up gave nothing to go by.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The system's own configuration cannot be used.
    #[error("the system's name servers cannot be read: {0}; name one in discover.nameserver")]
    NoNameServer(NetError),
    /// No answer, or one that says that something is wrong.
    #[error("looking up {name} ({record}) failed: {error}")]
    Failed {
        /// The name.
        name: String,
        /// The record type.
        record: RecordType,
        /// What went wrong.
        error: NetError,
    },
    /// Not a name that DNS can hold.
    #[error("{name:?} is not a DNS name: {error}")]
    NotAName {
        /// The name.
        name: String,
        /// What is wrong with it.
        error: String,
    },
}

/// Looks a cluster's hosts up. An answer without records, or that there is no such name, is an empty answer.
///
/// A target of SRV records that has several addresses keeps the one that it has in `known`.
///
/// # Errors
/// Any question that was not answered, see [`LookupError`].
pub async fn find(spec: &DiscoverySpec, known: &[Endpoint]) -> Result<Answer, LookupError> {
    // Made anew each time: the system's configuration may have changed, and an old connection be dead.
    let asking = Asking { resolver: resolver(spec).map_err(LookupError::NoNameServer)?, least_ttl: None };
    asking.run(spec, known).await
}

fn resolver(spec: &DiscoverySpec) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match spec.nameserver {
        Some(address) => {
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server(address, spec.tcp)]);
            TokioResolver::builder_with_config(config, provider)
        }
        None => {
            let (config, options) = hickory_resolver::system_conf::read_system_conf()?;
            let (domain, search, servers) = config.into_parts();
            let port = |config: &NameServerConfig| config.connections.first().map_or(53, |first| first.port);
            let servers =
                servers.iter().map(|found| server(SocketAddr::new(found.ip, port(found)), spec.tcp)).collect();
            let mut builder =
                TokioResolver::builder_with_config(ResolverConfig::from_parts(domain, search, servers), provider);
            *builder.options_mut() = options;
            builder
        }
    };
    let options = builder.options_mut();
    // What is kept is kept by the caller, as long as the records say.
    options.cache_size = 0;
    options.timeout = spec.timeout;
    options.attempts = ATTEMPTS;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

fn server(address: SocketAddr, tcp: bool) -> NameServerConfig {
    let all = if tcp { vec![ConnectionConfig::tcp()] } else { vec![ConnectionConfig::udp(), ConnectionConfig::tcp()] };
    let at_port = all.into_iter().map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, at_port.collect())
}

struct Asking {
    resolver: TokioResolver,
    least_ttl: Option<u32>,
}

impl Asking {
    async fn run(mut self, spec: &DiscoverySpec, known: &[Endpoint]) -> Result<Answer, LookupError> {
        let kinds: &[RecordType] = match spec.record {
            RecordKind::Srv => return self.run_srv(spec, known).await,
            RecordKind::Address => &[RecordType::A, RecordType::AAAA],
            RecordKind::A => &[RecordType::A],
            RecordKind::Aaaa => &[RecordType::AAAA],
        };
        let endpoint = |address| Endpoint {
            priority: 0,
            target: spec.name.trim_end_matches('.').to_owned(),
            address,
            port: spec.port,
            weight: None,
        };
        let addresses = self.addresses(&parse(&spec.name)?, kinds).await?;
        Ok(self.answer(addresses.into_iter().map(endpoint).collect()))
    }

    async fn run_srv(mut self, spec: &DiscoverySpec, known: &[Endpoint]) -> Result<Answer, LookupError> {
        let mut endpoints = Vec::new();
        for record in self.records(&parse(&spec.name)?, RecordType::SRV).await? {
            let RData::SRV(srv) = &record.data else { continue };
            // A single dot says that the service is decidedly not there.
            if srv.target.is_root() {
                continue;
            }
            let target = srv.target.to_utf8().trim_end_matches('.').to_ascii_lowercase();
            let addresses = self.addresses(&srv.target, &[RecordType::A, RecordType::AAAA]).await?;
            let before = known.iter().find(|known| known.target == target && known.port == srv.port);
            let kept = before.map(|before| before.address).filter(|address| addresses.contains(address));
            let Some(address) = kept.or_else(|| addresses.first().copied()) else {
                tracing::warn!(cluster = %spec.cluster, target, "an SRV record leads to a name without an address: left out");
                continue;
            };
            let (priority, port, weight) = (srv.priority, srv.port, Some(srv.weight));
            endpoints.push(Endpoint { priority, target, address, port, weight });
        }
        Ok(self.answer(endpoints))
    }

    fn answer(self, mut endpoints: Vec<Endpoint>) -> Answer {
        endpoints.sort();
        endpoints.dedup_by(|a, b| (&a.target, a.address, a.port) == (&b.target, b.address, b.port));
        Answer { endpoints, valid_for: Duration::from_secs(self.least_ttl.unwrap_or(0).into()) }
    }

    /// In order, IPv4 first.
    async fn addresses(&mut self, name: &Name, kinds: &[RecordType]) -> Result<Vec<IpAddr>, LookupError> {
        let mut addresses = Vec::new();
        for kind in kinds {
            addresses.extend(self.records(name, *kind).await?.iter().filter_map(|record| record.data.ip_addr()));
        }
        addresses.sort();
        addresses.dedup();
        Ok(addresses)
    }

    /// The records of that type, at the end of any aliases; none if there are none.
    async fn records(&mut self, name: &Name, record: RecordType) -> Result<Vec<Record>, LookupError> {
        let lookup = match self.resolver.lookup(name.clone(), record).await {
            Ok(lookup) => lookup,
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            Err(error) => return Err(LookupError::Failed { name: name.to_utf8(), record, error }),
        };
        // An alias may be replaced sooner than what it leads to.
        let ttl = lookup.answers().iter().map(|record| record.ttl).min();
        self.least_ttl = self.least_ttl.into_iter().chain(ttl).min();
        Ok(lookup.answers().iter().filter(|answer| answer.record_type() == record).cloned().collect())
    }
}

fn parse(name: &str) -> Result<Name, LookupError> {
    let not_a_name = |error: String| LookupError::NotAName { name: name.to_owned(), error };
    Name::from_utf8(name).map_err(|error| not_a_name(error.to_string()))
}
