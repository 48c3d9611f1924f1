//! Requests have a limit: at the byte, on every way in, compressed or not, and told in full.

use prost::Message;
use tidegate_client::{Outcome, proto};
use tonic::{Code, codec::CompressionEncoding};

use crate::{
    asking::{
        begin, commit, context, failure, primary_alone, read_request, session_read, session_write, stub, text,
        write_request,
    },
    harness::{Bed, within},
};

const LIMIT: usize = 64 << 10;

async fn start() -> Bed {
    let bed = Bed::with(primary_alone(), |config| config.grpc.max_request_bytes = LIMIT).await;
    bed.client().await.execute("CREATE TABLE marks (x text)", []).await.expect("the table is made");
    bed
}

/// A write of exactly so many bytes as a message.
fn write_of(bytes: usize) -> proto::ExecuteWriteRequest {
    let write = |x: &str| write_request("INSERT INTO marks VALUES ($1)", vec![text(x)]);
    let around = write(&"x".repeat(bytes - 100)).encoded_len() - (bytes - 100);
    let request = write(&"x".repeat(bytes - around));
    assert_eq!(request.encoded_len(), bytes);
    request
}

fn assert_too_large(error: &tidegate_client::Error, figure: &str) {
    let told = failure(error);
    let is = (told.code, told.reason.as_str(), told.outcome);
    assert_eq!(is, (Code::ResourceExhausted, "REQUEST_TOO_LARGE", Outcome::NotExecuted), "{error}");
    for part in [figure, "65536", "grpc.max_request_bytes"] {
        assert!(told.message.contains(part), "{part} is not in {}", told.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_at_the_limit_is_served_and_one_byte_more_is_refused_in_full() {
    let bed = start().await;
    let mut stub = stub(&bed).await;
    stub.execute_write(write_of(LIMIT)).await.expect("it is within the limit");
    for (bytes, figure) in [(LIMIT + 1, "65537"), (3 << 20, "3145728")] {
        let error = stub.execute_write(write_of(bytes)).await.expect_err("too large").into();
        assert_too_large(&error, figure);
        let read = read_request("SELECT length($1)", vec![text(&"x".repeat(bytes))]);
        let error = stub.execute_read(read).await.map(drop).expect_err("too large").into();
        assert_too_large(&error, "takes");
    }
    let count = bed.cluster.primary().sql("SELECT count(*) FROM marks").await.expect("a count");
    assert_eq!(count, "1");
    stub.execute_read(read_request("SELECT 1", vec![])).await.expect("the connection serves on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_compressed_request_becomes_is_limited_too() {
    let bed = start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut stub = stub(&bed).await.send_compressed(encoding);
        stub.execute_write(write_of(LIMIT)).await.expect("it is within the limit");
        for bytes in [LIMIT + 1, 16 << 20] {
            let error = stub.execute_write(write_of(bytes)).await.expect_err("too large").into();
            assert_too_large(&error, "decompresses to more than 65536 bytes");
        }
        // Noise, which no compression makes smaller.
        let noise: String = (0..LIMIT * 2).map(|_| char::from(rand::random_range(b' '..=b'~'))).collect();
        let request = write_request("INSERT INTO marks VALUES ($1)", vec![text(&noise)]);
        let error = stub.execute_write(request).await.expect_err("too large").into();
        assert_too_large(&error, "message takes");
        // In a session the stream ends with the same.
        let bomb = session_read(&format!("SELECT '{}'", "x".repeat(1 << 20)));
        let opened = proto::session_request::Request::Open(proto::SessionOpen { context: context() });
        let requests = [(1, opened), (2, bomb)].map(|(request_id, request)| proto::SessionRequest {
            request_id,
            request: Some(request),
            ..Default::default()
        });
        let mut answers = stub.session(tokio_stream::iter(requests)).await.expect("a session").into_inner();
        let status = within("the stream's end", async {
            loop {
                if let Err(status) = answers.message().await {
                    return status;
                }
            }
        });
        assert_too_large(&status.await.into(), "decompresses to more than 65536 bytes");
    }
    let count = bed.cluster.primary().sql("SELECT count(*) FROM marks").await.expect("a count");
    assert_eq!(count, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_and_its_transaction_is_undone() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let transaction = session.send(0, None, begin()).expect("it is sent");
    let small = session_write("INSERT INTO marks VALUES ('small')");
    let small = session.send(transaction, None, small).expect("it is sent");
    while within("an answer", session.receive()).await.expect("an answer").request_id != small {}
    let big = format!("INSERT INTO marks VALUES ('{}')", "x".repeat(LIMIT));
    session.send(transaction, None, session_write(&big)).expect("it is sent");
    let _ = session.send(transaction, None, commit());
    let error = within("the stream's end", session.receive()).await.expect_err("nothing is answered behind it");
    assert_too_large(&error, "message takes");
    let count = bed.cluster.primary().sql("SELECT count(*) FROM marks").await.expect("a count");
    assert_eq!(count, "0");
    // The first message is limited as any other.
    let mut elsewhere = context();
    elsewhere.get_or_insert_default().operation = "x".repeat(LIMIT);
    let open = proto::session_request::Request::Open(proto::SessionOpen { context: elsewhere });
    let first = proto::SessionRequest { request_id: 1, request: Some(open), ..Default::default() };
    let mut stub = stub(&bed).await;
    let ended = match stub.session(tokio_stream::iter([first])).await {
        Ok(answers) => answers.into_inner().message().await.expect_err("too large"),
        Err(status) => status,
    };
    assert_too_large(&ended.into(), "message takes");
}
