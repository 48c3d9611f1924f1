//! The gRPC server: the services, health, reflection and gRPC-Web on one port, HTTP/2 tuned, and a drain with a bound.

use std::{future::Future, net::Ipv4Addr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Request, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
};
use tonic_web::GrpcWebLayer;
use tower::{ServiceBuilder, util::BoxCloneSyncService};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{
    accept::{GrpcWeb, Peer},
    admin::{self, Access, AdminToken, ReloadOffer},
    front::Front,
    limit,
    service::{CallLimits, Service as Adapter},
};
use crate::{
    broker::Broker,
    gather::{Gather, Sharers},
    proto::{self, admin_service_server::AdminServiceServer, broker_service_server::BrokerServiceServer},
};

/// How long a browser may remember what CORS allows.
const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

/// What the server needs of the configuration.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The largest request message, in bytes.
    pub max_request_bytes: usize,
    /// Calls at a time on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Between two pings to a client that sends nothing.
    pub keepalive_interval: Duration,
    /// A client that answers no ping for this long is gone, and with it all that it had open.
    pub keepalive_timeout: Duration,
    /// Origins whose pages may call over gRPC-Web; `*`: any.
    pub cors_origins: Vec<String>,
    /// The timeout of a call whose caller sets none.
    pub default_timeout: Duration,
    /// The largest message that is sent, in bytes.
    pub max_message_bytes: usize,
    /// How long running calls may go on after the shutdown began.
    pub drain_timeout: Duration,
    /// What callers of the admin service show; None: programs on this machine need nothing, others are not let in.
    pub admin_token: Option<AdminToken>,
}

/// Serves until `shutdown` resolves; then refuses new calls, lets running ones finish within the drain timeout, and
/// closes every connection.
pub async fn serve(
    listener: TcpListener,
    broker: Arc<Broker>,
    mut changing: watch::Receiver<ServerSettings>,
    reload: ReloadOffer,
    shutdown: impl Future<Output = ()>,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    // The port, by the empty name, takes calls from now on.
    reporter.set_not_serving::<BrokerServiceServer<Adapter>>().await;
    let mut settings = changing.borrow_and_update().clone();
    let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let stacks = Stacks { broker: Arc::clone(&broker), changing: changing.clone(), reload, is_loopback };
    let (mut http, mut front) = (http(&settings), stacks.make(&settings, health.clone()));
    let connections = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let (mut started, mut is_started) = (std::pin::pin!(broker.started()), false);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
            // For good: clients heed health at once, and hosts that are away have better answers for calls, or let them wait.
            () = &mut started, if !is_started => {
                is_started = true;
                reporter.set_serving::<BrokerServiceServer<Adapter>>().await;
                continue;
            }
            // For connections from now on; a sender that is gone changes nothing any more.
            Ok(()) = changing.changed() => {
                settings = changing.borrow_and_update().clone();
                (http, front) = (self::http(&settings), stacks.make(&settings, health.clone()));
                continue;
            }
        };
        match socket {
            Ok((socket, peer)) => {
                let (http, front, watcher) = (http.clone(), front.come_from(peer.ip()), connections.watcher());
                let limit = settings.keepalive_interval + settings.keepalive_timeout;
                let cut = cut.clone();
                tokio::spawn(async move {
                    let served = async {
                        if !says_something(&socket, limit).await {
                            return;
                        }
                        let socket = Gather::new(tuned(socket), front.waiting.clone());
                        let connection = http.serve_connection(TokioIo::new(socket), front);
                        // A connection's errors are its peer's business: resets, bad preambles, timeouts.
                        drop(watcher.watch(connection.into_owned()).await);
                    };
                    cut.run_until_cancelled(served).await
                });
            }
            // Out of file descriptors, say: accepting again at once would only spin.
            Err(error) => {
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    reporter.set_service_status("", ServingStatus::NotServing).await;
    reporter.set_not_serving::<BrokerServiceServer<Adapter>>().await;
    broker.begin_drain();
    let settings = changing.borrow().clone();
    tracing::info!(
        limit_s = settings.drain_timeout.as_secs_f64(),
        "draining: new calls are refused, running ones may finish"
    );
    let drained = tokio::time::timeout(settings.drain_timeout, connections.shutdown()).await.is_ok();
    // What has not ended by now is cut: its callers are gone for the broker, and their statements are cancelled.
    cut.cancel();
    tracing::info!(complete = drained, "drained");
}

/// Whether a peer sends its first byte in time. No keepalive runs before that: one that vanished would be kept for ever.
async fn says_something(socket: &TcpStream, limit: Duration) -> bool {
    let mut first = [0];
    matches!(tokio::time::timeout(limit, socket.peek(&mut first)).await, Ok(Ok(1)))
}

fn tuned(socket: TcpStream) -> TcpStream {
    // Without it small answers wait for the peer's acknowledgements; a socket that refuses still works.
    let _ = socket.set_nodelay(true);
    socket
}

fn http(settings: &ServerSettings) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new());
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .max_concurrent_streams(settings.max_concurrent_streams);
    http
}

/// What every connection's services are made of.
struct Stacks {
    broker: Arc<Broker>,
    changing: watch::Receiver<ServerSettings>,
    reload: ReloadOffer,
    /// Whether the port is bound to a loopback address.
    is_loopback: bool,
}

impl Stacks {
    fn make(&self, settings: &ServerSettings, health: HealthServer<impl Health>) -> Front {
        let max_request_bytes = settings.max_request_bytes;
        let limits = CallLimits { changing: self.changing.clone(), max_request_bytes };
        let adapter = Adapter { broker: Arc::clone(&self.broker), limits: limits.clone() };
        let service = BrokerServiceServer::new(adapter)
            .max_decoding_message_size(max_request_bytes)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd);
        // It judges each call by itself, and is as good as not there while it is off.
        let admin = AdminServiceServer::new(admin::Service {
            broker: Arc::clone(&self.broker),
            limits,
            reload: self.reload.clone(),
            is_loopback: self.is_loopback,
        })
        .max_decoding_message_size(max_request_bytes);
        let shows_admin = Access::new(settings.admin_token, self.is_loopback).is_on();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(shown(shows_admin))
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors were compiled into this binary");
        let routes = Routes::new(service.clone()).add_service(admin).add_service(health).add_service(reflection);
        let stack = ServiceBuilder::new()
            .layer(cors(&settings.cors_origins))
            .map_request(mark_grpc_web)
            .layer(GrpcWebLayer::new())
            .map_request(move |request| limit::request(request, max_request_bytes))
            .map_response(move |response| limit::response(response, max_request_bytes))
            .service(routes);
        let peer = Peer(Ipv4Addr::UNSPECIFIED.into());
        let waiting = Sharers::of_answers();
        Front { broker: service, others: BoxCloneSyncService::new(stack), max_request_bytes, peer, waiting }
    }
}

/// What reflection tells of: the admin service only while it is there.
fn shown(admin: bool) -> FileDescriptorSet {
    let mut all =
        FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the descriptors were compiled into this binary");
    all.file.retain(|file| admin || !file.name().ends_with("/admin.proto"));
    all
}

fn mark_grpc_web<B>(mut request: Request<B>) -> Request<B> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc-web")) {
        request.extensions_mut().insert(GrpcWeb);
    }
    request
}

fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([http::Method::POST])
        .allow_headers(
            [
                "content-type",
                "x-grpc-web",
                "x-user-agent",
                "grpc-timeout",
                "traceparent",
                "tracestate",
                "tidegate-position",
            ]
            .map(HeaderName::from_static),
        )
        .expose_headers(
            ["grpc-status", "grpc-message", "grpc-status-details-bin", "tidegate-position"]
                .map(HeaderName::from_static),
        )
        .max_age(CORS_MAX_AGE)
}
