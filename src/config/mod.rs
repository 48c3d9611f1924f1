//! Configuration: what is written (file, environment, flags) becomes one validated [`Config`], or a list of
//! every problem at once. Owns keys, defaults and limits; holds no live objects and connects to nothing.
//!
//! A flag wins over a `TIDEGATE_*` variable, which wins over the file. Every scalar key `section.key` has the
//! variable `TIDEGATE_SECTION_KEY`; [`KEYS`] lists them all.

mod admin;
mod admission;
mod balance;
mod clusters;
mod diff;
mod discovery;
mod flags;
mod health;
mod keys;
mod lanes;
mod problem;
mod raw;
mod read;
mod reload;
mod rollout;
#[cfg(test)]
mod rollout_tests;
mod rules;
mod runtime;
mod secret;
#[cfg(test)]
mod tests;
mod types;
mod units;
mod url;
mod validate;

use std::{collections::BTreeMap, io, path::Path};

pub use admin::AdminConfig;
pub use admission::LimitsConfig;
#[cfg(test)]
pub(crate) use admission::connections_min;
pub use balance::{BalanceConfig, BalancePolicyConfig, PlaceConfig};
pub use diff::{Change, changes};
pub use discovery::{DiscoveryConfig, DiscoveryRecord};
pub use flags::ServeFlags;
pub use health::HealthConfig;
pub use keys::{KEYS, Key};
pub use lanes::LanesConfig;
pub use problem::{Problem, Problems};
pub use reload::{Files, ReloadConfig, Source};
pub use rollout::RolloutConfig;
pub use rules::{RuleConfig, RuleConsistency};
pub use runtime::RuntimeConfig;
pub use secret::Secret;
pub use types::{
    ClusterConfig, Config, ConfiguredRole, ConsistencyConfig, DatabaseConfig, GrpcConfig, HostConfig, HttpConfig,
    ListenConfig, PoolConfig, ProbeConfig, ResultsConfig, SessionConfig, TimeoutsConfig, TokensConfig,
};
pub use units::{parse_bytes, parse_duration};
pub use url::{PostgresUrl, TlsMode};

/// Reads the configuration file (if one is named), the environment and the flags into a [`Config`].
///
/// `env` is the whole environment; only `TIDEGATE_*` is looked at. Besides the configuration file, the files
/// that hold secrets (`tokens.secret_file`, `password_file`) are read.
///
/// # Errors
/// Every problem found, each with its key and what to do.
pub fn load(flags: &ServeFlags, env: &BTreeMap<String, String>) -> Result<Config, Problems> {
    load_with(flags, env, &|path| std::fs::read_to_string(path))
}

/// [`load`] with the reading of files passed in: pure but for that.
fn load_with(
    flags: &ServeFlags,
    env: &BTreeMap<String, String>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let Some(raw) = raw::merge(flags, env, read_file, &mut problems) else { return Err(problems) };
    let config = validate::validate(raw, read_file, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}
