//! `[balance]`, and what a host's table says of its part in the calls: `weight` and `zone`.

use toml::{Table, Value};

use super::{clusters, read::Reader};

/// The weight of a host of which nothing else is said.
const DEFAULT_WEIGHT: u16 = 100;
const WEIGHT_MAX: u16 = 1000;

/// How reads are shared among the replicas that may take them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BalanceConfig {
    /// How one of them is chosen.
    pub policy: BalancePolicyConfig,
    /// The zone that the broker runs in: its hosts are preferred. None: zones do not matter.
    pub zone: Option<String>,
}

/// How a host is chosen among those that may take a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BalancePolicyConfig {
    /// In turns, by weight.
    #[default]
    RoundRobin,
    /// By two choices: the one with fewer calls in flight for its weight.
    LeastLoaded,
}

/// A host's part in its cluster's calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceConfig {
    /// 0 to 1000, beside the others'; 0: only when nothing else will do.
    pub weight: u16,
    /// The zone that it is in, if one was given.
    pub zone: Option<String>,
    /// Hosts of a lower number come first; only discovery sets it.
    pub priority: u16,
}

impl Default for PlaceConfig {
    fn default() -> Self {
        Self { weight: DEFAULT_WEIGHT, zone: None, priority: 0 }
    }
}

/// Reads `[balance]`.
pub(super) fn balance(reader: &mut Reader<'_>) -> BalanceConfig {
    let default = BalanceConfig::default();
    BalanceConfig {
        policy: reader.text("balance.policy", default.policy, |text| match text {
            "round-robin" => Ok(BalancePolicyConfig::RoundRobin),
            "least-loaded" => Ok(BalancePolicyConfig::LeastLoaded),
            _ => Err(format!("`{text}` is not a policy; write round-robin or least-loaded")),
        }),
        zone: reader.text("balance.zone", default.zone, |text| zone(text).map(Some)),
    }
}

/// Takes a host's weight and zone out of its table. What is wrong is noted under `key` and the default used.
pub(super) fn place(reader: &mut Reader<'_>, key: &str, table: &mut Table) -> PlaceConfig {
    let mut place = PlaceConfig::default();
    match table.remove("weight") {
        None => {}
        Some(Value::Integer(weight)) if (0..=i64::from(WEIGHT_MAX)).contains(&weight) => place.weight = weight as u16,
        Some(_) => reader.problems.add(format!("{key}.weight"), format!("is a whole number from 0 to {WEIGHT_MAX}")),
    }
    match table.remove("zone") {
        None => {}
        Some(Value::String(text)) => match zone(&text) {
            Ok(zone) => place.zone = Some(zone),
            Err(message) => reader.problems.add(format!("{key}.zone"), message),
        },
        Some(_) => reader.problems.add(format!("{key}.zone"), "is text; write it in quotes"),
    }
    place
}

fn zone(text: &str) -> Result<String, String> {
    if clusters::is_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is not a name; use at most {} of A-Z a-z 0-9 _ . -", clusters::NAME_BYTES_MAX))
}
