//! The watchdog: one small `sh` for each cluster that outlives us by a moment. It holds the other end of a pipe of ours;
//! when that closes, by a drop, a panic or a SIGKILL, it stops the cluster's servers and removes a temporary folder.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::error::DevError;

const SCRIPT: &str = include_str!("watchdog.sh");
const BOUND: Duration = Duration::from_secs(60);

/// The running watchdog. Dropping it closes the pipe, so everything stops; nothing waits for that.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
    // Nobody else may hold this pipe's end: it is close-on-exec, so no server or test program inherits it.
    pipe: ChildStdin,
}

impl Watchdog {
    /// Starts one before the first server, and before the folder is made, so that there is no gap without it.
    pub(super) async fn start(marker: &str, folder: &Path, keep: bool) -> Result<Self, DevError> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C goes to the terminal's whole process group: it must not reach the watchdog before us.
            .process_group(0)
            .spawn()
            .map_err(DevError::io("start /bin/sh as the watchdog"))?;
        let Some(mut pipe) = child.stdin.take() else {
            return Err(DevError::Io {
                action: "open a pipe to the watchdog".into(),
                source: std::io::ErrorKind::BrokenPipe.into(),
            });
        };
        let ending = if keep { "keep" } else { "remove" };
        let orders = format!("{marker}\n{ending}\n{}\n", folder.display());
        pipe.write_all(orders.as_bytes()).await.map_err(DevError::io("write to the watchdog"))?;
        Ok(Self { child, pipe })
    }

    /// Closes the pipe, and waits until the servers and a temporary folder are gone.
    pub(super) async fn finish(self) -> Result<(), DevError> {
        let Self { mut child, pipe } = self;
        drop(pipe);
        let ended = timeout(BOUND, child.wait()).await;
        let ended = ended.map_err(|_| DevError::TimedOut { what: "stopping the cluster".into(), bound: BOUND })?;
        ended.map(|_| ()).map_err(DevError::io("wait for the watchdog"))
    }
}
