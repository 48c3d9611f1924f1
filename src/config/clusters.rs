//! Clusters, their hosts and the databases that callers may name: from `[[cluster]]` and `[[database]]`, or from
//! the short form `primary`, `replicas` and `hosts`.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{
    ClusterConfig, ConfiguredRole, DatabaseConfig, HostConfig, PlaceConfig, PostgresUrl, RolloutConfig, Secret,
    balance, discovery, read::Reader, rollout,
};

/// The cluster that the short form makes.
const SHORT_FORM_CLUSTER: &str = "main";
/// Hosts of one cluster, at most.
const HOSTS_MAX: usize = 64;
pub(super) const NAME_BYTES_MAX: usize = 63;

/// Reads all clusters. Each name is unique and each cluster has hosts, or a problem says so.
pub(super) fn clusters(reader: &mut Reader<'_>) -> Vec<ClusterConfig> {
    let password = reader.secret("password", "password_file");
    let short_form = ["primary", "replicas", "hosts"].into_iter().find(|key| reader.has(key));
    let written = std::mem::take(&mut reader.raw.clusters);
    let mut clusters = Vec::new();
    match (short_form, written.is_empty()) {
        (Some(key), false) => {
            reader.problems.add(key, "the file has [[cluster]] as well; give the hosts in one of the two ways");
        }
        (Some(_), true) => {
            let primary = reader.text("primary", None, |text| Ok(Some(text.to_owned())));
            let mut hosts = Hosts { prefix: String::new(), password, list: Vec::new() };
            hosts.add(reader, "primary", ConfiguredRole::Primary, primary.map(Value::String).iter());
            for (key, role) in [("replicas", ConfiguredRole::Replica), ("hosts", ConfiguredRole::Unstated)] {
                let urls: Vec<Value> = reader.list(key).into_iter().map(Value::String).collect();
                hosts.add(reader, key, role, urls.iter());
            }
            clusters.push(ClusterConfig { name: SHORT_FORM_CLUSTER.to_owned(), hosts: hosts.list, discovery: None });
        }
        (None, true) => {
            reader.problems.add("primary", "no host is given; write --primary URL, or a [[cluster]] in the file")
        }
        (None, false) => {
            for (index, table) in written.into_iter().enumerate() {
                clusters.push(cluster(reader, index, table, password.as_ref()));
            }
        }
    }
    check_clusters(reader, &clusters);
    clusters
}

fn cluster(reader: &mut Reader<'_>, index: usize, mut table: Table, password: Option<&Secret>) -> ClusterConfig {
    let prefix = format!("cluster[{index}]");
    let name = required_text(reader, &prefix, "name", &mut table);
    let own_password = match table.remove("password_file") {
        Some(Value::String(path)) => reader.secret_file(&format!("{prefix}.password_file"), &path),
        Some(_) => {
            reader.problems.add(format!("{prefix}.password_file"), "is text; write it in quotes");
            None
        }
        None => None,
    };
    let mut hosts =
        Hosts { prefix: format!("{prefix}."), password: own_password.or_else(|| password.cloned()), list: Vec::new() };
    let discovery = table.remove("discover").and_then(|value| {
        discovery::refuse_hosts(reader, &prefix, &table);
        discovery::read(reader, &prefix, value, hosts.password.as_ref())
    });
    if let Some(value) = table.remove("primary") {
        hosts.add(reader, "primary", ConfiguredRole::Primary, std::iter::once(&value));
    }
    for (key, role) in [("replicas", ConfiguredRole::Replica), ("hosts", ConfiguredRole::Unstated)] {
        match table.remove(key) {
            Some(Value::Array(items)) => hosts.add(reader, key, role, items.iter()),
            Some(_) => reader.problems.add(format!("{prefix}.{key}"), "is a list; write [\"postgres://…\", …]"),
            None => {}
        }
    }
    refuse_rest(reader, &prefix, &table, "name, primary, replicas, hosts, discover and password_file");
    ClusterConfig { name, hosts: hosts.list, discovery }
}

/// The hosts of one cluster while they are read.
struct Hosts {
    /// What stands before the key in problems: `cluster[0].`, or nothing.
    prefix: String,
    password: Option<Secret>,
    list: Vec<HostConfig>,
}

impl Hosts {
    /// Adds hosts; each is a URL, or a table `{ name, url, pooler, weight, zone }`.
    fn add<'v>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &str,
        role: ConfiguredRole,
        values: impl Iterator<Item = &'v Value>,
    ) {
        for (index, value) in values.enumerate() {
            let key = match role {
                ConfiguredRole::Primary => format!("{}{key}", self.prefix),
                _ => format!("{}{key}[{index}]", self.prefix),
            };
            let (name, url, pooler, place) = match value {
                Value::String(url) => (None, url.clone(), None, PlaceConfig::default()),
                Value::Table(table) => {
                    let mut table = table.clone();
                    let name = required_text(reader, &key, "name", &mut table);
                    let url = required_text(reader, &key, "url", &mut table);
                    let pooler =
                        table.contains_key("pooler").then(|| required_text(reader, &key, "pooler", &mut table));
                    let place = balance::place(reader, &key, &mut table);
                    refuse_rest(reader, &key, &table, "name, url, pooler, weight and zone");
                    (Some(name), url, pooler, place)
                }
                _ => {
                    reader.problems.add(key, "is a URL; write \"postgres://user@host:5432/dbname\"");
                    continue;
                }
            };
            // A missing url is a problem already.
            if url.is_empty() && name.is_some() {
                continue;
            }
            match PostgresUrl::parse(url.trim()) {
                Ok(mut url) => {
                    url.password = url.password.or_else(|| self.password.clone());
                    let name = name.filter(|name| !name.is_empty()).unwrap_or_else(|| url.address());
                    let pooler = pooler.and_then(|pooler| self.pooler(reader, &key, &pooler, &url));
                    self.list.push(HostConfig { name, configured_role: role, url, ip: None, pooler, place });
                }
                Err(message) => reader.problems.add(key, message),
            }
        }
    }

    /// The proxy in front of a host. What it leads to is held against what the host itself says, so it must log in alike.
    fn pooler(&self, reader: &mut Reader<'_>, key: &str, text: &str, url: &PostgresUrl) -> Option<PostgresUrl> {
        // A missing text is a problem already.
        if text.is_empty() {
            return None;
        }
        let key = format!("{key}.pooler");
        let mut pooler = match PostgresUrl::parse(text.trim()) {
            Ok(pooler) => pooler,
            Err(message) => {
                reader.problems.add(key, message);
                return None;
            }
        };
        if pooler.user != url.user || pooler.dbname != url.dbname {
            reader.problems.add(key, "names another user or database than url; write the same ones");
        } else if pooler.address().eq_ignore_ascii_case(&url.address()) {
            reader
                .problems
                .add(key, "is url itself, which must lead to the server past the proxy; correct one of them");
        }
        pooler.password = pooler.password.or_else(|| url.password.clone());
        Some(pooler)
    }
}

/// Through a transaction-pooling proxy nothing can be kept prepared.
pub(super) fn refuse_poolers(reader: &mut Reader<'_>, clusters: &[ClusterConfig]) {
    if let Some(host) = clusters.iter().flat_map(|cluster| &cluster.hosts).find(|host| host.pooler.is_some()) {
        let message = format!("must be off: host `{}` has a pooler, which keeps nothing prepared", host.name);
        reader.problems.add("pool.prepared_statements", message);
    }
}

fn check_clusters(reader: &mut Reader<'_>, clusters: &[ClusterConfig]) {
    let mut names = BTreeSet::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let key = format!("cluster[{index}]");
        check_name(reader, &format!("{key}.name"), &cluster.name);
        if !cluster.name.is_empty() && !names.insert(&cluster.name) {
            reader.problems.add(format!("{key}.name"), format!("`{}` is taken by another cluster", cluster.name));
        }
        // Only when no URL was wrong, or the count says nothing.
        if cluster.hosts.is_empty() && cluster.discovery.is_none() && reader.problems.is_empty() {
            reader
                .problems
                .add(&key, "has no host; write primary = \"postgres://…\" and replicas, or hosts, or discover");
        }
        if cluster.hosts.len() > HOSTS_MAX {
            reader.problems.add(&key, format!("has {} hosts; at most {HOSTS_MAX} are possible", cluster.hosts.len()));
        }
        let mut seen = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for host in &cluster.hosts {
            if !addresses.insert(host.url.address().to_ascii_lowercase()) {
                reader.problems.add(&key, format!("has {} twice; remove one", host.url.address()));
            } else if !seen.insert(&host.name) {
                reader.problems.add(&key, format!("has two hosts called `{}`; rename one", host.name));
            }
            if host.name != host.url.address() {
                check_name(reader, &format!("{key}: host name"), &host.name);
            }
        }
    }
}

/// Reads the databases; makes one for every cluster that has none, from the database that its URLs name.
pub(super) fn databases(
    reader: &mut Reader<'_>,
    clusters: &[ClusterConfig],
) -> (Vec<DatabaseConfig>, Vec<RolloutConfig>) {
    let mut databases: Vec<DatabaseConfig> = Vec::new();
    let mut rollouts = Vec::new();
    for (index, mut table) in std::mem::take(&mut reader.raw.databases).into_iter().enumerate() {
        let key = format!("database[{index}]");
        let name = required_text(reader, &key, "name", &mut table);
        check_name(reader, &format!("{key}.name"), &name);
        let cluster = match (table.contains_key("cluster"), clusters) {
            (false, [only]) => only.name.clone(),
            _ => required_text(reader, &key, "cluster", &mut table),
        };
        let dbname = match table.contains_key("dbname") {
            true => required_text(reader, &key, "dbname", &mut table),
            false => name.clone(),
        };
        let database = DatabaseConfig { name, cluster, dbname };
        let rollout = rollout::take(reader, &key, &mut table, &database);
        let known = "name, cluster, dbname, own_cluster, own_dbname, own_percentage, use_own and reuse_primary";
        refuse_rest(reader, &key, &table, known);
        let DatabaseConfig { name, cluster, .. } = &database;
        if !cluster.is_empty() && !clusters.iter().any(|known| known.name == *cluster) {
            reader
                .problems
                .add(format!("{key}.cluster"), format!("there is no cluster `{cluster}`; add a [[cluster]]"));
        }
        if databases.iter().any(|other| other.name == *name) {
            reader.problems.add(format!("{key}.name"), format!("`{name}` is taken by another database"));
        }
        rollouts.extend(rollout);
        databases.push(database);
    }
    for cluster in clusters {
        let is_moved_to = rollouts.iter().any(|rollout| rollout.cluster == cluster.name);
        let is_named = databases.iter().any(|database| database.cluster == cluster.name);
        if is_named || is_moved_to || cluster.urls().next().is_none() {
            continue;
        }
        let named: BTreeSet<&str> = cluster.urls().map(|url| url.dbname.as_str()).collect();
        let only = named.iter().next().filter(|name| named.len() == 1 && is_name(name)).map(|name| (*name).to_owned());
        match only {
            Some(name) if !databases.iter().any(|other| other.name == name) => {
                databases.push(DatabaseConfig { dbname: name.clone(), name, cluster: cluster.name.clone() });
            }
            _ => reader.problems.add(
                "database",
                format!("cluster `{}` needs a [[database]]: its URLs do not give one name that is free", cluster.name),
            ),
        }
    }
    rollout::check(reader, clusters, &databases, &mut rollouts);
    (databases, rollouts)
}

pub(super) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(plain)
}

/// An empty name is a problem already: it is what a missing one reads as.
fn check_name(reader: &mut Reader<'_>, key: &str, name: &str) {
    if !name.is_empty() && !is_name(name) {
        let message = format!("`{name}` is not a name; use at most {NAME_BYTES_MAX} of A-Z a-z 0-9 _ . -");
        reader.problems.add(key, message);
    }
}

/// Takes a text that must be there and not empty; empty if it is not, which is noted.
pub(super) fn required_text(reader: &mut Reader<'_>, prefix: &str, key: &str, table: &mut Table) -> String {
    match table.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => return text,
        Some(_) => reader.problems.add(format!("{prefix}.{key}"), "is text and not empty; write it in quotes"),
        None => reader.problems.add(format!("{prefix}.{key}"), format!("is missing; write {key} = \"…\"")),
    }
    String::new()
}

pub(super) fn refuse_rest(reader: &mut Reader<'_>, prefix: &str, table: &Table, known: &str) {
    for key in table.keys() {
        reader.problems.add(format!("{prefix}.{key}"), format!("no such key; known are {known}"));
    }
}
