//! One client without a session, shared by many callers at a time: it remembers few tokens that stand for all, no call is
//! refused for their number, and nothing that was written is unseen.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use tidegate::{
    dev::{ClusterOptions, Server},
    model::{Lsn, Timeline},
    position::{TokenKey, TokenPosition, merge},
};
use tidegate_client::{Begin, Client, HostRole, ReadOptions};
use tokio::task::JoinSet;

use crate::{
    asking::{backends, context, read_request, stub, tell},
    harness::{Bed, PATIENCE, pause_all, poll_until, read_int, resume_all, within},
};

const CALLERS: i64 = 64;
const COUNT: &str = "SELECT count(*) FROM marks";

/// Writes so many rows at a time; the tokens of all answers.
async fn write_at_once(client: &Client, bed: &Bed, holder: &Client) -> Vec<String> {
    // Nobody is answered before all have been sent: no token covers another.
    let mut session = holder.session().await.expect("a session");
    let mut transaction = session.begin(Begin::new()).await.expect("it begins");
    transaction.write("LOCK TABLE marks", []).await.expect("it is locked");
    let mut writers = JoinSet::new();
    for n in 0..CALLERS {
        let client = client.clone();
        writers.spawn(async move { client.execute("INSERT INTO marks VALUES ($1)", [n.into()]).await });
    }
    let primary: &Server = bed.cluster.primary();
    let all_wait = || async {
        let queued = bed.metric(&["tidegate_queue_waiting", r#"use="write""#]) as i64;
        queued + backends(primary, "wait_event_type = 'Lock'").await == CALLERS
    };
    let ended_early = async {
        match writers.join_next().await {
            Some(ended) => panic!("a write ends before the table is free: {ended:?}"),
            None => unreachable!("there are writers"),
        }
    };
    tokio::select! {
        () = poll_until("all wait for the table", all_wait) => {}
        () = ended_early => {}
    }
    transaction.commit().await.expect("it commits");
    let written = within("all are written", writers.join_all()).await;
    written.into_iter().map(|written| written.expect("it is written").position).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_a_time_are_not_refused_and_everybody_sees_all_that_they_wrote() {
    // However slow the machine is.
    let bed = Bed::with(ClusterOptions::default(), |config| config.pool.max_queue_age = PATIENCE).await;
    let (client, holder) = (bed.client().await, bed.client().await);
    tell(&holder, "CREATE TABLE marks (n bigint)").await.expect("the table is made");
    bed.wait_until_caught_up().await;
    pause_all(&bed).await;
    let tokens = write_at_once(&client, &bed, &holder).await;
    assert!(client.positions().len() <= 3, "{:?}", client.positions());
    write_at_once(&client, &bed, &holder).await;

    let mut readers = JoinSet::new();
    for _ in 0..CALLERS {
        let client = client.clone();
        readers.spawn(async move { read_int(&client, COUNT, ReadOptions::new()).await });
    }
    for (n, receipt) in within("all have read", readers.join_all()).await {
        assert_eq!((n, receipt.role()), (2 * CALLERS, HostRole::Primary), "{receipt:?}");
    }
    // Who compares no tokens sends all that it has.
    let mut request = read_request(COUNT, vec![]);
    request.context = context().map(|context| tidegate_client::proto::CallContext { positions: tokens, ..context });
    let mut stream = stub(&bed).await.execute_read(request).await.expect("so many are taken").into_inner();
    let first = stream.message().await.expect("no failure").expect("a message");
    assert_eq!(first.header.and_then(|header| header.receipt).expect("a receipt").role(), HostRole::Primary);
    resume_all(&bed).await;

    // Each sees what it wrote itself, at once, while replicas are late.
    for replica in bed.cluster.replicas() {
        replica.apply_delay(Duration::from_millis(50)).await.expect("the delay is set");
    }
    let mut callers = JoinSet::new();
    for caller in CALLERS..2 * CALLERS {
        let client = client.clone();
        callers.spawn(async move {
            for n in 1..=3 {
                client.execute("INSERT INTO marks VALUES ($1)", [caller.into()]).await.expect("it is written");
                let read = format!("{COUNT} WHERE n = {caller}");
                let (seen, receipt) = read_int(&client, &read, ReadOptions::new()).await;
                assert_eq!(seen, n, "{receipt:?}");
            }
        });
    }
    within("all have written and read", callers.join_all()).await;
    assert!(client.positions().len() <= 3, "{:?}", client.positions());
}

fn positions() -> impl Strategy<Value = Vec<TokenPosition>> {
    let primary_only = prop_oneof![3 => Just(None), 1 => (0u64..4).prop_map(Some)];
    let one = (0u8..3, 0u64..2, 1u32..4, 0u64..4, 0u64..4, primary_only).prop_map(
        |(cluster, system_identifier, timeline, lsn, written_unix_ms, primary_only_unix_ms)| TokenPosition {
            cluster: cluster.to_string(),
            system_identifier,
            timeline: Timeline::new(timeline).expect("above 0"),
            lsn: Lsn::new(lsn),
            written_unix_ms,
            primary_only_unix_ms,
        },
    );
    vec(one, 1..4)
}

proptest! {
    /// The client reads tokens as the broker does, and what it keeps asks for no less.
    #[test]
    fn the_tokens_that_a_client_keeps_mean_the_same_to_a_broker_as_all(given in vec(positions(), 0..40)) {
        let key = TokenKey::from_secret(b"a secret");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _inside = runtime.enter();
        let builder = given.iter().fold(Client::builder(), |builder, positions| builder.position(key.sign(positions)));
        let kept = builder.connect_lazy("http://127.0.0.1:1").expect("an address").positions();
        let read = kept.iter().map(|token| key.verify(token).expect("a token"));
        let all = merge(given);
        prop_assert_eq!(merge(read), all.clone());
        prop_assert!(kept.len() <= 3 * all.len(), "{} for {} clusters", kept.len(), all.len());
    }
}
