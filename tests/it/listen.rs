//! Listen: notifications to whoever asked for their channel, over one connection a database; and a gap wherever some may
//! be missing: after a lost connection, a failover, a slow reader.

use std::time::Duration;

use tidegate::dev::ClusterOptions;
use tidegate_client::{
    Begin, Client, Error, ListenEvent, ListenStream, Outcome, params,
    proto::{self, listen_response::Event},
};
use tonic::Code;

use crate::{
    asking::{backends, context, failure, primary_alone, stub, until_backends},
    harness::{Bed, PATIENCE, poll_until, within},
};

/// The listening connection: its last statement was LISTEN, UNLISTEN or an empty one.
const LISTENS: &str = "backend_type = 'client backend' AND (query LIKE 'LISTEN%' OR query LIKE 'UNLISTEN%' \
                       OR (query = '' AND state = 'idle'))";

async fn listen(client: &Client, channels: &[&str]) -> ListenStream {
    client.listen(channels.iter().copied()).await.expect("it listens")
}

async fn notify(client: &Client, channel: &str, payload: &str) {
    client.execute("SELECT pg_notify($1, $2)", params![channel, payload]).await.expect("it is notified");
}

fn heard(channel: &str, payload: &str) -> ListenEvent {
    ListenEvent::Notification { channel: channel.into(), payload: payload.into() }
}

async fn next(stream: &mut ListenStream) -> ListenEvent {
    within("something is heard", stream.next()).await.expect("the stream goes on")
}

async fn until_gap(stream: &mut ListenStream) -> String {
    loop {
        if let ListenEvent::Gap { reason } = next(stream).await {
            return reason;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_hears_its_channels_in_order_over_one_connection() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    assert_eq!(backends(primary, LISTENS).await, 0);
    let strange = r#"Ein "Kanal"; DROP"#;
    let mut a = listen(&client, &["a"]).await;
    let mut both = listen(&bed.client().await, &["a", strange, "a"]).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(listen(&client, &["a", "c"]).await);
    }
    assert_eq!(backends(primary, LISTENS).await, 1);
    assert_eq!(
        (bed.metric(&["tidegate_listeners_active"]), bed.metric(&["tidegate_listen_streams_active"])),
        (1.0, 22.0)
    );

    for n in 0..100 {
        notify(&client, "a", &n.to_string()).await;
    }
    notify(&client, strange, "é").await;
    notify(&client, "nobody", "x").await;
    client.execute("NOTIFY c", []).await.expect("a statement");
    for n in 0..100 {
        assert_eq!(next(&mut a).await, heard("a", &n.to_string()));
        assert_eq!(next(&mut both).await, heard("a", &n.to_string()));
    }
    assert_eq!(next(&mut both).await, heard(strange, "é"));

    // In a transaction: with its commit, and not if there is none.
    let mut session = client.session().await.expect("the session opens");
    let mut lost = session.begin(Begin::new()).await.expect("it begins");
    lost.write("NOTIFY a, 'rolled back'", []).await.expect("a statement");
    lost.rollback().await.expect("it is rolled back");
    let mut kept = session.begin(Begin::new()).await.expect("it begins");
    kept.write("NOTIFY a, 'committed'", []).await.expect("a statement");
    notify(&client, "a", "before the commit").await;
    kept.commit().await.expect("it commits");
    for expected in ["before the commit", "committed"] {
        assert_eq!(next(&mut a).await, heard("a", expected));
    }

    // The last one to leave closes the connection; whoever comes then opens another.
    drop((both, others));
    notify(&client, "a", "still").await;
    assert_eq!(next(&mut a).await, heard("a", "still"));
    drop(a);
    until_backends(primary, LISTENS, 0).await;
    let mut again = listen(&client, &["a"]).await;
    notify(&client, "a", "again").await;
    assert_eq!(next(&mut again).await, heard("a", "again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_made_anew_and_the_gap_is_told() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let (mut one, mut other) = (listen(&client, &["a"]).await, listen(&client, &["b"]).await);
    let find = format!("SELECT pid FROM pg_stat_activity WHERE application_name = 'tidegate' AND {LISTENS}");
    let pid: i32 = primary.sql_value(&find).await.expect("it listens");
    primary.terminate_backend(pid).await.expect("it is terminated");
    assert!(until_gap(&mut one).await.contains("connection"));
    until_gap(&mut other).await;
    notify(&client, "a", "1").await;
    notify(&client, "b", "2").await;
    assert_eq!(next(&mut one).await, heard("a", "1"));
    assert_eq!(next(&mut other).await, heard("b", "2"));
    let reconnects = ["tidegate_listen_gaps_total", "reconnect"];
    assert_eq!(bed.metric(&reconnects), 2.0);

    // A connection on which nothing moves looks idle. It is noticed all the same.
    primary.proxy().blackhole().await;
    poll_until("the connection counts as lost", || async { bed.metric(&["tidegate_listeners_active"]) == 0.0 }).await;
    primary.proxy().restore().await;
    until_gap(&mut one).await;
    until_gap(&mut other).await;
    notify(&client, "b", "3").await;
    assert_eq!(next(&mut other).await, heard("b", "3"));

    // A restart of the server.
    primary.restart().await.expect("it restarts");
    until_gap(&mut one).await;
    until_gap(&mut other).await;
    poll_until("a write is possible again", || async { client.execute("NOTIFY a, '4'", []).await.is_ok() }).await;
    assert_eq!(next(&mut one).await, heard("a", "4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_new_primary_is_heard() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |_| {}).await;
    let client = bed.client().await;
    let mut stream = listen(&client, &["a"]).await;
    // The old one lives on, and is heard no more: the promoted one has the higher timeline.
    bed.cluster.replica(0).sql("SELECT pg_promote()").await.expect("it is promoted");
    assert_eq!(until_gap(&mut stream).await, "the primary has changed");
    bed.cluster.primary().sql("SELECT pg_notify('a', 'of the old')").await.expect("the old one lives");
    notify(&client, "a", "of the new").await;
    assert_eq!(next(&mut stream).await, heard("a", "of the new"));
    assert_eq!(backends(bed.cluster.primary(), LISTENS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_a_gap_and_holds_up_nobody() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let client = bed.client().await;
    // Each on its own connection: the slow one's window is its own.
    let mut slow = listen(&bed.client().await, &["a"]).await;
    let mut fast = listen(&bed.client().await, &["a"]).await;
    let many = "SELECT count(pg_notify('a', n || repeat('x', 7000))) FROM generate_series($1::int4, $1 + 99) AS n";
    let overflows = ["tidegate_listen_gaps_total", "overflow"];
    let mut sent = 0;
    while bed.metric(&overflows) == 0.0 {
        client.execute(many, params![sent]).await.expect("they are notified");
        for n in sent..sent + 100 {
            let ListenEvent::Notification { payload, .. } = next(&mut fast).await else { panic!("a gap for the fast") };
            assert_eq!(payload.trim_end_matches('x'), n.to_string());
        }
        sent += 100;
        assert!(sent < 20_000, "the queue of one that does not read has no end");
    }
    let mut seen = 0;
    let reason = loop {
        match next(&mut slow).await {
            ListenEvent::Notification { payload, .. } => {
                assert_eq!(payload.trim_end_matches('x'), seen.to_string());
                seen += 1;
            }
            ListenEvent::Gap { reason } => break reason,
        }
    };
    assert!(seen < sent && reason.contains("read faster"), "{seen} of {sent}: {reason}");
    notify(&client, "a", "after").await;
    assert_eq!(next(&mut slow).await, heard("a", "after"));
    assert_eq!(next(&mut fast).await, heard("a", "after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_deadline_or_a_drain_and_not_with_the_default_timeout() {
    let mut bed =
        Bed::with(primary_alone(), |config| config.timeouts.default_timeout = Duration::from_millis(200)).await;
    let client = bed.client().await;
    let mut stub = stub(&bed).await;
    let mut endless = listen(&client, &["a"]).await;
    let mut request = tonic::Request::new(proto::ListenRequest { context: context(), channels: vec!["a".into()] });
    request.set_timeout(Duration::from_secs(1));
    let mut bounded = stub.listen(request).await.expect("it listens").into_inner();
    assert!(matches!(bounded.message().await, Ok(Some(proto::ListenResponse { event: Some(Event::Ready(_)) }))));
    let ended = within("the deadline passes", bounded.message()).await.expect_err("it is over");
    let error = Error::from(ended);
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    // Well beyond the default timeout.
    notify(&client, "a", "1").await;
    assert_eq!(next(&mut endless).await, heard("a", "1"));

    bed.app().begin_shutdown();
    let error = within("the drain ends it", endless.next()).await.expect_err("it is over");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "DRAINING"));
    bed.stop_broker().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_and_too_many_streams_are_refused_and_so_is_listening_to_nobody() {
    let bed = Bed::with(primary_alone(), |config| config.listen.max_streams = 2).await;
    let mut stub = stub(&bed).await;
    let longest = "x".repeat(63);
    let cases = [
        (vec![], "FIELD_MISSING", "channels"),
        (vec!["a".to_owned(); 101], "FIELD_INVALID", "channels"),
        (vec!["a".to_owned(), String::new()], "FIELD_INVALID", "channels[1]"),
        (vec!["é".repeat(32)], "FIELD_INVALID", "channels[0]"),
        (vec!["a\0".to_owned()], "FIELD_INVALID", "channels[0]"),
    ];
    for (channels, reason, field) in cases {
        let request = proto::ListenRequest { context: context(), channels };
        let error = stub.listen(request).await.map(drop).expect_err(reason).into();
        let failure = failure(&error);
        let is = (failure.code, failure.reason.as_str(), failure.field.as_str(), failure.outcome);
        assert_eq!(is, (Code::InvalidArgument, reason, field, Outcome::NotExecuted));
    }
    let client = bed.client().await;
    let mut first = listen(&client, &[&longest]).await;
    let second = listen(&client, &["b"]).await;
    let error = client.listen(["c"]).await.map(drop).expect_err("a third");
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "OVERLOADED"));
    notify(&client, &longest, "1").await;
    assert_eq!(next(&mut first).await, heard(&longest, "1"));

    // Those who have heard wait for the primary; whoever comes is told that there is none.
    drop(second);
    let streams = || bed.metric(&["tidegate_listen_streams_active"]);
    poll_until("the second stream's end is known", || std::future::ready(streams() == 1.0)).await;
    bed.cluster.primary().proxy().cut().await;
    let error = tokio::time::timeout(PATIENCE, client.listen(["b"])).await.expect("an answer").map(drop);
    let error = error.expect_err("there is no primary");
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    bed.cluster.primary().proxy().restore().await;
    until_gap(&mut first).await;
}
