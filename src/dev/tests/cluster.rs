//! One cluster through everything that can be done to it, and a kept one over two runs.

use std::time::Duration;

use super::{Outcome, eventually};
use crate::dev::{Cluster, ClusterOptions, DevError, Server};

/// The statement that stays open as somebody's backend; answers its pid.
async fn sleeping_backend(server: &Server) -> Result<i32, DevError> {
    const PID: &str = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' LIMIT 1";
    eventually(20, "a sleeping backend", async || server.sql(PID).await.is_ok_and(|pid| !pid.is_empty())).await;
    server.sql_value(PID).await
}

async fn add_row(primary: &Server) -> Result<(), DevError> {
    primary.sql("INSERT INTO t VALUES (1)").await.map(|_| ())
}

async fn rows(server: &Server) -> Result<i64, DevError> {
    server.sql_value("SELECT count(*) FROM t").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_its_faults() -> Outcome {
    #[expect(clippy::disallowed_methods, reason = "the start's time is printed")]
    let begun = std::time::Instant::now();
    let options = ClusterOptions {
        wal_segment_mb: Some(1),
        settings: vec![("work_mem".into(), "5MB".into())],
        ..Default::default()
    };
    let cluster = Cluster::start(options).await?;
    println!("a primary and {} replicas started in {:?}", cluster.replicas().len(), begun.elapsed());
    let primary = cluster.primary();
    assert_eq!(primary.sql("SHOW wal_segment_size; SHOW work_mem").await?, "1MB\n5MB");
    primary.sql("CREATE TABLE t (n int)").await?;
    add_row(primary).await?;
    for replica in cluster.replicas() {
        replica.catch_up(primary).await?;
        assert!(replica.is_in_recovery().await?);
        assert_eq!(rows(replica).await?, 1, "{}", replica.name());
    }
    replay_can_be_held(primary, cluster.replica(0)).await?;
    backends_can_be_ended(primary).await?;
    a_hung_host_comes_back(cluster.replica(0)).await?;
    a_killed_host_comes_back(primary, cluster.replica(0)).await?;
    another_server_leads(primary, cluster.replica(0), cluster.replica(1)).await?;
    let folder = cluster.folder().to_owned();
    let pids = [primary.postmaster_pid().await?, cluster.replica(1).postmaster_pid().await?];
    cluster.shutdown().await?;
    assert!(!folder.exists(), "{}", folder.display());
    assert!(pids.iter().all(|pid| !super::watchdog::is_alive(*pid)));
    Ok(())
}

async fn replay_can_be_held(primary: &Server, replica: &Server) -> Outcome {
    replica.pause_replay().await?;
    let before = rows(primary).await?;
    add_row(primary).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rows(replica).await?, before);
    replica.resume_replay().await?;
    replica.catch_up(primary).await?;
    assert_eq!(rows(replica).await?, before + 1);

    replica.apply_delay(Duration::from_secs(2)).await?;
    add_row(primary).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rows(replica).await?, before + 1);
    replica.apply_delay(Duration::ZERO).await?;
    replica.catch_up(primary).await?;
    assert_eq!(rows(replica).await?, before + 2);
    Ok(())
}

async fn backends_can_be_ended(primary: &Server) -> Outcome {
    let (slept, ended) = tokio::join!(primary.sql("SELECT pg_sleep(60)"), async {
        primary.terminate_backend(sleeping_backend(primary).await?).await
    });
    ended?;
    assert!(matches!(slept, Err(DevError::Sql { message, .. }) if message.contains("administrator command")));

    let postmaster = primary.postmaster_pid().await?;
    let (slept, killed) = tokio::join!(primary.sql("SELECT pg_sleep(60)"), async {
        primary.kill_backend(sleeping_backend(primary).await?).await
    });
    killed?;
    assert!(slept.is_err());
    primary.wait_ready().await?;
    assert_eq!(primary.postmaster_pid().await?, postmaster);
    assert!(primary.log()?.contains("was terminated by signal 9"));
    let ourselves = i32::try_from(std::process::id())?;
    assert!(matches!(primary.kill_backend(ourselves).await, Err(DevError::NotOurs { .. })));
    Ok(())
}

async fn a_hung_host_comes_back(server: &Server) -> Outcome {
    server.pause().await?;
    let hung = tokio::time::timeout(Duration::from_millis(300), server.sql("SELECT 1")).await;
    assert!(hung.is_err(), "{hung:?}");
    server.unpause().await?;
    server.wait_ready().await?;
    Ok(())
}

async fn a_killed_host_comes_back(primary: &Server, replica: &Server) -> Outcome {
    let before = rows(primary).await?;
    primary.kill().await?;
    assert!(!primary.is_running().await?);
    assert!(primary.sql("SELECT 1").await.is_err());
    assert!(matches!(primary.pause().await, Err(DevError::NotRunning { .. })));
    primary.start().await?;
    assert_eq!(rows(primary).await?, before);
    replica.restart().await?;
    replica.wait_streaming(primary).await?;
    Ok(())
}

async fn another_server_leads(old: &Server, new: &Server, other: &Server) -> Outcome {
    new.catch_up(old).await?;
    old.stop().await?;
    new.promote().await?;
    other.follow(new).await?;
    add_row(new).await?;
    other.catch_up(new).await?;
    assert_eq!(rows(other).await?, rows(new).await?);
    old.rebuild_from(new).await?;
    assert!(old.is_in_recovery().await?);
    assert_eq!(rows(old).await?, rows(new).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_data_is_there_again() -> Outcome {
    let folder = std::env::temp_dir().join(format!("tidegate-kept-{:08x}", rand::random::<u32>()));
    let options = ClusterOptions { replicas: 1, data_dir: Some(folder.clone()), ..Default::default() };
    let cluster = Cluster::start(options.clone()).await?;
    cluster.replica(0).promote().await?;
    cluster.replica(0).sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").await?;
    // Dropped, so that the next start meets servers that are still stopping; the former primary is behind and is rebuilt.
    drop(cluster);
    let cluster = Cluster::start(options).await?;
    assert_eq!(rows(cluster.primary()).await?, 1);
    assert!(cluster.replica(0).is_in_recovery().await?);
    assert_eq!(rows(cluster.replica(0)).await?, 1);
    cluster.shutdown().await?;
    assert!(folder.join("primary/PG_VERSION").exists());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[tokio::test]
async fn a_foreign_folder_is_left_alone() -> Outcome {
    let folder = std::env::temp_dir().join(format!("tidegate-foreign-{:08x}", rand::random::<u32>()));
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("thesis.txt"), "years of work")?;
    let started = Cluster::start(ClusterOptions { data_dir: Some(folder.clone()), ..Default::default() }).await;
    assert!(matches!(started, Err(DevError::FolderForeign { .. })));
    assert_eq!(std::fs::read_dir(&folder)?.count(), 1);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
