//! Reading the configuration again while the broker runs: from where it came at the start, noticing when a file of it has
//! changed.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::PathBuf,
};

use super::{Config, Problems, ServeFlags, load_with, read::Reader};

/// How a reload is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReloadConfig {
    /// Whether a change of the files is one; SIGHUP always is.
    pub watch: bool,
}

pub(super) fn reload(reader: &mut Reader<'_>) -> ReloadConfig {
    let watch = reader.text("reload.watch", false, |text| match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is neither; write on or off")),
    });
    ReloadConfig { watch }
}

/// Where the configuration comes from: the flags and the environment of the start, and the files as they are now.
pub struct Source {
    flags: ServeFlags,
    env: BTreeMap<String, String>,
}

impl Source {
    /// Of these flags and this environment, which do not change any more.
    #[must_use]
    pub fn new(flags: ServeFlags, env: BTreeMap<String, String>) -> Source {
        Source { flags, env }
    }

    /// Reads everything anew, the files with secrets too; see [`super::load`]. The second value tells later whether a file
    /// that was read has changed, also when the configuration is wrong. Blocks for as long as reading files does.
    pub fn load(&self) -> (Result<Config, Problems>, Files) {
        let files = RefCell::new(BTreeMap::new());
        let loaded = load_with(&self.flags, &self.env, &|path| {
            let read = std::fs::read_to_string(path);
            files.borrow_mut().insert(path.to_owned(), hash(&read));
            read
        });
        (loaded, Files(files.into_inner()))
    }
}

// By hand: the environment holds secrets.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("flags", &self.flags).finish_non_exhaustive()
    }
}

/// The files that a configuration was read from, each with a hash of what it held then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, u64>);

impl Files {
    /// The same files as they are now. They are small, so all are read: a link may lead elsewhere, a folder may have been
    /// replaced, and a file may have changed without a trace in its time and size. Blocks for as long as that takes.
    #[must_use]
    pub fn now(&self) -> Files {
        Files(self.0.keys().map(|path| (path.clone(), hash(&std::fs::read_to_string(path)))).collect())
    }
}

/// That it cannot be read is as good a content as any other.
fn hash(read: &io::Result<String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    read.as_ref().ok().hash(&mut hasher);
    hasher.finish()
}
