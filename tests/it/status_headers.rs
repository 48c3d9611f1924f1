//! Failures as HTTP/2 has them: a status instead of headers, so that clients' own machinery may act, until rows were sent.

use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message;
use tidegate::dev::DATABASE;
use tokio_util::bytes::{BufMut, Bytes, BytesMut};
use tonic::codegen::http::{HeaderMap, Request};

use crate::{
    asking::{backends, primary_alone, read_request, tell, until_backends},
    harness::{Bed, within},
};

/// The response's headers, the bytes of its messages, and its trailers.
struct Answer {
    headers: HeaderMap,
    bytes: usize,
    trailers: HeaderMap,
}

async fn read(bed: &Bed, sql: &str) -> Answer {
    let message = read_request(sql, vec![]).encode_to_vec();
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let request = Request::post(format!("{}/tidegate.v1.BrokerService/ExecuteRead", bed.url()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<Bytes>::new(framed.freeze()))
        .expect("a request");
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let (head, body) = client.request(request).await.expect("a response").into_parts();
    let body = body.collect().await.expect("a body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer { headers: head.headers, bytes: body.to_bytes().len(), trailers }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

async fn end(bed: &Bed, what: &str) -> i32 {
    let primary = bed.cluster.primary();
    let pid = format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'tidegate' AND query LIKE '%{what}%'");
    let pid: i32 = primary.sql_value(&pid).await.expect("one runs");
    primary.terminate_backend(pid).await.expect("it is told to end");
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_the_first_row_has_no_headers_before_its_status_and_a_later_one_has() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    assert_eq!(DATABASE, "app");
    let raise = "CREATE FUNCTION raise_long() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING \
                 message = repeat('日', 9000), detail = repeat('日', 9000), errcode = '55P03'; END $$";
    tell(&bed.client().await, raise).await.expect("the function is made");
    let cases = [("SELECT nonsense", "5"), ("SELECT 1 / 0", "3"), ("BEGIN", "3"), ("SELECT raise_long()", "10")];
    for (sql, code) in cases {
        let answer = read(&bed, sql).await;
        assert_eq!(answer.headers["grpc-status"], code, "{sql}");
        assert!(answer.headers.contains_key("grpc-status-details-bin"), "{sql}");
        assert_eq!((answer.bytes, answer.trailers.len()), (0, 0), "{sql}: nothing behind it");
        assert!(size(&answer.headers) < 4096, "{sql}: {}", size(&answer.headers));
    }
    // What is UNAVAILABLE can be sent again by whoever sent it.
    let sleeps = async {
        until_backends(bed.cluster.primary(), "wait_event = 'PgSleep'", 1).await;
        let pid = end(&bed, "pg_sleep").await;
        // The broker sends it once more by itself.
        until_backends(bed.cluster.primary(), &format!("wait_event = 'PgSleep' AND pid <> {pid}"), 1).await;
        end(&bed, "pg_sleep").await;
    };
    let hanging = read(&bed, "SELECT pg_sleep(600)");
    let (answer, ()) = within("the read is ended", futures_util::future::join(hanging, sleeps)).await;
    assert_eq!((&answer.headers["grpc-status"], answer.bytes), (&"14".parse().expect("a value"), 0));

    // Rows are under way by then.
    let flows = async {
        until_backends(bed.cluster.primary(), "query LIKE '%generate_series%' AND state = 'active'", 1).await;
        while bed.metric(&["tidegate_streams_active"]) < 1.0 {
            tokio::task::yield_now().await;
        }
        end(&bed, "generate_series").await;
    };
    let streaming = read(&bed, "SELECT repeat('x', 1000), generate_series(1, 1000000000)");
    let (answer, ()) = within("the stream is ended", futures_util::future::join(streaming, flows)).await;
    assert!(answer.bytes > 0 && !answer.headers.contains_key("grpc-status"), "{:?}", answer.headers);
    assert_eq!(answer.trailers["grpc-status"], "14", "{:?}", answer.trailers);
    assert_eq!(backends(bed.cluster.primary(), "state = 'active'").await, 0);
}
