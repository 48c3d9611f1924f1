//! The caller's trace, and the one span a request.

use std::collections::HashMap;

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The service that the spans name.
const SERVICE: &str = "tidegate.v1.BrokerService";
/// The target of requests' spans.
pub(super) const REQUEST: &str = "tidegate::request";

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The caller's trace from its `traceparent` and `tracestate` headers (W3C Trace Context); an empty context if
/// there is none or it does not parse.
#[must_use]
pub fn parent_from(headers: &http::HeaderMap) -> Context {
    if !headers.contains_key("traceparent") {
        return Context::new();
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// The caller's trace from a plain `traceparent` value; an empty context if it does not parse.
#[must_use]
pub fn parent_from_traceparent(traceparent: &str) -> Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// The span of one request, with OpenTelemetry's names. `host`, `reason` and `code` are recorded once they are
/// known: `span.record("rpc.grpc.status_code", …)`. Never holds SQL text or parameters.
///
/// Its level is `debug`, as that of the line about a call that failed: a log at `info` says nothing of single calls, and must
/// not pay for a span of each. Exported it is whatever is logged.
#[must_use]
pub fn request_span(method: &'static str, database: &str, parent: &Context) -> Span {
    let span = tracing::debug_span!(
        target: REQUEST,
        "request",
        otel.name = method,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = SERVICE,
        rpc.method = method,
        rpc.grpc.status_code = field::Empty,
        db.system.name = "postgresql",
        db.namespace = database,
        server.address = field::Empty,
        tidegate.route.reason = field::Empty,
        tidegate.operation = field::Empty,
    );
    if opentelemetry::trace::TraceContextExt::has_active_span(parent) {
        // It fails only where no layer exports spans: then there is nothing to join.
        let _ = span.set_parent(parent.clone());
    }
    span
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{TraceContextExt, TracerProvider};
    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{SdkTracerProvider, SpanData, SpanExporter},
    };
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_callers_trace_is_read_from_headers_and_from_text() {
        let mut headers = http::HeaderMap::new();
        headers.insert("traceparent", TRACEPARENT.parse().unwrap());
        for context in [parent_from(&headers), parent_from_traceparent(TRACEPARENT)] {
            let id = context.span().span_context().trace_id().to_string();
            assert_eq!(id, "0af7651916cd43dd8448eb211c80319c");
        }
        for wrong in ["", "00-zz-b7ad6b7169203331-01", "ff"] {
            assert!(!parent_from_traceparent(wrong).span().span_context().is_valid(), "{wrong}");
        }
        assert!(!parent_from(&http::HeaderMap::new()).has_active_span());
    }

    #[test]
    fn a_requests_span_continues_the_callers_trace() {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = request_span("ExecuteRead", "app", &parent_from_traceparent(TRACEPARENT));
            span.record("tidegate.route.reason", "CAUGHT_UP");
        });
        let spans = kept.0.lock().unwrap().clone();
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].name, "ExecuteRead");
        assert_eq!(spans[0].span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
        let attribute = |key: &str| {
            spans[0].attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
        };
        assert_eq!(attribute("rpc.system").as_deref(), Some("grpc"));
        assert_eq!(attribute("db.namespace").as_deref(), Some("app"));
        assert_eq!(attribute("tidegate.route.reason").as_deref(), Some("CAUGHT_UP"));
    }

    #[test]
    fn without_a_subscriber_nothing_breaks() {
        let span = request_span("ExecuteRead", "app", &parent_from_traceparent(TRACEPARENT));
        span.in_scope(|| span.record("rpc.grpc.status_code", 0));
    }
}
