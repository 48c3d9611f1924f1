//! From what is written to a [`Config`]: every key read, ranges and the rules between keys checked.

use std::{io, path::Path, time::Duration};

use super::{
    Config, ConsistencyConfig, GrpcConfig, HttpConfig, ListenConfig, PoolConfig, ProbeConfig, Problems, ResultsConfig,
    SessionConfig, TimeoutsConfig, TokensConfig, admin, admission, balance, clusters, health::health, lanes, raw::Raw,
    read::Reader, reload, rules, runtime, units::show_duration,
};
use crate::telemetry::{LogFormat, TelemetrySettings, check_filter};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Makes a configuration of what was written. It is only to be used if no problem was noted.
pub(super) fn validate(raw: Raw, read_file: &dyn Fn(&Path) -> io::Result<String>, problems: &mut Problems) -> Config {
    let reader = &mut Reader { raw, problems, read_file };
    let clusters = clusters::clusters(reader);
    let (databases, rollouts) = clusters::databases(reader, &clusters);
    let rules = rules::rules(reader, &databases);
    let grpc = grpc(reader);
    let http = HttpConfig { listen: reader.address("http.listen", HttpConfig::default().listen) };
    let pool = pool(reader);
    admission::check_budget(reader, &pool, &clusters, (&databases, &rollouts));
    if pool.prepared_statements {
        clusters::refuse_poolers(reader, &clusters);
    }
    if grpc.listen == http.listen && grpc.listen.port() != 0 {
        reader.problems.add("http.listen", format!("{} is grpc.listen too; choose another port", http.listen));
    }
    let consistency = consistency(reader);
    let probe = probe(reader);
    Config {
        grpc,
        http,
        clusters,
        databases,
        rollouts,
        rules,
        pool,
        limits: admission::limits(reader),
        lanes: lanes::lanes(reader),
        consistency,
        balance: balance::balance(reader),
        health: health(reader, &probe),
        probe,
        timeouts: timeouts(reader),
        session: session(reader),
        listen: listen(reader),
        results: results(reader),
        tokens: tokens(reader),
        telemetry: telemetry(reader),
        runtime: runtime::runtime(reader),
        reload: reload::reload(reader),
        admin: admin::admin(reader),
    }
}

fn grpc(reader: &mut Reader<'_>) -> GrpcConfig {
    let default = GrpcConfig::default();
    let cors_origins = reader.list("grpc.cors_origins");
    for origin in &cors_origins {
        let is_origin = |url: url::Url| url.origin().ascii_serialization() == *origin;
        if origin != "*" && !url::Url::parse(origin).is_ok_and(is_origin) {
            let message = format!("`{origin}` is not an origin; write such as \"https://app.example.org\", or \"*\"");
            reader.problems.add("grpc.cors_origins", message);
        }
    }
    GrpcConfig {
        listen: reader.address("grpc.listen", default.listen),
        max_request_bytes: reader.bytes("grpc.max_request_bytes", default.max_request_bytes, KIB..=256 * MIB),
        max_concurrent_streams: reader.count(
            "grpc.max_concurrent_streams",
            default.max_concurrent_streams,
            1..=1_000_000,
        ),
        keepalive_interval: reader.duration(
            "grpc.keepalive_interval",
            default.keepalive_interval,
            100 * MS..=3600 * SECOND,
        ),
        keepalive_timeout: reader.duration(
            "grpc.keepalive_timeout",
            default.keepalive_timeout,
            100 * MS..=3600 * SECOND,
        ),
        cors_origins,
    }
}

fn pool(reader: &mut Reader<'_>) -> PoolConfig {
    let default = PoolConfig::default();
    PoolConfig {
        connections_per_host: reader.count("pool.connections_per_host", default.connections_per_host, 2..=10_000),
        primary_read_share: reader.share("pool.primary_read_share", default.primary_read_share, 0.0..1.0),
        transaction_share: reader.share("pool.transaction_share", default.transaction_share, 0.0..1.0),
        connect_timeout: reader.duration("pool.connect_timeout", default.connect_timeout, 10 * MS..=300 * SECOND),
        idle_timeout: reader.duration("pool.idle_timeout", default.idle_timeout, SECOND..=DAY),
        max_lifetime: reader.duration("pool.max_lifetime", default.max_lifetime, SECOND..=7 * DAY),
        statement_cache_size: reader.count("pool.statement_cache_size", default.statement_cache_size, 1..=100_000),
        statement_max_age: reader.duration("pool.statement_max_age", default.statement_max_age, 100 * MS..=DAY),
        prepared_statements: reader.text("pool.prepared_statements", default.prepared_statements, |text| match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("`{text}` is neither; write on or off")),
        }),
        max_queue: reader.count("pool.max_queue", default.max_queue, 1..=1_000_000),
        max_queue_age: reader.duration("pool.max_queue_age", default.max_queue_age, 10 * MS..=HOUR),
    }
}

fn consistency(reader: &mut Reader<'_>) -> ConsistencyConfig {
    let default = ConsistencyConfig::default();
    let read = ConsistencyConfig {
        stick_timeout: reader.duration("consistency.stick_timeout", default.stick_timeout, 100 * MS..=HOUR),
        max_lag: reader.duration("consistency.max_lag", default.max_lag, 10 * MS..=HOUR),
        max_lag_bytes: max_lag_bytes(reader),
        max_wait: reader.duration("consistency.max_wait", default.max_wait, Duration::ZERO..=HOUR),
        max_clock_skew: reader.duration("consistency.max_clock_skew", default.max_clock_skew, Duration::ZERO..=HOUR),
        slots: reader.count("consistency.slots", default.slots, KIB..=1 << 28),
    };
    if read.max_lag + read.max_clock_skew > read.stick_timeout {
        let message = format!(
            "max_lag ({}) + max_clock_skew ({}) exceed stick_timeout ({}): a position would expire while a replica \
             may still be behind it, and its session would read stale; raise stick_timeout or lower the others",
            show_duration(read.max_lag),
            show_duration(read.max_clock_skew),
            show_duration(read.stick_timeout),
        );
        reader.problems.add("consistency.stick_timeout", message);
    }
    if !read.slots.is_power_of_two() {
        let message = format!("{} is no power of two; write such as {}", read.slots, read.slots.next_power_of_two());
        reader.problems.add("consistency.slots", message);
    }
    read
}

/// Unset unless it is written: no number of bytes fits every workload.
fn max_lag_bytes(reader: &mut Reader<'_>) -> Option<usize> {
    let key = "consistency.max_lag_bytes";
    reader.has(key).then(|| reader.bytes(key, usize::MAX, KIB..=1 << 50))
}

fn probe(reader: &mut Reader<'_>) -> ProbeConfig {
    let default = ProbeConfig::default();
    let read = ProbeConfig {
        interval: reader.duration("probe.interval", default.interval, 10 * MS..=60 * SECOND),
        fast_interval: reader.duration("probe.fast_interval", default.fast_interval, MS..=60 * SECOND),
        timeout: reader.duration("probe.timeout", default.timeout, 10 * MS..=60 * SECOND),
    };
    if read.fast_interval > read.interval {
        let message = format!("{} is above probe.interval; lower it", show_duration(read.fast_interval));
        reader.problems.add("probe.fast_interval", message);
    }
    read
}

fn timeouts(reader: &mut Reader<'_>) -> TimeoutsConfig {
    let default = TimeoutsConfig::default();
    let (idle, drain) = (default.stream_idle_timeout, default.drain_timeout);
    TimeoutsConfig {
        default_timeout: reader.duration("timeouts.default_timeout", default.default_timeout, 10 * MS..=DAY),
        stream_idle_timeout: reader.duration("timeouts.stream_idle_timeout", idle, 10 * MS..=DAY),
        drain_timeout: reader.duration("timeouts.drain_timeout", drain, Duration::ZERO..=DAY),
    }
}

fn session(reader: &mut Reader<'_>) -> SessionConfig {
    let default = SessionConfig::default();
    let idle = default.transaction_idle_timeout;
    SessionConfig {
        max_unanswered: reader.count("session.max_unanswered", default.max_unanswered, 1..=65_536),
        transaction_idle_timeout: reader.duration("session.transaction_idle_timeout", idle, 10 * MS..=DAY),
        max_lifetime: reader.duration("session.max_lifetime", default.max_lifetime, 10 * MS..=30 * DAY),
    }
}

fn listen(reader: &mut Reader<'_>) -> ListenConfig {
    let default = ListenConfig::default();
    ListenConfig { max_streams: reader.count("listen.max_streams", default.max_streams, 1..=1_000_000) }
}

fn results(reader: &mut Reader<'_>) -> ResultsConfig {
    let default = ResultsConfig::default();
    let (message, write_result) = (default.max_message_bytes, default.max_write_result_bytes);
    let read = ResultsConfig {
        batch_bytes: reader.bytes("results.batch_bytes", default.batch_bytes, KIB..=16 * MIB),
        max_message_bytes: reader.bytes("results.max_message_bytes", message, 64 * KIB..=256 * MIB),
        max_write_result_bytes: reader.bytes("results.max_write_result_bytes", write_result, KIB..=256 * MIB),
    };
    if read.batch_bytes > read.max_message_bytes {
        reader.problems.add("results.batch_bytes", "is above results.max_message_bytes; lower it");
    }
    read
}

fn tokens(reader: &mut Reader<'_>) -> TokensConfig {
    /// Below this, trying secrets out is cheaper than it should be.
    const SECRET_BYTES_MIN: usize = 16;
    let secret = reader.secret("tokens.secret", "tokens.secret_file");
    if secret.as_ref().is_some_and(|secret| secret.expose().len() < SECRET_BYTES_MIN) {
        let message = format!("has fewer than {SECRET_BYTES_MIN} bytes; make one with `openssl rand -base64 32`");
        reader.problems.add("tokens.secret", message);
    }
    TokensConfig { secret }
}

fn telemetry(reader: &mut Reader<'_>) -> TelemetrySettings {
    let default = TelemetrySettings::default();
    TelemetrySettings {
        log_format: reader.text("telemetry.log_format", default.log_format, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is not a format; write text or json")),
        }),
        log_filter: reader.text("telemetry.log_level", default.log_filter, |text| {
            check_filter(text)
                .map_err(|error| format!("{error}; write a level (info, debug) or such as info,tidegate=debug"))?;
            Ok(text.to_owned())
        }),
        otlp_endpoint: reader.text("telemetry.otlp_endpoint", None, |text| {
            let url = url::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
            if url.scheme() != "http" || url.host_str().is_none() || !url.username().is_empty() {
                return Err("only http://host:port is possible; for TLS send to a collector on this machine".to_owned());
            }
            Ok(Some(text.to_owned()))
        }),
        service_name: reader.text("telemetry.service_name", default.service_name, |text| {
            let plain = !text.trim().is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
            if plain { Ok(text.to_owned()) } else { Err("is empty, too long or not plain text".to_owned()) }
        }),
    }
}
