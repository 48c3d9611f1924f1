//! What can go wrong with a local cluster, each with what to do about it.

use std::{io, path::PathBuf, time::Duration};

/// A failure of a local PostgreSQL cluster or of a proxy in front of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// No folder with PostgreSQL's server programs was found.
    #[error(
        "PostgreSQL's server programs (initdb, postgres, pg_basebackup, pg_ctl, psql) were not found; looked at {looked}. \
         Install PostgreSQL 15 or newer (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install \
         postgresql-server postgresql-contrib`; macOS: `brew install postgresql@17`), or set TIDEGATE_PG_BIN to the folder \
         that has initdb"
    )]
    NotInstalled {
        /// The places that were looked at.
        looked: String,
    },
    /// The folder that the environment names lacks a program.
    #[error(
        "{variable} says {bin}, but there is no {missing} in it: set it to the folder that has PostgreSQL's server programs"
    )]
    BinIncomplete {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        bin: PathBuf,
        /// The first program that is not there.
        missing: &'static str,
    },
    /// The version is not one of those that work, or could not be read.
    #[error(
        "the PostgreSQL in {bin} says `{version}`: version 15 or newer is needed (set TIDEGATE_PG_BIN to choose another)"
    )]
    Version {
        /// The folder of the programs.
        bin: PathBuf,
        /// What `postgres --version` said.
        version: String,
    },
    /// There is no PgBouncer.
    #[error(
        "PgBouncer was not found in PATH, /usr/sbin or /usr/local/sbin: install it (Debian, Ubuntu: `apt-get install pgbouncer`)"
    )]
    NoPgBouncer,
    /// NSD, a name server, is not installed.
    #[error(
        "NSD was not found in PATH, /usr/sbin or /usr/local/sbin: install it (Debian, Ubuntu: `apt-get install nsd`)"
    )]
    NoNameServer,
    /// We are root, and there is no user to run PostgreSQL as.
    #[error(
        "PostgreSQL refuses to run as root, and there is no user `{name}` to run it as: create one (`useradd --system \
         {name}`), name another in TIDEGATE_PG_USER, or run as an ordinary user"
    )]
    NoOsUser {
        /// The user that was looked for.
        name: String,
    },
    /// An operating system call failed.
    #[error("could not {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed: {output}")]
    Program {
        /// The program's name.
        program: String,
        /// What it wrote to its standard error.
        output: String,
    },
    /// A server's process ended while it was starting.
    #[error("PostgreSQL server `{server}` ended while starting; the end of its log:\n{log}")]
    NotStarted {
        /// The server's name.
        server: String,
        /// The last lines of its log.
        log: String,
    },
    /// A statement failed, or the server could not be reached.
    #[error("SQL on `{server}` failed: {message}")]
    Sql {
        /// The server's name.
        server: String,
        /// What psql wrote.
        message: String,
    },
    /// An answer was not what the question allows.
    #[error("`{server}` answered {question} with {answer:?}")]
    Answer {
        /// The server's name.
        server: String,
        /// What was asked.
        question: &'static str,
        /// What came.
        answer: String,
    },
    /// Something did not happen within its bound.
    #[error("{what} did not happen within {bound:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        bound: Duration,
    },
    /// The server is not running.
    #[error("server `{server}` is not running: start it first")]
    NotRunning {
        /// The server's name.
        server: String,
    },
    /// The server is running.
    #[error("server `{server}` is running already: stop it first")]
    Running {
        /// The server's name.
        server: String,
    },
    /// The process is not one of the server's, so it gets no signal.
    #[error("process {pid} does not belong to server `{server}`: nothing was signalled")]
    NotOurs {
        /// The process.
        pid: i32,
        /// The server's name.
        server: String,
    },
    /// The data folder's servers are running.
    #[error(
        "the data folder {folder} is in use by process {pid}: stop the other `tidegate dev`, or choose another folder"
    )]
    FolderInUse {
        /// The server's data folder.
        folder: PathBuf,
        /// Its postmaster.
        pid: i32,
    },
    /// The data folder holds something else.
    #[error("the folder {folder} is not empty and was not made by `tidegate dev`: choose an empty or a new one")]
    FolderForeign {
        /// The folder.
        folder: PathBuf,
    },
    /// The data folder was made by another PostgreSQL.
    #[error(
        "the folder {folder} was made by PostgreSQL {found}, and this is {installed}: choose another folder, or set \
         TIDEGATE_PG_BIN to version {found}"
    )]
    FolderVersion {
        /// The server's data folder.
        folder: PathBuf,
        /// The version that made it.
        found: String,
        /// The version that was found installed.
        installed: u32,
    },
    /// The user that runs PostgreSQL cannot use the folder.
    #[error(
        "the user `{user}`, who runs PostgreSQL since root may not, cannot write to {folder}: choose a folder below one that \
         everybody may enter, such as /var/tmp"
    )]
    FolderUnreachable {
        /// The folder.
        folder: PathBuf,
        /// The user.
        user: String,
    },
    /// No port could be had.
    #[error("no free TCP port was found on 127.0.0.1 in {tries} tries")]
    NoPort {
        /// How many were tried.
        tries: usize,
    },
}

impl DevError {
    /// For `map_err`: an operating system's error with what was tried.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
