//! Rows and results have a limit, at the byte: what a message can hold is sent, what none can hold is refused with both
//! figures, and a write whose rows nobody could read is undone.

use prost::Message;
use tidegate_client::{
    Client, Outcome, params,
    proto::{self, ColumnValues, ExecuteReadResponse, RowBatch, session_request::Request, session_response::Response},
};
use tonic::Code;

use crate::{
    asking::{
        ask, begin, commit, context, failure, primary_alone, read_request, session_read, session_write, strong, stub,
        tell,
    },
    command_line::{Served, cluster, until_ready},
    harness::{Bed, within},
};

async fn start() -> Bed {
    Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await
}

/// A batch of one row with one text of so many bytes.
fn batch_of(cell: usize) -> RowBatch {
    let texts = vec!["x".repeat(cell)];
    RowBatch { row_count: 1, columns: vec![ColumnValues { texts, ..Default::default() }] }
}

/// How long a text is whose row, alone, makes a message of exactly so many bytes.
fn cell_for(message: usize) -> usize {
    let of = |cell| ExecuteReadResponse { rows: Some(batch_of(cell)), ..Default::default() }.encoded_len();
    let cell = message - (of(message) - message);
    (cell..cell + 8).rev().find(|&cell| of(cell) == message).expect("such a text")
}

/// The row `wide` of six holds a text of `cell` bytes.
fn rows(wide: usize, cell: usize) -> String {
    format!("SELECT repeat('x', CASE n WHEN {wide} THEN {cell} ELSE 10 END) FROM generate_series(1, 6) n")
}

/// The messages of a read, and the status that it ended with.
async fn messages(bed: &Bed, sql: &str, limit: usize) -> (Vec<ExecuteReadResponse>, Option<tidegate_client::Error>) {
    let mut request = read_request(sql, vec![]);
    let max_message_bytes = u32::try_from(limit).expect("32 bits");
    request.options = Some(proto::ReadOptions { max_message_bytes, ..Default::default() });
    let mut stub = stub(bed).await.max_decoding_message_size(limit);
    let mut messages = Vec::new();
    let mut stream = match stub.execute_read(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (messages, Some(status.into())),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(status) => return (messages, Some(status.into())),
        }
    }
}

fn row_count(messages: &[ExecuteReadResponse]) -> u32 {
    messages.iter().filter_map(|message| message.rows.as_ref()).map(|rows| rows.row_count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fills_a_message_to_the_byte_is_sent_and_one_byte_more_is_refused() {
    let bed = start().await;
    // 4 MiB is the broker's own limit and that of clients that say nothing.
    for limit in [64 << 10, 4 << 20] {
        let cell = cell_for(limit);
        for wide in [1, 4, 6] {
            let (sent, error) = messages(&bed, &rows(wide, cell), limit).await;
            assert!(error.is_none(), "{error:?}");
            assert_eq!(row_count(&sent), 6);
            assert_eq!(sent.iter().map(Message::encoded_len).max(), Some(limit), "row {wide}");
            assert!(sent[0].header.is_some() && sent.last().expect("a message").summary.is_some());

            let (sent, error) = messages(&bed, &rows(wide, cell + 1), limit).await;
            let error = error.expect("too large a row");
            let told = failure(&error);
            assert_eq!((told.code, told.reason.as_str()), (Code::ResourceExhausted, "ROW_TOO_LARGE"), "{error}");
            assert_eq!(row_count(&sent) as usize, wide - 1, "the rows before it arrive");
            assert_eq!(sent.is_empty(), wide == 1, "without a row there is no header either");
            let bytes = batch_of(cell + 1).encoded_len();
            for part in [format!("row {wide} takes {bytes} bytes"), format!("{limit} at most")] {
                assert!(told.message.contains(&part), "{part} is not in {}", told.message);
            }
        }
    }
    assert_eq!(ask(&bed.client().await, "SELECT 1").await.expect("the connection serves again"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_of_the_columns_counts_too() {
    let bed = start().await;
    let limit = 64 << 10;
    let columns = |count: usize, wide: usize| {
        let named = (2..=count).map(|n| format!(", 1 AS a_column_with_a_name_that_is_as_long_as_names_may_be_{n:05}"));
        format!("SELECT repeat('x', {wide}) AS wide{} FROM generate_series(1, 3)", named.collect::<String>())
    };
    // Beside the header no row has room, by itself each has.
    let (sent, error) = messages(&bed, &columns(400, 60_000), limit).await;
    assert!(error.is_none(), "{error:?}");
    assert!(sent[0].header.is_some() && sent[0].rows.is_none(), "the header goes ahead");
    assert_eq!(row_count(&sent), 3);
    assert!(sent.iter().all(|message| message.encoded_len() <= limit));
    let (_, error) = messages(&bed, &columns(1500, 1), limit).await;
    let error = error.expect("too many columns");
    assert_eq!(failure(&error).reason, "ROW_TOO_LARGE", "{error}");
    assert!(error.to_string().contains("1500 columns") && error.to_string().contains("65536"), "{error}");
    assert_eq!(ask(&bed.client().await, "SELECT 1").await.expect("the connection serves again"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_to_the_limit_with_what_it_puts_around_rows() {
    let bed = start().await;
    let limit: usize = 64 << 10;
    let read = |sql: &str| {
        let Request::Read(read) = session_read(sql) else { unreachable!("a read") };
        let options = proto::ReadOptions { max_message_bytes: limit as u32, ..Default::default() };
        Request::Read(proto::SessionRead { options: Some(options), ..read })
    };
    // What is around: the request's id and the answer's own key and length, 17 bytes at most.
    let (fits, too_large) = (rows(3, cell_for(limit - 17)), rows(3, cell_for(limit)));
    let open = Request::Open(proto::SessionOpen { context: context() });
    for transaction in [0, 2] {
        let ids_and_requests =
            [(1, 0, open.clone()), (2, 0, begin()), (3, transaction, read(&fits)), (4, transaction, read(&too_large))];
        let requests: Vec<_> = ids_and_requests
            .into_iter()
            // Without a transaction none is begun.
            .filter(|(id, ..)| *id != 2 || transaction != 0)
            .map(|(request_id, transaction_id, request)| proto::SessionRequest {
                request_id,
                transaction_id,
                request: Some(request),
                ..Default::default()
            })
            .collect();
        let mut stub = stub(&bed).await.max_decoding_message_size(limit);
        let mut answers = stub.session(tokio_stream::iter(requests)).await.expect("a session").into_inner();
        let (mut seen, mut refused) = (0, None);
        while let Some(answer) = within("an answer", answers.message()).await.expect("no status") {
            match answer.response {
                Some(Response::Read(part)) if answer.request_id == 3 => {
                    seen += part.rows.map_or(0, |rows| rows.row_count)
                }
                Some(Response::Failure(failure)) => refused = Some((answer.request_id, failure.reason)),
                _ => {}
            }
        }
        assert_eq!((seen, refused), (6, Some((4, "ROW_TOO_LARGE".to_owned()))), "in transaction {transaction}");
    }
}

/// A row's bytes are in memory once, as PostgreSQL's message; what is refused is not copied, and not put into text: the last
/// is 660 KB of PostgreSQL's bytes, and 5 GB of text.
#[tokio::test(flavor = "multi_thread")]
async fn a_cell_of_100_mb_is_refused_without_a_copy() {
    let (_cluster, url) = cluster().await;
    let served = Served::start(&url, &[]).await;
    let client = served.client().await;
    until_ready(&client).await;
    let before = served.peak_memory();
    let table = [
        ("SELECT repeat('x', 100000000)", "row 1 takes 1000000"),
        ("SELECT array_fill(1, '{12500000}')", "row 1 takes at least 41"),
        (
            "SELECT range_agg(numrange(n * 1e130000, (n + 1) * 1e130000)) FROM generate_series(2, 40000, 2) n",
            "row 1 takes at least 41",
        ),
    ];
    for (sql, said) in table {
        let error = client.read_with(sql, [], strong()).await.map(drop).expect_err("too large a row");
        assert_eq!(error.reason(), "ROW_TOO_LARGE", "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(ask(&client, "SELECT 1").await.expect("the broker serves on"), "1");
    let growth = served.peak_memory() - before;
    eprintln!("the peak of memory grew by {} MiB", growth >> 20);
    assert!(growth < 160 << 20, "the peak grew by {growth} bytes");
    assert_eq!(served.stop().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_result_is_too_large_is_undone() {
    let bed = Bed::with(primary_alone(), |config| {
        config.pool.connections_per_host = 2;
        config.results.max_write_result_bytes = 64 << 10;
    })
    .await;
    let client: Client = bed.client().await;
    client.execute("CREATE TABLE marks (n int, x text)", []).await.expect("the table is made");
    let insert = "INSERT INTO marks SELECT n, repeat('x', 1000) FROM generate_series(1, 1000) n RETURNING x";
    let error = client.execute(insert, []).await.expect_err("too large a result");
    let is = (error.code(), error.reason(), error.outcome());
    assert_eq!(is, (Code::ResourceExhausted, "RESULT_TOO_LARGE", Outcome::RolledBack), "{error}");
    assert!(error.to_string().contains("65536"), "{error}");
    assert_eq!(tell(&client, "SELECT count(*) FROM marks").await.expect("a count"), "0");
    let quiet = insert.trim_end_matches(" RETURNING x");
    assert_eq!(client.execute(quiet, []).await.expect("without rows it fits").rows_affected(), 1000);
    tell(&client, "TRUNCATE marks").await.expect("it is emptied");

    // In a session: alone, and in a transaction, of which nothing is left either.
    let mut session = client.raw_session().await.expect("the session opens");
    let alone = session.send(0, None, session_write(insert)).expect("it is sent");
    let transaction = session.send(0, None, begin()).expect("it is sent");
    let first = session_write("INSERT INTO marks VALUES (0, 'first')");
    session.send(transaction, None, first).expect("it is sent");
    let large = session.send(transaction, None, session_write(insert)).expect("it is sent");
    let end = session.send(transaction, None, commit()).expect("it is sent");
    let mut failures = Vec::new();
    loop {
        let answer = within("an answer", session.receive()).await.expect("an answer");
        if let Some(Response::Failure(failure)) = answer.response {
            failures.push((answer.request_id, failure.reason));
        }
        if answer.request_id == end {
            break;
        }
    }
    let reason = "RESULT_TOO_LARGE".to_owned();
    assert_eq!(failures.get(..2), Some([(alone, reason.clone()), (large, reason)].as_slice()), "{failures:?}");
    assert_eq!(failures.len(), 3, "the commit fails too: {failures:?}");
    session.close().await.expect("it ends");
    assert_eq!(tell(&client, "SELECT count(*) FROM marks").await.expect("a count"), "0");
}

/// What the caller is not able to read must not be committed: the answer as a whole keeps to the limit of messages.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_write_fits_into_a_message_or_the_write_is_undone() {
    let bed = start().await;
    let client = bed.client().await;
    client.execute("CREATE TABLE marks (x text)", []).await.expect("the table is made");
    let (mut kept, mut refused) = (0, 0);
    // From what surely fits up to the limit of 4 MiB of clients that say nothing.
    for below in [64 << 10, 17 << 10, 15 << 10, 1000, 100, 0] {
        let insert = "INSERT INTO marks VALUES (repeat('x', $1::int)) RETURNING x";
        match client.execute(insert, params![(4_i64 << 20) - below]).await {
            Ok(_) => kept += 1,
            Err(error) => {
                let is = (error.reason(), error.outcome());
                assert_eq!(is, ("RESULT_TOO_LARGE", Outcome::RolledBack), "{below} below the limit: {error}");
                refused += 1;
            }
        }
    }
    assert!(kept >= 2 && refused >= 2, "{kept} kept, {refused} refused");
    assert_eq!(tell(&client, "SELECT count(*) FROM marks").await.expect("a count"), kept.to_string());
}
