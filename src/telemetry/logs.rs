//! Where logs and traces go: logs to stderr as text or JSON, spans to an OpenTelemetry collector if one is named.
//!
//! The PostgreSQL client logs parameters at `debug`. It is capped at `info` here, whatever the user's filter says.

use std::{fmt, io, sync::Arc};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter, Targets},
    fmt::MakeWriter,
    layer::{Filter, SubscriberExt},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use super::trace::REQUEST;

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What [`init`] needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// How a log line is written.
    pub log_format: LogFormat,
    /// A level, or a filter such as `info,tidegate::topology=debug`.
    pub log_filter: String,
    /// An OTLP collector (gRPC), such as `http://127.0.0.1:4317`; None: spans go nowhere.
    pub otlp_endpoint: Option<String>,
    /// `service.name` of the spans.
    pub service_name: String,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
            service_name: "tidegate".to_owned(),
        }
    }
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A word of the log filter is neither a level nor a target with its level.
    #[error("the log filter is wrong: {0:?} is not a level; write error, warn, info, debug or trace, or target=level")]
    Level(String),
    /// The log filter does not parse.
    #[error("the log filter is wrong: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of spans could not be made.
    #[error("cannot export traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The process has a log subscriber already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter of spans; sends what is left when it is shut down or dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the export of traces"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
    filter: LogFilter,
}

/// Which lines are logged; changes them while the program runs.
#[derive(Clone)]
pub struct LogFilter(Arc<dyn Fn(EnvFilter) + Send + Sync>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilter")
    }
}

impl LogFilter {
    /// From now on.
    ///
    /// # Errors
    /// The filter does not parse.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        (self.0)(user_filter(filter)?);
        Ok(())
    }
}

impl TelemetryGuard {
    /// Changes which lines are logged.
    #[must_use]
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Sends the spans that are left, within 5 s. Blocks: call it from `spawn_blocking`, or after the server's work
    /// has ended on a runtime of several threads (the export itself runs on the runtime).
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "some traces were not sent");
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says whether a log filter parses.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    user_filter(filter).map(|_| ())
}

/// Sets up the process's logs and traces. Call it once, from the program, inside a tokio runtime (the exporter
/// needs one); tests and embedders may leave it out, and everything else still works.
///
/// # Errors
/// The filter does not parse, the exporter cannot be made, or the process has a subscriber already.
pub fn init(settings: &TelemetrySettings) -> Result<TelemetryGuard, TelemetryError> {
    let filter = user_filter(&settings.log_filter)?;
    let provider = match &settings.otlp_endpoint {
        Some(endpoint) => Some(span_exporter(endpoint, &settings.service_name)?),
        None => None,
    };
    let tracer = provider.as_ref().map(|provider| provider.tracer("tidegate"));
    let (filter, changed) = reload::Layer::new(filter);
    subscriber(filter, settings.log_format, io::stderr, tracer).try_init()?;
    // It fails only once the subscriber is gone, and nobody logs any more.
    let filter = LogFilter(Arc::new(move |filter| drop(changed.reload(filter))));
    Ok(TelemetryGuard { provider, filter })
}

fn span_exporter(endpoint: &str, service_name: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name(service_name.to_owned()).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

fn user_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    // The parser takes a bare word that is no level for a target's name, and then says nothing at all.
    let is_level = |part: &&str| part.contains('=') || part.contains('[') || part.trim().parse::<LevelFilter>().is_ok();
    if let Some(word) = filter.split(',').find(|part| !is_level(part)) {
        return Err(TelemetryError::Level(word.trim().to_owned()));
    }
    Ok(EnvFilter::builder().parse(filter)?)
}

/// Never more than `info` from the PostgreSQL client: at `debug` it logs parameters.
fn parameter_cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_target("tokio_postgres", LevelFilter::INFO)
        .with_target("postgres", LevelFilter::INFO)
        // It reports its own end, at every end.
        .with_target("opentelemetry_sdk", LevelFilter::WARN)
}

/// The whole stack of layers. The user's filter is for log lines; spans have their own (only this crate's: what
/// the exporter's own HTTP client says must not be exported), so that a quiet log keeps its traces.
///
/// Every layer has a filter, and there is no other: then what no filter wants is off where it stands, at the price of one
/// load. Beside one layer without (also one that is None) all that libraries say at `trace` is judged at each call.
fn subscriber<W, F>(filter: F, format: LogFormat, writer: W, tracer: Option<SdkTracer>) -> impl Subscriber
where
    F: Filter<Registry> + Send + Sync + 'static,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        vec![Box::new(lines(format, writer).with_filter(parameter_cap().and(filter)))];
    if let Some(tracer) = tracer {
        let ours = Targets::new().with_target("tidegate", LevelFilter::INFO).with_target(REQUEST, LevelFilter::DEBUG);
        layers.push(Box::new(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours)));
    }
    tracing_subscriber::registry().with(layers)
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => Box::new(layer),
        LogFormat::Json => Box::new(layer.json().flatten_event(true)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::Context;
    use tracing::Level;

    use super::*;
    use crate::telemetry::request_span;

    #[test]
    fn a_word_that_is_no_level_is_refused_instead_of_silencing_everything() {
        for good in ["info", "WARN", "off", "info,tidegate::topology=debug", "tidegate=trace", "debug,[request]=trace"]
        {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        for wrong in ["lots", "info,verbose"] {
            assert!(check_filter(wrong).is_err(), "{wrong:?}");
        }
    }

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, what: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(user_filter(filter).unwrap(), format, move || writer.clone(), None);
        tracing::subscriber::with_default(subscriber, what);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn parameters_are_never_logged_whatever_the_filter_says() {
        for filter in ["debug", "trace", "tokio_postgres=trace", "info,tokio_postgres::query=debug", "postgres=trace"] {
            let text = logged(filter, LogFormat::Text, || {
                tracing::debug!(target: "tokio_postgres::query", "executing with parameters: [hunter2]");
                tracing::trace!(target: "tokio_postgres::prepare", "hunter2");
                tracing::debug!(target: "postgres::client", "hunter2");
                tracing::info!(target: "tokio_postgres::connection", "a notice");
                tracing::warn!(target: "postgres::client", "a warning");
            });
            assert!(!text.contains("hunter2"), "{filter}: {text}");
            assert!(text.contains("a notice") || text.contains("a warning"), "{filter}: {text}");
        }
    }

    #[test]
    fn the_users_filter_holds_below_the_cap() {
        let text = logged("warn,tidegate=debug", LogFormat::Text, || {
            tracing::debug!(target: "tidegate::topology", "seen");
            tracing::info!(target: "tokio_postgres", "unseen");
        });
        assert!(text.contains("seen") && !text.contains("unseen"), "{text}");
    }

    /// What libraries say at each frame and poll must be off before anything is judged.
    #[test]
    fn what_nobody_listens_to_is_off_where_it_stands() {
        let quiet = |tracer| subscriber(user_filter("info").unwrap(), LogFormat::Text, io::sink, tracer);
        let exporter = SdkTracerProvider::builder().build().tracer("test");
        // Spans of requests are exported, at `debug`.
        for (tracer, level) in [(None, LevelFilter::INFO), (Some(exporter), LevelFilter::DEBUG)] {
            let subscriber = quiet(tracer);
            assert_eq!(subscriber.max_level_hint(), Some(level));
            tracing::subscriber::with_default(subscriber, || {
                assert!(!tracing::enabled!(target: "h2::codec", Level::DEBUG));
                assert!(!tracing::enabled!(target: "tidegate::broker", Level::DEBUG));
                assert_eq!(
                    !request_span("ExecuteRead", "app", &Context::new()).is_disabled(),
                    level == LevelFilter::DEBUG
                );
            });
        }
        let loud = subscriber(user_filter("info,h2=trace").unwrap(), LogFormat::Text, io::sink, None);
        assert_eq!(loud.max_level_hint(), Some(LevelFilter::TRACE));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged("info", LogFormat::Json, || tracing::info!(host = "a:1", "up"));
        let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((value["message"].as_str(), value["host"].as_str()), (Some("up"), Some("a:1")));
    }

    #[test]
    fn a_wrong_filter_is_an_error() {
        assert!(check_filter("info,tidegate=debug").is_ok());
        assert!(matches!(check_filter("tidegate=loud"), Err(TelemetryError::Filter(_))));
    }
}
