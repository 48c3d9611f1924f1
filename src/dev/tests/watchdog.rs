//! Nothing is left when the process that started a cluster is killed, or when the cluster is dropped.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{Outcome, eventually};
use crate::dev::{Cluster, ClusterOptions};

const REPORT: &str = "TIDEGATE_TEST_WATCHDOG_REPORT";

/// Whether a process runs; one that ended and was not waited for does not.
pub(super) fn is_alive(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Not a test: the process that the next one starts and kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test"]
async fn the_process_that_is_killed() -> Outcome {
    let report = PathBuf::from(env::var_os(REPORT).ok_or("only for another test")?);
    let cluster = Cluster::start(ClusterOptions { replicas: 1, ..Default::default() }).await?;
    let (primary, replica) = (cluster.primary(), cluster.replica(0));
    // The worse case: a server that hangs does not answer a polite signal.
    let pids = format!("{}\n{}", primary.postmaster_pid().await?, replica.postmaster_pid().await?);
    replica.pause().await?;
    let written = report.with_extension("part");
    std::fs::write(&written, format!("{}\n{pids}\n", cluster.folder().display()))?;
    std::fs::rename(written, report)?;
    std::future::pending().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_nothing() -> Outcome {
    let report = env::temp_dir().join(format!("tidegate-report-{:08x}", rand::random::<u32>()));
    let mut helper = tokio::process::Command::new(env::current_exe()?)
        .args(["--exact", "dev::tests::watchdog::the_process_that_is_killed", "--ignored"])
        .env(REPORT, &report)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    eventually(60, "the helper's cluster", async || report.exists()).await;
    let text = std::fs::read_to_string(&report)?;
    std::fs::remove_file(&report)?;
    let mut lines = text.lines();
    let folder = Path::new(lines.next().ok_or("no folder")?).to_owned();
    let pids = lines.map(str::parse).collect::<Result<Vec<i32>, _>>()?;
    assert!(folder.exists() && pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)), "{text}");

    helper.kill().await?;
    eventually(30, "the servers end", async || !pids.iter().any(|pid| is_alive(*pid))).await;
    eventually(30, "the folder is removed", async || !folder.exists()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_cluster_leaves_nothing() -> Outcome {
    let cluster = Cluster::start(ClusterOptions { replicas: 0, ..Default::default() }).await?;
    let (folder, pid) = (cluster.folder().to_owned(), cluster.primary().postmaster_pid().await?);
    // A killed server leaves its lock files: the folder must go all the same.
    cluster.primary().kill().await?;
    drop(cluster);
    eventually(30, "the folder is removed", async || !folder.exists()).await;
    assert!(!is_alive(pid));
    Ok(())
}
