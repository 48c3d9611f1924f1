//! How a data folder comes to be: by initdb for a primary, by pg_basebackup for a replica. Both work in another folder,
//! which is renamed when it is complete, so that an interrupted run leaves nothing that looks usable.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use super::{
    cluster::SUPERUSER,
    error::DevError,
    folder,
    installation::Installation,
    server::Site,
    settings::{self, primary_conninfo, quote},
};

/// Makes a primary's data folder. `wal_segment_mb` is the size of WAL segments, PostgreSQL's own 16 MiB if none.
pub(super) async fn create(site: &Site, wal_segment_mb: Option<u32>) -> Result<(), DevError> {
    let (installation, new) = (&site.installation, unfinished(site)?);
    let mut arguments = vec!["--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "--username", SUPERUSER];
    let segment = wal_segment_mb.map(|size| format!("--wal-segsize={size}"));
    arguments.extend(segment.as_deref());
    run(installation, "initdb", &arguments, &new).await?;
    append(&new.join("postgresql.conf"), &format!("include = '{}'\n", settings::FILE))?;
    folder::write(&new.join("pg_hba.conf"), &settings::host_based_access(), installation)?;
    folder::rename(&new, &site.data)
}

/// Copies the server on port `primary` as a replica of it.
pub(super) async fn copy(site: &Site, primary: u16) -> Result<(), DevError> {
    let (installation, new) = (&site.installation, unfinished(site)?);
    let from = format!("host=127.0.0.1 port={primary} user={SUPERUSER}");
    let arguments = ["--checkpoint=fast", "--no-sync", "--no-manifest", "--wal-method=stream", "--dbname", &from];
    run(installation, "pg_basebackup", &arguments, &new).await?;
    // What the primary was told by ALTER SYSTEM is its own.
    folder::write(&new.join("postgresql.auto.conf"), "", installation)?;
    folder::write(&new.join("standby.signal"), "", installation)?;
    folder::rename(&new, &site.data)
}

/// Makes a stopped primary start as a replica.
pub(super) fn demote(site: &Site) -> Result<(), DevError> {
    folder::write(&site.data.join("standby.signal"), "", &site.installation)
}

/// Points a stopped replica to the server on port `primary`.
pub(super) fn point(site: &Site, primary: u16) -> Result<(), DevError> {
    // The last line of a name wins, and ALTER SYSTEM drops the earlier ones.
    let line = format!("primary_conninfo = {}\n", quote(&primary_conninfo(primary, &site.name)));
    append(&site.data.join("postgresql.auto.conf"), &line)
}

/// The folder to work in. Its name has the marker, and so have the arguments of initdb and pg_basebackup: if we are killed
/// meanwhile, the watchdog sees them, and does not remove the folder below a server that initdb runs.
fn unfinished(site: &Site) -> Result<PathBuf, DevError> {
    let new = site.data.with_file_name(format!("{}.{}", site.marker, folder::UNFINISHED));
    folder::remove(&new)?;
    Ok(new)
}

async fn run(installation: &Installation, program: &str, arguments: &[&str], data: &Path) -> Result<(), DevError> {
    let mut command = installation.command(program);
    command.args(arguments).args([OsStr::new("-D"), data.as_os_str()]).kill_on_drop(true);
    let output = command.output().await.map_err(DevError::io(format!("run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DevError::Program { program: program.to_owned(), output })
}

fn append(path: &Path, text: &str) -> Result<(), DevError> {
    let appended = OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    appended.map_err(DevError::io(format!("append to {}", path.display())))
}
