//! The HTTP port: metrics for Prometheus, and the two questions an orchestrator asks (alive? ready?). Knows
//! nothing of hosts: what ready means is passed in.

use std::{fmt, future::Future, io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::telemetry::Metrics;

/// Whether the broker takes calls, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The broker can serve, and is not draining.
    pub ready: bool,
    /// What is in the way, such as `cluster main: no host is up`. Empty when it is ready.
    pub reasons: Vec<String>,
    /// What it is ready without: clusters that cannot be served, as in `reasons`.
    pub impaired: Vec<String>,
}

/// What the pages are made of.
#[derive(Clone)]
pub struct ConsoleState {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/readyz`: asked at each request; must not block.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
}

impl fmt::Debug for ConsoleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleState")
    }
}

/// The pages: `/metrics`, `/healthz`, `/readyz`.
pub fn router(state: ConsoleState) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .with_state(state)
}

/// Serves until `shutdown` completes, then lets open requests finish.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn metrics(State(state): State<ConsoleState>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics.render()).into_response()
}

async fn readyz(State(state): State<ConsoleState>) -> Response {
    let readiness = (state.readiness)();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&readiness) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    fn state(ready: bool, lines: &[&str]) -> ConsoleState {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        let (impaired, reasons) = if ready { (lines, Vec::new()) } else { (Vec::new(), lines) };
        let readiness = Readiness { ready, reasons, impaired };
        ConsoleState { metrics: Metrics::new(), readiness: Arc::new(move || readiness.clone()) }
    }

    async fn get_page(state: ConsoleState, path: &str) -> (StatusCode, String, String) {
        let response = router(state).oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let content_type = response.headers().get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
        let (status, content_type) = (response.status(), content_type.to_owned());
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alive_even_when_not_ready() {
        let (status, _, body) = get_page(state(false, &["draining"]), "/healthz").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ok"));
    }

    #[tokio::test]
    async fn ready_or_the_reasons_why_not() {
        let (status, content_type, body) = get_page(state(true, &[]), "/readyz").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "application/json"));
        assert_eq!(body, r#"{"ready":true,"reasons":[],"impaired":[]}"#);
        let (status, _, body) = get_page(state(true, &["cluster other: no host is up"]), "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, r#"{"ready":true,"reasons":[],"impaired":["cluster other: no host is up"]}"#);
        let (status, _, body) = get_page(state(false, &["cluster main: no host is up"]), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"ready":false,"reasons":["cluster main: no host is up"],"impaired":[]}"#);
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let state = state(true, &[]);
        state.metrics.unknown_outcome();
        let (status, content_type, body) = get_page(state, "/metrics").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("tidegate_unknown_outcomes_total 1"), "{body}");
    }

    #[tokio::test]
    async fn it_serves_until_told_to_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(serve(listener, router(state(true, &[])), shutdown));
        stop.send(()).unwrap();
        assert!(server.await.unwrap().is_ok());
    }
}
