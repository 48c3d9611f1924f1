//! Idempotency keys that a transaction holds which does not end: who waits for it, and what they are told.

use std::{process::Stdio, time::Duration};

use tidegate::dev::Server;
use tidegate_client::{Outcome, params};
use tonic::Code;

use crate::{
    asking::{ask, failure, primary_alone, until_backends},
    harness::{Bed, poll_until},
    idempotency::{COUNT, insert, key, spawn_insert, start_with},
};

const CLAIMING: &str = "wait_event_type = 'Lock' AND query LIKE '%INSERT INTO tidegate.idempotency_keys%'";
const HOLDERS: &str = "FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()";

/// Somebody who is not this broker holds the key `k`.
async fn hold(bed: &Bed) -> tokio::process::Child {
    let primary = bed.cluster.primary();
    let mut psql = bed.cluster.installation().command("psql");
    let claim = "INSERT INTO tidegate.idempotency_keys VALUES ('', 'k', 'another')";
    psql.args(["-XAtq", &primary.superuser_url(), "-c", "BEGIN", "-c", claim, "-c", "SELECT pg_sleep(600)"]);
    let child = psql.kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql starts");
    let held = || async { primary.sql_value::<i64>(&format!("SELECT count(*) {HOLDERS}")).await.expect("a count") };
    poll_until("the key is held", || async { held().await == 1 }).await;
    child
}

/// Its transaction is rolled back.
async fn let_go(primary: &Server) {
    primary.sql(&format!("SELECT pg_terminate_backend(pid) {HOLDERS}")).await.expect("it is ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_one_key_leave_the_connections_to_other_writes() {
    // Two of them for writes.
    let bed = start_with(Bed::with(primary_alone(), |config| config.pool.connections_per_host = 9).await).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let _holder = hold(&bed).await;
    let calls: Vec<_> = (0..6).map(|_| spawn_insert(&client, 1, key("k"))).collect();
    until_backends(primary, CLAIMING, 1).await;
    // One that gives up waits behind them: nobody can tell it that nothing was kept.
    let error = insert(&client, 1, key("k").timeout(Duration::from_millis(500))).await.expect_err("the key is held");
    let is = (error.code(), failure(&error).reason.as_str(), error.outcome());
    assert_eq!(is, (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", Outcome::Unknown), "{error}");
    assert!(!insert(&client, 2, key("other")).await.expect("there is a connection").replayed());
    client.execute("INSERT INTO marks VALUES ($1)", params![3]).await.expect("without a key too");
    until_backends(primary, CLAIMING, 1).await;

    let_go(primary).await;
    let mut replayed = 0;
    for call in calls {
        replayed += u32::from(call.await.expect("it ends").expect("it is written").replayed());
    }
    assert_eq!(replayed, 5);
    assert_eq!(ask(&client, COUNT).await.expect("a count"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_waiting_for_a_key_is_not_told_that_nothing_was_kept() {
    // One of them for writes.
    let bed = start_with(Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await).await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let _holder = hold(&bed).await;
    let error = insert(&client, 1, key("k").timeout(Duration::from_millis(500))).await.expect_err("the key is held");
    assert_eq!((error.code(), error.outcome()), (Code::DeadlineExceeded, Outcome::Unknown), "{error}");
    until_backends(primary, CLAIMING, 0).await;
    for (setting, sqlstate) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        let impatient = bed.client().await.with_setting(setting, "200ms");
        let error = insert(&impatient, 1, key("k")).await.expect_err("the key is held");
        let is = (failure(&error).reason.as_str(), error.sqlstate(), error.outcome());
        assert_eq!(is, ("POSTGRES_ERROR", Some(sqlstate), Outcome::Unknown), "{error}");
        assert_eq!(failure(&error).field, "");
    }

    // What is wrong with a setting is not blamed on the key.
    client.execute("DO $$ BEGIN END $$", []).await.expect("plpgsql is loaded, and its settings with it");
    for (setting, value, sqlstate) in [("work_mem", "much", "22023"), ("plpgsql.variable_conflict", "error", "42501")] {
        let wrong = bed.client().await.with_setting(setting, value);
        let error = insert(&wrong, 1, key("new")).await.expect_err("it cannot be set");
        let is = (failure(&error).reason.as_str(), failure(&error).field.as_str(), error.sqlstate(), error.outcome());
        assert_eq!(is, ("POSTGRES_ERROR", "context.settings", Some(sqlstate), Outcome::NotExecuted), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_waited_for_whatever_the_lock_timeout() {
    let bed = start_with(Bed::with(primary_alone(), |_| {}).await).await;
    let (client, primary) = (bed.client().await.with_setting("lock_timeout", "400ms"), bed.cluster.primary());
    primary.set("synchronous_standby_names", "nobody").await.expect("the setting is changed");
    let call = spawn_insert(&client, 1, key("k"));
    until_backends(primary, "wait_event = 'SyncRep'", 1).await;
    primary.proxy().cut().await;
    primary.proxy().restore().await;
    until_backends(primary, CLAIMING, 1).await;
    let retries = || bed.metric(&["tidegate_retries_total", "write"]);
    let before = retries();
    poll_until("it was tried again", || std::future::ready(retries() >= before + 2.0 || call.is_finished())).await;
    assert!(!call.is_finished(), "nobody knows yet");
    primary.reset("synchronous_standby_names").await.expect("the setting is as before");
    assert!(call.await.expect("it ends").expect("the stored result").replayed());
}
