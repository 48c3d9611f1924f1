//! The ports: health, reflection, gRPC-Web with CORS, metrics, readiness, and an orderly end.

use std::{net::SocketAddr, time::Duration};

use prost::Message;
use tidegate::dev::DATABASE;
use tidegate_client::{ReadOptions, proto::ExecuteReadResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    asking::{ask, primary_alone, read_request, until_backends},
    harness::{Bed, create_counters, poll_until, read_rows, within},
};

pub const SERVICE: &str = "tidegate.v1.BrokerService";

/// One HTTP/1.1 request on a connection of its own: the head of the answer in lower case, and its body.
pub async fn http(address: SocketAddr, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    let length = body.len();
    let head = format!("{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("it is sent");
    socket.write_all(body).await.expect("it is sent");
    let mut answer = Vec::new();
    within("the answer ends", socket.read_to_end(&mut answer)).await.expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let body = answer.split_off(end + 4);
    let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
    (head, body)
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&body[..end]).expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a hexadecimal length");
        whole.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
    whole
}

/// The frames of a gRPC-Web body: their flags and contents.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [flags, a, b, c, d, rest @ ..] = body {
        let (frame, behind) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        frames.push((*flags, frame.to_vec()));
        body = behind;
    }
    frames
}

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
}

async fn get(bed: &Bed, path: &str) -> (String, String) {
    let (head, body) = http(bed.app().http_address(), &format!("GET {path} HTTP/1.1"), &[]).await;
    (head.lines().next().unwrap_or_default().to_owned(), String::from_utf8_lossy(&body).into_owned())
}

/// The services that reflection lists.
pub async fn reflected(url: &str) -> Vec<String> {
    let channel = Channel::from_shared(url.to_owned()).expect("a URL").connect().await.expect("it connects");
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers =
        reflection.server_reflection_info(tokio_stream::once(list)).await.expect("an answer").into_inner();
    let answer = answers.message().await.expect("a message").expect("a message");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    list.service.into_iter().map(|service| service.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_on_the_same_port() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let channel = Channel::from_shared(bed.url()).expect("a URL").connect().await.expect("it connects");
    let mut health = HealthClient::new(channel);
    for service in ["", SERVICE] {
        let request = || HealthCheckRequest { service: service.into() };
        poll_until(&format!("{service:?} serves"), async || {
            let answer = health.clone().check(request()).await.expect("an answer").into_inner();
            answer.status() == ServingStatus::Serving
        })
        .await;
    }
    let unknown = health.check(HealthCheckRequest { service: "nobody".into() }).await.expect_err("no such service");
    assert_eq!(unknown.code(), Code::NotFound);

    let names = reflected(&bed.url()).await;
    assert!(names.iter().any(|name| name == SERVICE) && names.iter().any(|name| name.ends_with("Health")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_configured_origin_reads_over_grpc_web() {
    let origin = "https://app.example.org";
    let bed = Bed::with(primary_alone(), |config| config.grpc.cors_origins = vec![origin.into()]).await;
    let address = bed.app().grpc_address();
    let call = |method: &str, from: &str| {
        let path = format!("POST /{SERVICE}/{method} HTTP/1.1");
        format!("{path}\r\nOrigin: {from}\r\nContent-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1")
    };
    let (head, body) = http(address, &call("ExecuteRead", origin), &framed(&read_request("SELECT 7", vec![]))).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains(&format!("access-control-allow-origin: {origin}")), "{head}");
    for exposed in ["tidegate-position", "grpc-status-details-bin"] {
        let line =
            head.lines().find(|line| line.starts_with("access-control-expose-headers")).expect("exposed headers");
        assert!(line.contains(exposed), "{line}");
    }
    let frames = frames(&body);
    let [(0, message), (0x80, trailers)] = frames.as_slice() else { panic!("{frames:?}") };
    let message = ExecuteReadResponse::decode(message.as_slice()).expect("a message");
    assert_eq!(message.rows.expect("rows").columns[0].int64s, [7]);
    assert!(String::from_utf8_lossy(trailers).contains("grpc-status:0"), "{trailers:?}");

    // A message that is too large is refused by the length in front of it.
    let (head, body) = http(address, &call("ExecuteRead", origin), &[0, 0x7f, 0xff, 0xff, 0xff, 1, 2]).await;
    let all = (head + &String::from_utf8_lossy(&body)).replace(": ", ":");
    assert!(all.contains("grpc-status:8") && all.contains("grpc-status-details-bin"), "{all}");
    assert!(all.contains("2147483647"), "{all}");

    // A session needs both directions at once.
    let (head, body) = http(address, &call("Session", origin), &[]).await;
    let all = head + &String::from_utf8_lossy(&body);
    assert!(all.contains("grpc-status: 12") || all.contains("grpc-status:12"), "{all}");

    let preflight = |from: &str| {
        let asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-grpc-web";
        format!("OPTIONS /{SERVICE}/ExecuteRead HTTP/1.1\r\nOrigin: {from}\r\n{asked}")
    };
    let (head, _) = http(address, &preflight(origin), &[]).await;
    assert!(head.starts_with("http/1.1 200") && head.contains(&format!("allow-origin: {origin}")), "{head}");
    assert!(head.contains("access-control-allow-methods: post"), "{head}");
    let (head, _) = http(address, &preflight("https://elsewhere.example.org"), &[]).await;
    assert!(!head.contains("access-control-allow-origin"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_routes_calls_pools_and_lag() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    read_rows(&bed.session_client("reader").await, "SELECT 1", [], ReadOptions::new()).await;
    drop(bed.client().await.read("SELECT 1/0", []).await.expect_err("1/0"));
    let (status, text) = get(&bed, "/metrics").await;
    assert!(status.contains("200"), "{status}");
    let line = |parts: &[&str]| text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    for parts in [
        &["tidegate_routes_total", r#"reason="NO_POSITION""#, r#"role="replica""#][..],
        &["tidegate_routes_total", r#"reason="WRITE""#, r#"host="primary""#],
        &["tidegate_request_duration_seconds_bucket", r#"method="ExecuteRead""#, r#"code="OK""#],
        &["tidegate_request_duration_seconds_bucket", r#"method="ExecuteRead""#, r#"code="INVALID_ARGUMENT""#],
        &["tidegate_request_duration_seconds_count", r#"method="ExecuteWrite""#],
        &["tidegate_pool_connections", r#"pool="read""#, r#"state="idle""#],
        &["tidegate_pool_limit", r#"pool="write""#],
        &["tidegate_replica_lag_seconds", r#"host="replica1""#],
        &["tidegate_host_up", r#"host="replica2""#, " 1"],
        &["tidegate_connects_total", r#"result="ok""#],
        &["tidegate_wait_duration_seconds_count", r#"what="connection""#],
    ] {
        assert!(line(parts), "{parts:?} is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_a_host_is_alive_and_not_ready() {
    let quick = |config: &mut tidegate::config::Config| {
        config.probe.timeout = std::time::Duration::from_millis(200);
        config.timeouts.default_timeout = std::time::Duration::from_millis(500);
    };
    let bed = Bed::with(primary_alone(), quick).await;
    assert!(get(&bed, "/healthz").await.0.contains("200"));
    assert!(get(&bed, "/readyz").await.0.contains("200"));
    bed.cluster.primary().proxy().cut().await;
    poll_until("the broker is not ready", || async { get(&bed, "/readyz").await.0.contains("503") }).await;
    assert!(get(&bed, "/readyz").await.1.contains("no host is up"));
    assert!(get(&bed, "/healthz").await.0.contains("200"));
    let client = bed.unlimited_client(tidegate_client::Client::builder()).await;
    let error = client.read("SELECT 1", []).await.map(drop).expect_err("no host");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NO_HOSTS_AVAILABLE"), "{error}");
    bed.cluster.primary().proxy().restore().await;
    poll_until("the broker is ready", || async { get(&bed, "/readyz").await.0.contains("200") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_what_runs_end_refuses_what_is_new_and_leaves_no_connection() {
    let mut bed = Bed::with(primary_alone(), |_| {}).await;
    let client = bed.client().await;
    let runner = client.clone();
    let running = tokio::spawn(async move { ask(&runner, "SELECT 'done' FROM pg_sleep(1.5)").await });
    let primary = std::sync::Arc::clone(bed.cluster.primary());
    until_backends(&primary, "state = 'active' AND query LIKE '%pg_sleep%'", 1).await;
    bed.app().begin_shutdown();
    poll_until("new calls are refused", || async {
        match ask(&client, "SELECT 1").await {
            Ok(_) => false,
            Err(error) => error.code() == Code::Unavailable,
        }
    })
    .await;
    assert_eq!(running.await.expect("the call ends").expect("it is let to its end"), "done");
    bed.stop_broker().await;
    until_backends(&primary, "true", 0).await;
    assert_eq!(primary.sql_value::<String>("SELECT current_database()").await.expect("it runs"), DATABASE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed() {
    let bed = Bed::with(primary_alone(), |config| {
        config.grpc.keepalive_interval = Duration::from_millis(100);
        config.grpc.keepalive_timeout = Duration::from_millis(100);
    })
    .await;
    let mut silent = TcpStream::connect(bed.app().grpc_address()).await.expect("it is accepted");
    let mut nothing = [0];
    let closed = within("the silent connection is closed", silent.read(&mut nothing)).await;
    assert!(matches!(closed, Ok(0)), "{closed:?}");
}
