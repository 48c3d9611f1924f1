//! A cluster's folder on disk: made or checked before use, and put in order when an earlier run left servers in it.
//! It holds, for each server NAME, the data folder `NAME/` and the log `NAME.log`.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{cluster::PRIMARY, error::DevError, installation::Installation};

/// Says that the folder is ours; without it a folder that is not empty is left alone.
const LABEL: &str = "TIDEGATE_DEV";
/// The extension of data folders that are being made.
pub(super) const UNFINISHED: &str = "new";
const IN_USE_WAIT: Duration = Duration::from_secs(20);

/// Makes the folder if need be, for the user who runs PostgreSQL.
pub(super) async fn prepare(folder: &Path, installation: &Installation) -> Result<(), DevError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(DevError::io(format!("create the folder {}", folder.display())))?;
    let label = folder.join(LABEL);
    if !label.exists() {
        let mut entries = fs::read_dir(folder).map_err(DevError::io(format!("list {}", folder.display())))?;
        if entries.next().is_some() {
            return Err(DevError::FolderForeign { folder: folder.to_owned() });
        }
        write(&label, "Made by `tidegate dev`: PostgreSQL servers for development.\n", installation)?;
    }
    own(folder, installation)?;
    reachable(folder, installation).await
}

/// Makes a folder within a cluster's, for the user who runs PostgreSQL.
pub(super) fn make(path: &Path, installation: &Installation) -> Result<(), DevError> {
    fs::create_dir(path).map_err(DevError::io(format!("create the folder {}", path.display())))?;
    own(path, installation)
}

/// Gives a path to the user who runs PostgreSQL.
fn own(path: &Path, installation: &Installation) -> Result<(), DevError> {
    let Some(user) = installation.os_user() else { return Ok(()) };
    chown(path, Some(user.uid), Some(user.gid)).map_err(DevError::io(format!(
        "give {} to {}",
        path.display(),
        user.name
    )))
}

/// A user's folders above ours may be closed to the one who runs PostgreSQL: said here, rather than by initdb.
async fn reachable(folder: &Path, installation: &Installation) -> Result<(), DevError> {
    let Some(user) = installation.os_user() else { return Ok(()) };
    let status = installation.command_at(Path::new("test")).arg("-w").arg(folder).status().await;
    if status.map_err(DevError::io("run test"))?.success() {
        return Ok(());
    }
    Err(DevError::FolderUnreachable { folder: folder.to_owned(), user: user.name.clone() })
}

/// Writes a file that PostgreSQL's user owns.
pub(super) fn write(path: &Path, text: &str, installation: &Installation) -> Result<(), DevError> {
    fs::write(path, text).map_err(DevError::io(format!("write {}", path.display())))?;
    own(path, installation)
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), DevError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(DevError::Io { action: format!("remove {}", path.display()), source })
        }
        _ => Ok(()),
    }
}

/// Renames within a cluster's folder.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), DevError> {
    fs::rename(from, to).map_err(DevError::io(format!("rename {} to {}", from.display(), to.display())))
}

/// Whether a data folder is complete: initdb and pg_basebackup work in another folder, which is renamed at the end.
pub(super) fn is_data(path: &Path) -> bool {
    path.join("PG_VERSION").is_file()
}

/// Whether a data folder is a replica's.
pub(super) fn is_standby(path: &Path) -> bool {
    path.join("standby.signal").exists()
}

/// Puts what an earlier run left in order. The primary may have failed over since it was made: the server that leads the
/// highest timeline takes the name `primary`; other former primaries are removed, to be copied anew from it.
pub(super) async fn arrange(folder: &Path, installation: &Installation) -> Result<(), DevError> {
    for unfinished in subfolders(folder, |path| path.extension().is_some_and(|extension| extension == UNFINISHED))? {
        remove(&unfinished)?;
    }
    let found = subfolders(folder, is_data)?;
    for data in &found {
        same_version(data, installation)?;
        not_in_use(data).await?;
    }
    let Some(leader) = found.iter().filter(|data| !is_standby(data)).max_by_key(|data| timeline(data)) else {
        return Ok(());
    };
    let primary = folder.join(PRIMARY);
    if *leader != primary {
        let aside = folder.join("former");
        if is_data(&primary) {
            rename(&primary, &aside)?;
        }
        rename(leader, &primary)?;
        if is_data(&aside) {
            rename(&aside, leader)?;
        }
    }
    for data in subfolders(folder, is_data)?.iter().filter(|data| **data != primary && !is_standby(data)) {
        remove(data)?;
    }
    Ok(())
}

fn subfolders(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, DevError> {
    let entries = fs::read_dir(folder).map_err(DevError::io(format!("list {}", folder.display())))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| wanted(path)).collect())
}

/// The newest timeline that a server knows of, by its history files. (The control file shows the old one for a while.)
fn timeline(data: &Path) -> u32 {
    let entries = fs::read_dir(data.join("pg_wal")).into_iter().flatten().flatten();
    let of_history =
        |entry: fs::DirEntry| u32::from_str_radix(entry.file_name().to_str()?.strip_suffix(".history")?, 16).ok();
    entries.filter_map(of_history).max().unwrap_or(1)
}

fn same_version(data: &Path, installation: &Installation) -> Result<(), DevError> {
    let path = data.join("PG_VERSION");
    let found = fs::read_to_string(&path).map_err(DevError::io(format!("read {}", path.display())))?.trim().to_owned();
    if found == installation.version().to_string() {
        return Ok(());
    }
    Err(DevError::FolderVersion { folder: data.to_owned(), found, installed: installation.version() })
}

/// Waits a while for the servers of an earlier run: its watchdog may still be stopping them.
async fn not_in_use(data: &Path) -> Result<(), DevError> {
    let ended = timeout(IN_USE_WAIT, async {
        while user_of(data).is_some() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    match (ended.await, user_of(data)) {
        (Err(_), Some(pid)) => Err(DevError::FolderInUse { folder: data.to_owned(), pid }),
        _ => Ok(()),
    }
}

/// The postmaster that runs on a data folder. Without /proc nobody is found: PostgreSQL's own lock then refuses to start.
fn user_of(data: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.any(|argument| argument == data.as_os_str().as_encoded_bytes()).then_some(pid)
}
