//! Where PostgreSQL's programs are, and as which user they run. Knows nothing of clusters.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::error::DevError;

const PROGRAMS: [&str; 5] = ["initdb", "postgres", "pg_basebackup", "psql", "pg_ctl"];
const VERSION_MIN: u32 = 15;

/// An installed PostgreSQL, and the user to run its servers as.
#[derive(Debug, Clone)]
pub struct Installation {
    bin: PathBuf,
    version: u32,
    run_as: Option<OsUser>,
}

/// The user that servers run as when we are root.
#[derive(Debug, Clone)]
pub(super) struct OsUser {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Installation {
    /// Looks for PostgreSQL: the folder in `TIDEGATE_PG_BIN` or `PG_BIN` if set; else the newest of the folders that
    /// packages use; else `pg_config --bindir` and `PATH`.
    ///
    /// PostgreSQL refuses to run as root: then servers run as the user in `TIDEGATE_PG_USER`, or `postgres`.
    pub async fn find() -> Result<Self, DevError> {
        let bin = find_bin().await?;
        let version = version_of(&bin).await?;
        let run_as = if rustix::process::geteuid().is_root() { Some(OsUser::look_up().await?) } else { None };
        Ok(Self { bin, version, run_as })
    }

    /// The folder that holds initdb, postgres and the others.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The major version, such as 15.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The name of the user that servers run as, when it is not our own.
    pub fn run_as(&self) -> Option<&str> {
        self.run_as.as_ref().map(|user| user.name.as_str())
    }

    pub(super) fn os_user(&self) -> Option<&OsUser> {
        self.run_as.as_ref()
    }

    /// A command for one of PostgreSQL's programs, with nothing of the caller's PG* environment in it.
    pub fn command(&self, program: &str) -> Command {
        self.command_at(&self.bin.join(program))
    }

    /// The same for any program, as the user that servers run as.
    pub(super) fn command_at(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        // The programs complain about a current folder that their user may not read, and libpq reads files in $HOME.
        command.env("LC_ALL", "C").env("HOME", "/nonexistent").env("PGCONNECT_TIMEOUT", "5").current_dir("/");
        command.stdin(Stdio::null());
        if let Some(user) = &self.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }
}

impl OsUser {
    async fn look_up() -> Result<Self, DevError> {
        let name = env::var("TIDEGATE_PG_USER").unwrap_or_else(|_| "postgres".into());
        let missing = || DevError::NoOsUser { name: name.clone() };
        let uid = id("-u", &name).await.filter(|uid| *uid != 0).ok_or_else(missing)?;
        let gid = id("-g", &name).await.ok_or_else(missing)?;
        Ok(Self { uid, gid, name })
    }
}

async fn id(flag: &str, name: &str) -> Option<u32> {
    first_line(OsStr::new("id"), &[flag, name]).await?.parse().ok()
}

/// The first line that a program prints; nothing if it cannot be run or fails.
async fn first_line(program: &OsStr, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().map(|line| line.trim().to_owned())).flatten()
}

fn missing_in(bin: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| !bin.join(program).is_file())
}

async fn find_bin() -> Result<PathBuf, DevError> {
    for variable in ["TIDEGATE_PG_BIN", "PG_BIN"] {
        // Somebody chose: falling back to another one would hide a mistake.
        if let Some(bin) = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from) {
            return match missing_in(&bin) {
                None => Ok(bin),
                Some(missing) => Err(DevError::BinIncomplete { variable, bin, missing }),
            };
        }
    }
    let mut candidates = packaged();
    candidates.extend(first_line(OsStr::new("pg_config"), &["--bindir"]).await.map(PathBuf::from));
    candidates.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    candidates.into_iter().find(|bin| missing_in(bin).is_none()).ok_or_else(|| DevError::NotInstalled {
        looked:
            "/usr/lib/postgresql/*/bin, /usr/pgsql-*/bin, Homebrew's postgresql@*/bin, `pg_config --bindir` and PATH"
                .into(),
    })
}

/// The folders of Debian's, PostgreSQL's own and Homebrew's packages, newest version first.
fn packaged() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
            found.extend(version.map(|version| (version, entry.path().join("bin"))));
        }
    }
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, bin)| bin).collect()
}

async fn version_of(bin: &Path) -> Result<u32, DevError> {
    let said = first_line(bin.join("postgres").as_os_str(), &["--version"]).await.unwrap_or_default();
    match parse_version(&said) {
        Some(version) if version >= VERSION_MIN => Ok(version),
        _ => Err(DevError::Version { bin: bin.to_owned(), version: said }),
    }
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` → 15; also `18beta1`.
fn parse_version(said: &str) -> Option<u32> {
    let number = said.split_once("(PostgreSQL)")?.1.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_version("postgres: not found"), None);
    }
}
