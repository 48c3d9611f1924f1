//! `discover` of a `[[cluster]]`: its hosts found by DNS instead of listed.

use std::{net::SocketAddr, time::Duration};

use toml::{Table, Value};

use super::{PostgresUrl, Secret, clusters::refuse_rest, read::Reader, units};

const KNOWN: &str = "url, record, nameserver, tcp, interval and timeout";

/// How a cluster's hosts are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// How to log in to each of them; its host is the name that is looked up, its port that of hosts whose record has none.
    pub url: PostgresUrl,
    /// The records that name them.
    pub record: DiscoveryRecord,
    /// The name server; None: the system's.
    pub nameserver: Option<SocketAddr>,
    /// Ask by TCP alone.
    pub tcp: bool,
    /// The longest time between two look-ups.
    pub interval: Duration,
    /// For one try of one question.
    pub timeout: Duration,
}

/// Records that name hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryRecord {
    /// A and AAAA.
    Address,
    /// A.
    A,
    /// AAAA.
    Aaaa,
    /// SRV.
    Srv,
}

/// The kind that a table names; addresses, if it names none.
fn record(value: Option<&Value>, wrong: &mut impl FnMut(&str, String)) -> Option<DiscoveryRecord> {
    match value.map(Value::as_str) {
        None | Some(Some("address")) => Some(DiscoveryRecord::Address),
        Some(Some("a")) => Some(DiscoveryRecord::A),
        Some(Some("aaaa")) => Some(DiscoveryRecord::Aaaa),
        Some(Some("srv")) => Some(DiscoveryRecord::Srv),
        Some(_) => {
            wrong(
                "record",
                "is a kind of DNS records; write \"address\" (A and AAAA), \"a\", \"aaaa\" or \"srv\"".into(),
            );
            None
        }
    }
}

/// Reads the table; None if something is wrong with it, which is noted.
pub(super) fn read(
    reader: &mut Reader<'_>,
    prefix: &str,
    value: Value,
    password: Option<&Secret>,
) -> Option<DiscoveryConfig> {
    let key = format!("{prefix}.discover");
    let Value::Table(mut table) = value else {
        let example = "{ url = \"postgres://user@db.example.org/dbname\", record = \"srv\" }";
        reader.problems.add(key, format!("is a table; write {example}"));
        return None;
    };
    let mut wrong = |field: &str, message: String| reader.problems.add(format!("{key}.{field}"), message);
    let url = match table.remove("url") {
        Some(Value::String(text)) => PostgresUrl::parse(text.trim()).map_err(|message| wrong("url", message)).ok(),
        _ => {
            wrong(
                "url",
                "is missing; write url = \"postgres://user@NAME/dbname\" with the DNS name as its host".into(),
            );
            None
        }
    };
    let url = url.filter(|url| {
        let is_name = !url.host.starts_with('/') && url.host.parse::<std::net::IpAddr>().is_err();
        if !is_name {
            wrong("url", "names an address; its host is the DNS name to look up".into());
        }
        is_name
    });
    let record = record(table.remove("record").as_ref(), &mut wrong);
    let nameserver = table.remove("nameserver").and_then(|value| {
        let address = value
            .as_str()
            .and_then(|text| text.parse().ok().or_else(|| text.parse().ok().map(|ip| SocketAddr::new(ip, 53))));
        if address.is_none() {
            wrong("nameserver", format!("{value} is not an address; write such as \"10.0.0.2\" or \"10.0.0.2:5353\""));
        }
        address
    });
    let tcp = table.remove("tcp").is_some_and(|value| {
        let tcp = value.as_bool();
        if tcp.is_none() {
            wrong("tcp", "is true or false".into());
        }
        tcp.unwrap_or(false)
    });
    let mut duration = |name: &str, default: u64, least: Duration, most: Duration| {
        let Some(value) = table.remove(name) else { return Duration::from_secs(default) };
        let parsed = match value.as_str().map(units::parse_duration) {
            Some(Ok(duration)) if (least..=most).contains(&duration) => return duration,
            Some(Err(message)) => message,
            _ => {
                let (least, most) = (units::show_duration(least), units::show_duration(most));
                format!("{value} is not a duration from {least} to {most}; write such as \"30s\"")
            }
        };
        wrong(name, parsed);
        Duration::from_secs(default)
    };
    let interval = duration("interval", 30, Duration::from_millis(100), Duration::from_secs(86_400));
    let timeout = duration("timeout", 2, Duration::from_millis(10), Duration::from_secs(60));
    refuse_rest(reader, &key, &table, KNOWN);
    let mut url = url?;
    url.password = url.password.or_else(|| password.cloned());
    Some(DiscoveryConfig { url, record: record?, nameserver, tcp, interval, timeout })
}

/// The cluster's other host keys beside `discover`.
pub(super) fn refuse_hosts(reader: &mut Reader<'_>, prefix: &str, table: &Table) {
    if let Some(key) = ["primary", "replicas", "hosts"].into_iter().find(|key| table.contains_key(*key)) {
        let message = "the cluster has discover as well; give the hosts in one of the two ways";
        reader.problems.add(format!("{prefix}.{key}"), message);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::config::{Config, Problems, ServeFlags, load_with};

    fn load(keys: &str) -> Result<Config, Problems> {
        let file = format!("password = \"hunter2\"\n[[cluster]]\nname = \"shop\"\n{keys}");
        let flags = ServeFlags { config: Some("tidegate.toml".into()), ..ServeFlags::default() };
        load_with(&flags, &BTreeMap::new(), &|_: &Path| Ok(file.clone()))
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = load("discover = { url = \"postgres://ann@db.example/app\" }").expect("a configuration");
        let cluster = &config.clusters[0];
        let discovery = cluster.discovery.as_ref().expect("it discovers");
        assert_eq!((discovery.record, discovery.nameserver, discovery.tcp), (DiscoveryRecord::Address, None, false));
        assert_eq!((discovery.interval.as_secs(), discovery.timeout.as_secs()), (30, 2));
        assert_eq!(discovery.url.password.as_ref().map(Secret::expose), Some("hunter2"), "the password for every URL");
        assert!(cluster.hosts.is_empty());
        assert_eq!((config.databases[0].name.as_str(), config.databases[0].cluster.as_str()), ("app", "shop"));
        let all = "discover = { url = \"postgres://ann@_pg._tcp.example:6000/app\", record = \"srv\", \
                   nameserver = \"10.0.0.2\", tcp = true, interval = \"5s\", timeout = \"100ms\" }";
        let discovery = load(all).expect("a configuration").clusters.remove(0).discovery.expect("it discovers");
        assert_eq!((discovery.url.host.as_str(), discovery.url.port), ("_pg._tcp.example", 6000));
        assert_eq!((discovery.record, discovery.tcp), (DiscoveryRecord::Srv, true));
        assert_eq!(discovery.nameserver, "10.0.0.2:53".parse().ok());
    }

    #[test]
    fn every_mistake_is_named() {
        let url = "url = \"postgres://ann@db/app\"";
        for (keys, key, says) in [
            ("discover = \"db\"".to_owned(), "discover", "is a table"),
            ("discover = { record = \"a\" }".to_owned(), "discover.url", "is missing"),
            ("discover = { url = \"postgres://ann@10.0.0.1/app\" }".to_owned(), "discover.url", "DNS name"),
            (format!("discover = {{ {url}, record = \"mx\" }}"), "discover.record", "\"srv\""),
            (format!("discover = {{ {url}, nameserver = \"here\" }}"), "discover.nameserver", "10.0.0.2:5353"),
            (format!("discover = {{ {url}, tcp = 1 }}"), "discover.tcp", "true or false"),
            (format!("discover = {{ {url}, interval = \"1ms\" }}"), "discover.interval", "100ms to"),
            (format!("discover = {{ {url}, timeout = 3 }}"), "discover.timeout", "such as"),
            (format!("discover = {{ {url}, ttl = 3 }}"), "discover.ttl", "no such key"),
            (format!("discover = {{ {url} }}\nhosts = [\"postgres://u@h/d\"]"), "hosts", "one of the two ways"),
        ] {
            let problems = load(&keys).map(drop).expect_err(&keys);
            let expected = format!("cluster[0].{key}");
            let found = problems.iter().any(|problem| problem.key == expected && problem.message.contains(says));
            assert!(found, "{keys}: {expected} says {says}: {problems:?}");
        }
    }
}
