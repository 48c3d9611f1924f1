//! What our servers are configured with: the text of `tidegate.conf` and of `pg_hba.conf`.

use super::cluster::{SUPERUSER, USER};

/// The file beside `postgresql.conf` that holds our settings; ALTER SYSTEM's file is read after it and wins.
pub(super) const FILE: &str = "tidegate.conf";

/// Settings of every server. The comments of PostgreSQL's documentation are not repeated; the reasons for ours are.
const COMMON: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("wal_level", "replica"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "10"),
    // A replica that was stopped for a while catches up without a slot.
    ("wal_keep_size", "512MB"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "off"),
    // A replica asks again soon after its primary came back (PostgreSQL's own default: 5 s).
    ("wal_retrieve_retry_interval", "100ms"),
    // Inside the data folder, so that a killed server leaves nothing in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    // The titles of processes carry cluster_name: how they are known to be ours.
    ("update_process_title", "on"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] "),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("jit", "off"),
];

/// The text of `tidegate.conf`. `durable` is for data that is kept; later entries of the same name win.
pub(super) fn render(durable: bool, extra: &[(String, String)]) -> String {
    let fsync = if durable { "on" } else { "off" };
    let ours = COMMON.iter().copied().chain([("fsync", fsync)]);
    let extra = extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    ours.chain(extra).map(|(name, value)| format!("{name} = {}\n", quote(value))).collect()
}

/// The text of `pg_hba.conf`: the service's role proves its password, everybody else on this machine is trusted.
pub(super) fn host_based_access() -> String {
    format!(
        "host replication {SUPERUSER} 127.0.0.1/32 trust\n\
         host all {USER} 127.0.0.1/32 scram-sha-256\n\
         host all all 127.0.0.1/32 trust\n"
    )
}

/// A value as configuration files write it.
pub(super) fn quote(value: &str) -> String {
    literal(&value.replace('\\', "\\\\"))
}

/// A string as SQL writes it.
pub(super) fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// How a replica reaches its primary: the server itself, not the proxy, whose faults are for clients.
pub(super) fn primary_conninfo(port: u16, replica: &str) -> String {
    format!("host=127.0.0.1 port={port} user={SUPERUSER} application_name={replica}")
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn later_settings_win_and_quotes_are_doubled() {
        let text = render(false, &[("jit".into(), "it's".into())]);
        assert!(text.ends_with("fsync = 'off'\njit = 'it''s'\n"), "{text}");
    }
}
