//! Many more calls than connections: callers take turns, each one's own calls go in the order in which they came, and nobody
//! is sent away or forgotten.

use std::time::Duration;

use tidegate_client::{Client, Statement, WriteOptions, params};
use tokio::task::JoinSet;

use crate::{
    admission::client_from,
    asking::{ask, primary_alone, tell, until_backends},
    harness::{Bed, poll_until},
};

/// Longer than all of them take together, on however slow a machine.
const LONG: Duration = Duration::from_secs(600);
const INSERT: &str = "INSERT INTO journal (caller, n) VALUES ($1, $2)";
/// Calls of the one who makes many.
const MANY: i64 = 400;
/// Calls of each of the others.
const FEW: i64 = 10;

/// Starts a write of a caller; it is in line once this returns.
async fn stand_in_line(bed: &Bed, calls: &mut JoinSet<()>, client: &Client, caller: &'static str, n: i64) {
    start(calls, client, caller, n);
    in_line(bed, calls.len()).await;
}

fn start(calls: &mut JoinSet<()>, client: &Client, caller: &'static str, n: i64) {
    let client = client.clone();
    calls.spawn(async move {
        let insert = Statement::new(INSERT).bind_all(params![caller, n]);
        client.write_with([insert], WriteOptions::new().timeout(LONG)).await.expect("it has its turn");
    });
}

async fn in_line(bed: &Bed, count: usize) {
    let waiting = || bed.metric(&["tidegate_queue_waiting", r#"use="write""#]) as usize;
    poll_until(&format!("{count} writes wait"), || async { waiting() == count }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_take_turns_and_everybody_is_served() {
    let bed = Bed::with(primary_alone(), |config| {
        // Two for calls: one of them for writes, so that the order in which they run is the order of their turns.
        config.pool.connections_per_host = 7;
        config.pool.max_queue_age = LONG;
    })
    .await;
    let (many, few, other) =
        tokio::join!(client_from(&bed, "127.0.0.1"), client_from(&bed, "127.0.0.2"), client_from(&bed, "127.0.0.3"));
    tell(&many, "CREATE TABLE journal (turn bigserial, caller text, n bigint)").await.expect("the table is made");

    let blocker = tokio::spawn({
        let client = bed.client().await;
        async move { drop(client.execute("SELECT pg_sleep(600)::text", []).await) }
    });
    until_backends(bed.cluster.primary(), "state = 'active' AND query LIKE '%pg_sleep%'", 1).await;
    let mut calls = JoinSet::new();
    for n in 0..MANY {
        start(&mut calls, &many, "many", n);
    }
    in_line(&bed, MANY as usize).await;
    for n in 0..FEW {
        stand_in_line(&bed, &mut calls, &few, "few", n).await;
    }
    for n in 0..FEW {
        stand_in_line(&bed, &mut calls, &other, "other", n).await;
    }
    blocker.abort();
    while let Some(ended) = calls.join_next().await {
        ended.expect("the call is answered");
    }

    let order = "SELECT string_agg(caller || ' ' || n, ',' ORDER BY turn) FROM journal";
    let order = ask(&bed.client().await, order).await.expect("the journal is read");
    let order: Vec<_> = order.split(',').map(|entry| entry.split_once(' ').expect("two words")).collect();
    assert_eq!(order.len() as i64, MANY + 2 * FEW, "everybody once");
    // Though hundreds came before them, each of their calls waits for one of each other caller only.
    for (round, turns) in order.chunks(3).take(FEW as usize).enumerate() {
        let own = round.to_string();
        let mut callers: Vec<_> = turns.iter().map(|(caller, _)| *caller).collect();
        callers.sort_unstable();
        assert_eq!(callers, ["few", "many", "other"], "round {round}: {turns:?}");
        let in_order = turns.iter().filter(|(caller, n)| *caller != "many" && *n == own).count();
        assert_eq!(in_order, 2, "round {round}: each one's own are in order: {turns:?}");
    }
    assert!(order[3 * FEW as usize..].iter().all(|(caller, _)| *caller == "many"));
    assert_eq!(bed.metric(&["tidegate_sheds_total"]), 0.0, "nobody was sent away");
}
