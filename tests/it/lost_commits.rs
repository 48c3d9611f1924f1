//! COMMITs whose answer is lost while they still run, before a crash, or with a failover: they are waited for, and what is
//! said of them is true.

use std::{process::Stdio, time::Duration};

use tidegate::dev::{ClusterOptions, Server};
use tidegate_client::{Outcome, params};
use tonic::Code;

use crate::{
    asking::{ask, backends, failed, last, primary_alone, session_write, until_backends},
    harness::{Bed, poll_until},
    idempotency::{COUNT, INSERT, insert, key, spawn_insert, start, start_with},
};

/// A trigger that holds each COMMIT of `marks` until the advisory lock 7 is free; then the cut of the answer.
pub async fn hold_commits(bed: &Bed) -> tokio::process::Child {
    let primary = bed.cluster.primary();
    primary
        .sql(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON marks DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION hold();",
        )
        .await
        .expect("the trigger is made");
    let psql = bed.cluster.installation().command("psql");
    lock_holder(psql, primary).await
}

pub async fn lock_holder(mut psql: tokio::process::Command, primary: &Server) -> tokio::process::Child {
    psql.args(["-XAtq", &primary.superuser_url(), "-c", "SELECT pg_advisory_lock(7)", "-c", "SELECT pg_sleep(600)"]);
    let child = psql.kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql starts");
    poll_until("the lock is held", || async {
        primary
            .sql_value::<i64>("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            .await
            .expect("a count")
            == 1
    })
    .await;
    child
}

pub const HELD: &str = "wait_event = 'advisory'";
const CLAIMING: &str = "wait_event_type = 'Lock' AND query LIKE '%INSERT INTO tidegate.idempotency_keys%'";

/// Lets the lock go.
pub async fn release(primary: &Server) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'";
    primary.sql(end).await.expect("the lock is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_connection_is_cut_is_waited_for_and_answered_as_it_ends() {
    for ends_well in [true, false] {
        let bed = start_with(Bed::with(primary_alone(), |_| {}).await).await;
        let (client, primary) = (bed.client().await, bed.cluster.primary());
        let _holder = hold_commits(&bed).await;
        let call = spawn_insert(&client, 1, key("slow"));
        until_backends(primary, HELD, 1).await;
        let without = {
            let client = client.clone();
            tokio::spawn(async move { client.execute(INSERT, params![2]).await })
        };
        until_backends(primary, HELD, 2).await;

        // Both connections are lost, and both backends live on.
        primary.proxy().cut().await;
        primary.proxy().restore().await;
        until_backends(primary, CLAIMING, 1).await;
        assert_eq!(backends(primary, HELD).await, 2, "the originals are still there");
        assert!(!call.is_finished() && !without.is_finished(), "nobody knows yet");

        if ends_well {
            release(primary).await;
        } else {
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'";
            primary.sql(end).await.expect("they are ended");
            release(primary).await;
        }
        let (keyed, without) = (call.await.expect("it ends"), without.await.expect("it ends"));
        let keyed = keyed.expect("with a key it is done in any case");
        assert_eq!(keyed.replayed(), ends_well, "done by the original, or by its repetition");
        match without {
            Ok(written) => assert!(ends_well && !written.position.is_empty()),
            Err(error) => assert_eq!((ends_well, error.outcome()), (false, Outcome::RolledBack), "{error}"),
        }
        bed.wait_until("the primary answers probes again", || bed.view().primary.is_some()).await;
        let expected = if ends_well { "2" } else { "1" };
        assert_eq!(ask(&client, COUNT).await.expect("a count"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_time_is_up_while_its_key_is_held_is_unknown() {
    let bed = start().await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let _holder = hold_commits(&bed).await;
    let first = spawn_insert(&client, 1, key("slow"));
    until_backends(primary, HELD, 1).await;
    let second = insert(&client, 1, key("slow").timeout(Duration::from_secs(1))).await;
    let error = second.expect_err("the first holds the key");
    assert_eq!((error.code(), error.outcome()), (Code::DeadlineExceeded, Outcome::Unknown), "{error}");
    until_backends(primary, CLAIMING, 0).await;
    release(primary).await;
    assert!(!first.await.expect("it ends").expect("it is written").replayed());
    assert!(insert(&client, 1, key("slow")).await.expect("the stored result").replayed());
    assert_eq!(ask(&client, COUNT).await.expect("a count"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_a_repetition_is_done_if_the_first_was_lost_and_answered_if_not() {
    let options = ClusterOptions { replicas: 1, ..ClusterOptions::default() };
    let bed = start_with(Bed::with(options, |_| {}).await).await;
    let client = bed.client().await;
    insert(&client, 1, key("kept")).await.expect("it is written");
    bed.wait_until_caught_up().await;
    // The last write never reaches a replica.
    let (primary, replica) = (bed.cluster.primary(), bed.cluster.replica(0));
    replica.stop().await.expect("the replica stops");
    insert(&client, 2, key("lost")).await.expect("it is written");
    primary.kill().await.expect("the primary dies");
    replica.start().await.expect("the replica starts");
    replica.promote().await.expect("it is promoted");
    bed.wait_until("the new primary is found", || bed.view().primary.is_some_and(|host| host.index() == 1)).await;
    let other = bed.client().await;
    let kept = insert(&other, 1, key("kept")).await.expect("the stored result");
    assert!(kept.replayed());
    let lost = insert(&other, 2, key("lost")).await.expect("it is done again");
    assert!(!lost.replayed());
    assert_eq!(ask(&other, COUNT).await.expect("a count"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_before_a_crash_is_not_believed_by_its_number_but_by_its_key() {
    let bed = start().await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    let _holder = hold_commits(&bed).await;
    let without = {
        let client = client.clone();
        tokio::spawn(async move { client.execute(INSERT, params![1]).await })
    };
    let keyed = spawn_insert(&client, 2, key("k"));
    until_backends(primary, HELD, 2).await;

    // Both are committed, and nobody hears of it before a crash that the postmaster survives.
    primary.proxy().blackhole().await;
    release(primary).await;
    poll_until("both are committed", || async { primary.sql(COUNT).await.expect("a count") == "2" }).await;
    let pid = primary.sql_value("SELECT pid FROM pg_stat_activity WHERE application_name = 'tidegate' LIMIT 1").await;
    primary.kill_backend(pid.expect("a backend")).await.expect("it is killed");
    primary.proxy().cut().await;
    primary.wait_ready().await.expect("the server recovers");
    primary.proxy().restore().await;

    let error = without.await.expect("it ends").expect_err("the same number may be another's");
    assert_eq!((error.reason(), error.outcome()), ("CONNECTION_LOST", Outcome::Unknown), "{error}");
    assert!(keyed.await.expect("it ends").expect("the stored result").replayed());
    bed.wait_until("the primary answers probes again", || bed.view().primary.is_some()).await;
    assert_eq!(ask(&client, COUNT).await.expect("a count"), "2");
}

const WAITS_FOR_STANDBY: &str = "wait_event = 'SyncRep'";
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

#[tokio::test(flavor = "multi_thread")]
async fn what_no_synchronous_standby_has_confirmed_is_not_called_done() {
    let bed = start().await;
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    primary.set("synchronous_standby_names", "nobody").await.expect("the setting is changed");

    // With a key: its backend is ended while it waits, and so the row is there without any standby's word.
    let call = spawn_insert(&client, 1, key("k"));
    until_backends(primary, WAITS_FOR_STANDBY, 1).await;
    primary.sql(TERMINATE).await.expect("it is ended");
    poll_until("it is committed", || async { primary.sql(COUNT).await.expect("a count") == "1" }).await;
    // The repetition finds it, and waits in its place.
    until_backends(primary, WAITS_FOR_STANDBY, 1).await;
    assert!(!call.is_finished());

    // Alone: its cancel ends no more than the wait.
    let mut session = client.raw_session().await.expect("the session opens");
    let write = session.send(0, None, session_write("INSERT INTO marks VALUES (2)")).expect("it is sent");
    until_backends(primary, WAITS_FOR_STANDBY, 2).await;
    let cancel = session.cancel(write).expect("it is sent");
    let (one, other) = (last(&mut session).await, last(&mut session).await);
    let answer = if one.request_id == cancel { other } else { one };
    assert_eq!(failed(answer), (Code::Cancelled, "REQUEST_CANCELLED".into(), Outcome::Unknown));
    assert_eq!(primary.sql(COUNT).await.expect("a count"), "2");

    primary.reset("synchronous_standby_names").await.expect("the setting is as before");
    assert!(call.await.expect("it ends").expect("the stored result").replayed());
}
