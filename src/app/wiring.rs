//! What each part needs of the configuration, as that part takes it.

use std::num::NonZeroUsize;

use crate::{
    broker::{AdmissionSettings, LaneSettings, Settings},
    config::{BalancePolicyConfig, ClusterConfig, Config, ConfiguredRole, HostConfig, PostgresUrl, TlsMode},
    grpc::{AdminToken, ServerSettings},
    model::{BalancePolicy, HealthSettings, Place},
    position::TokenKey,
    postgres::{StatementLimits, Target, Tls},
    topology::{self, ClusterSpec, ProbeSettings},
};

/// A host of the configuration as `postgres` takes it.
pub fn target(host: &HostConfig, config: &Config) -> Target {
    Target { ip: host.ip, ..target_of(&host.url, config) }
}

/// The proxy in front of a host that calls go through, if there is one.
pub fn pooler(host: &HostConfig, config: &Config) -> Option<Target> {
    host.pooler.as_ref().map(|url| target_of(url, config))
}

fn target_of(url: &PostgresUrl, config: &Config) -> Target {
    Target {
        host: url.host.clone(),
        ip: None,
        port: url.port,
        user: url.user.clone(),
        password: url.password.as_ref().map(|password| password.expose().to_owned()),
        dbname: url.dbname.clone(),
        tls: match url.tls {
            TlsMode::Disable => Tls::Disable,
            TlsMode::Prefer => Tls::Prefer,
            TlsMode::Require => Tls::Require,
            TlsMode::VerifyFull => Tls::VerifyFull,
        },
        connect_timeout: config.pool.connect_timeout,
        application_name: url.application_name.clone().unwrap_or_else(|| "tidegate".to_owned()),
    }
}

/// The clusters as `topology` takes them.
pub(super) fn cluster_specs(config: &Config) -> Vec<ClusterSpec> {
    let host = |host: &HostConfig| topology::HostSpec {
        name: host.name.clone(),
        target: target(host, config),
        configured_primary: host.configured_role == ConfiguredRole::Primary,
        place: place(host, config),
    };
    let spec = |cluster: &ClusterConfig| ClusterSpec {
        name: cluster.name.clone(),
        follows: super::leader(config, &cluster.name).map(str::to_owned),
        hosts: cluster.hosts.iter().map(host).collect(),
    };
    config.clusters.iter().map(spec).collect()
}

fn place(host: &HostConfig, config: &Config) -> Place {
    let own_zone = config.balance.zone.as_ref();
    Place {
        weight: host.place.weight,
        is_near: own_zone.is_none() || host.place.zone.as_ref() == own_zone,
        priority: host.place.priority,
    }
}

pub(super) fn probe_settings(config: &Config) -> ProbeSettings {
    ProbeSettings {
        interval: config.probe.interval,
        fast_interval: config.probe.fast_interval,
        timeout: config.probe.timeout,
        stick_timeout: config.consistency.stick_timeout,
        lease: config.health.lease,
        health: HealthSettings {
            failures: config.health.failures,
            successes: config.health.successes,
            quarantine: config.health.quarantine,
            quarantine_max: config.health.quarantine_max,
            slow_start: config.health.slow_start,
        },
    }
}

pub(super) fn broker_settings(config: &Config) -> Settings {
    Settings {
        stick_timeout: config.consistency.stick_timeout,
        max_lag: config.consistency.max_lag,
        max_clock_skew: config.consistency.max_clock_skew,
        max_wait: config.consistency.max_wait,
        max_lag_bytes: config.consistency.max_lag_bytes.map(|bytes| bytes as u64),
        balance: match config.balance.policy {
            BalancePolicyConfig::RoundRobin => BalancePolicy::RoundRobin,
            BalancePolicyConfig::LeastLoaded => BalancePolicy::LeastLoaded,
        },
        slots: config.consistency.slots,
        admission: AdmissionSettings {
            connections_per_host: config.pool.connections_per_host,
            primary_read_share: config.pool.primary_read_share,
            transaction_share: config.pool.transaction_share,
            max_queue: config.pool.max_queue,
            max_queue_age: config.pool.max_queue_age,
            database_concurrency: config.limits.database_concurrency,
            caller_concurrency: config.limits.caller_concurrency,
        },
        lanes: LaneSettings {
            connections: config.lanes.connections,
            depth: config.lanes.depth,
            patience: config.lanes.patience,
        },
        idle_timeout: config.pool.idle_timeout,
        max_lifetime: config.pool.max_lifetime,
        statements: StatementLimits {
            size: NonZeroUsize::new(config.pool.statement_cache_size).unwrap_or(NonZeroUsize::MIN),
            max_age: config.pool.statement_max_age,
        },
        pooled: !config.pool.prepared_statements,
        stream_idle_timeout: config.timeouts.stream_idle_timeout,
        batch_bytes: config.results.batch_bytes,
        max_message_bytes: config.results.max_message_bytes,
        max_write_result_bytes: config.results.max_write_result_bytes,
        max_unanswered: config.session.max_unanswered,
        transaction_idle_timeout: config.session.transaction_idle_timeout,
        session_max_lifetime: config.session.max_lifetime,
        listen_max_streams: config.listen.max_streams,
    }
}

pub(super) fn server_settings(config: &Config) -> ServerSettings {
    ServerSettings {
        max_request_bytes: config.grpc.max_request_bytes,
        max_concurrent_streams: config.grpc.max_concurrent_streams,
        keepalive_interval: config.grpc.keepalive_interval,
        keepalive_timeout: config.grpc.keepalive_timeout,
        cors_origins: config.grpc.cors_origins.clone(),
        default_timeout: config.timeouts.default_timeout,
        max_message_bytes: config.results.max_message_bytes,
        drain_timeout: config.timeouts.drain_timeout,
        admin_token: config.admin.token.as_ref().map(|token| AdminToken::new(token.expose())),
    }
}

/// Without a configured secret the key is made up: its tokens are good for this broker and its life only.
pub(super) fn token_key(config: &Config) -> TokenKey {
    match &config.tokens.secret {
        Some(secret) => TokenKey::from_secret(secret.expose().as_bytes()),
        None => {
            tracing::info!("tokens.secret is not set: position tokens are good for this broker alone, until it stops");
            TokenKey::from_secret(&rand::random::<[u8; 32]>())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{admission::BudgetLimits, config};

    #[test]
    fn the_configuration_asks_for_what_admission_needs() {
        for databases in 0..10 {
            assert_eq!(config::connections_min(databases), BudgetLimits::connections_min(databases));
        }
    }
}
