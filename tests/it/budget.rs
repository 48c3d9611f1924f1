//! One budget of connections a host, over all its databases: never exceeded, every database has its part, and what one of
//! them does not use another has.

use std::time::Duration;

use tidegate::{
    config::{Config, DatabaseConfig},
    dev::{DATABASE, Server, USER},
};
use tidegate_client::Client;
use tokio::task::JoinHandle;

use crate::{
    asking::{ask, backends, primary_alone, strong, tell, until_backends},
    harness::{Bed, PATIENCE, poll_until, within},
};

/// Twelve for calls, beside four of the broker's own and one for each database's listener: six for reads, six for writes.
const BUDGET: u32 = 19;
const OTHERS: [&str; 2] = ["second", "third"];

async fn start() -> Bed {
    let mut bed = Bed::with(primary_alone(), |config| {
        let cluster = config.clusters[0].name.clone();
        let database = |name: &str| DatabaseConfig { name: name.into(), cluster: cluster.clone(), dbname: name.into() };
        config.databases.extend(OTHERS.map(database));
        config.pool.connections_per_host = BUDGET;
    })
    .await;
    for name in OTHERS {
        bed.cluster.primary().sql(&format!("CREATE DATABASE {name} OWNER {USER}")).await.expect("it is created");
    }
    bed.restart_broker().await;
    bed
}

async fn client_of(bed: &Bed, database: &str) -> Client {
    let builder = Client::builder().database(database).timeout(PATIENCE);
    builder.connect(bed.url()).await.expect("the broker accepts connections")
}

/// Calls that hold connections until they are aborted.
fn hold(client: &Client, reads: usize, writes: usize) -> Vec<JoinHandle<()>> {
    let read = |client: Client| async move { drop(client.read_with("SELECT pg_sleep(61)", [], strong()).await) };
    let write = |client: Client| async move { drop(client.execute("SELECT pg_sleep(62)", []).await) };
    let reads = (0..reads).map(|_| tokio::spawn(read(client.clone()))).collect::<Vec<_>>();
    reads.into_iter().chain((0..writes).map(|_| tokio::spawn(write(client.clone())))).collect()
}

async fn until_held(server: &Server, database: &str, reads: i64, writes: i64) {
    let of =
        |seconds: u32| format!("datname = '{database}' AND state = 'active' AND query LIKE '%pg_sleep({seconds})%'");
    until_backends(server, &of(61), reads).await;
    until_backends(server, &of(62), writes).await;
}

/// A backend whose connection was closed may take a moment to end; one too many would stay.
async fn expect_within_budget(server: &Server) {
    poll_until("the budget holds", || async { backends(server, "true").await <= i64::from(BUDGET) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_share_one_budget_and_each_has_its_part_of_it() {
    let bed = start().await;
    let primary = bed.cluster.primary();
    let (first, second, third) =
        (client_of(&bed, DATABASE).await, client_of(&bed, OTHERS[0]).await, client_of(&bed, OTHERS[1]).await);

    // One that wants all has all but one connection of each kind for each of the others, who need not wait for it.
    let greedy = hold(&first, 20, 20);
    until_held(primary, DATABASE, 4, 4).await;
    for client in [&second, &third] {
        assert_eq!(ask(client, "SELECT 1").await.expect("a read"), "1");
        assert_eq!(tell(client, "SELECT 1").await.expect("a write"), "1");
    }
    until_held(primary, DATABASE, 4, 4).await;
    expect_within_budget(primary).await;
    let in_use = |usage: &str| bed.metric(&["tidegate_budget_connections{", &format!("use=\"{usage}\"")]);
    // The connection of a call goes back behind its answer.
    let shares = async || ["primary_read", "write", "idle"].map(in_use) == [4.0; 3];
    poll_until("four read, four write, and four are idle", shares).await;
    assert_eq!(bed.metric(&["tidegate_budget_limit{"]), 12.0);

    // What it leaves idle is given up for the others.
    greedy.iter().for_each(JoinHandle::abort);
    until_held(primary, DATABASE, 0, 0).await;
    let held = hold(&second, 20, 20);
    until_held(primary, OTHERS[0], 4, 4).await;
    expect_within_budget(primary).await;
    assert!(bed.metric(&["tidegate_connections_discarded_total", r#"reason="given_up""#]) >= 1.0);

    // Of two that want all, the one that came last has its part, and the rest once the other leaves.
    let rest = hold(&third, 20, 20);
    until_held(primary, OTHERS[1], 1, 1).await;
    held.iter().for_each(JoinHandle::abort);
    until_held(primary, OTHERS[1], 4, 4).await;
    expect_within_budget(primary).await;
    rest.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_calls_on_few_connections_all_have_their_turn() {
    let bed = start().await;
    let primary = bed.cluster.primary();
    let mut calls = Vec::new();
    for database in [DATABASE, OTHERS[0], OTHERS[1]] {
        let client = client_of(&bed, database).await;
        for n in 0..100 {
            let client = client.clone();
            calls.push(tokio::spawn(async move {
                if n % 2 == 0 { ask(&client, "SELECT 1").await } else { tell(&client, "SELECT 1").await }
            }));
        }
    }
    for call in calls {
        assert_eq!(within("a call", call).await.expect("it ends").expect("it has its turn"), "1");
    }
    expect_within_budget(primary).await;
    assert_eq!(bed.metric(&["tidegate_sheds_total"]), 0.0);
    assert!(bed.metric(&["tidegate_budget_connections{"]) <= 12.0, "nothing is in use beyond it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_budget_under_those_who_have_it_and_those_who_wait_for_it() {
    // Four for calls, of these two for writes.
    let bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 9).await;
    let (primary, client) = (bed.cluster.primary(), client_of(&bed, DATABASE).await);
    let until_waiting = async |count: f64| {
        let waiting = || bed.metric(&["tidegate_queue_waiting{", "use=\"write\""]);
        poll_until(&format!("{count} wait"), async || waiting() == count).await;
    };
    let apply = async |config: &Config| drop(bed.app().apply(config.clone()).await.expect("nothing takes a restart"));
    let greedy = hold(&client, 0, 5);
    until_held(primary, DATABASE, 0, 2).await;
    until_waiting(3.0).await;

    // Ten for calls, of these five for writes: who waited goes.
    let mut config = bed.config.clone();
    config.pool.connections_per_host = 15;
    apply(&config).await;
    until_held(primary, DATABASE, 0, 5).await;

    // Pools that are made anew have what those before them still have in use; and who waits for the former waits for them.
    let late = hold(&client, 0, 1);
    until_waiting(1.0).await;
    config.pool.idle_timeout += Duration::from_secs(1);
    apply(&config).await;
    until_waiting(1.0).await;
    until_held(primary, DATABASE, 0, 5).await;
    config.pool.connections_per_host = 9;
    apply(&config).await;
    assert_eq!(bed.metric(&["tidegate_budget_limit{"]), 4.0);
    greedy.iter().for_each(JoinHandle::abort);
    until_held(primary, DATABASE, 0, 1).await;
    poll_until("the smaller budget holds", async || backends(primary, "true").await <= 9).await;
    late.iter().for_each(JoinHandle::abort);
    until_held(primary, DATABASE, 0, 0).await;
    assert_eq!(tell(&client, "SELECT 1").await.expect("a write"), "1");
}
