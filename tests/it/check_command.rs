//! `tidegate check` says what each host is, and its exit code says whether all is well.

use std::{process::Output, time::Duration};

use serde_json::Value;
use tidegate::dev::{Cluster, ClusterOptions};
use tokio::process::Command;

/// A whole program may take longer than one thing that a test awaits: its own bounds are to show first.
pub const PROGRAM_PATIENCE: Duration = Duration::from_secs(180);

/// Runs the program to its end.
pub async fn tidegate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEGATE_") && !name.contains("_PG_")) {
        command.env_remove(name); // the configuration is in the arguments alone
    }
    let ended = tokio::time::timeout(PROGRAM_PATIENCE, command.args(args).kill_on_drop(true).output());
    ended.await.expect("the program ends").expect("the program starts")
}

/// Runs `check --json` with one primary and its replicas: the exit code, and the document.
async fn check(primary: &str, replicas: &[&str]) -> (i32, Value) {
    let mut args = vec!["check", "--json", "--primary", primary];
    args.extend(replicas.iter().flat_map(|url| ["--replica", url]));
    let output = tidegate(&args).await;
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains("tidegate@"), "a password or a URL in {text}");
    let document = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.code().expect("an exit code"), document)
}

/// The names of what was found about a host, then about the cluster.
fn findings(document: &Value, host: usize) -> Vec<&str> {
    let cluster = &document["clusters"][0];
    let lists = [&cluster["hosts"][host]["findings"], &cluster["findings"]];
    let all = lists.into_iter().flat_map(|list| list.as_array().expect("a list"));
    all.map(|finding| finding["name"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_good_hosts_from_bad_ones() {
    let cluster = Cluster::start(ClusterOptions::default()).await.expect("the cluster starts");
    let (primary, first, second) = (cluster.primary().url(), cluster.replica(0).url(), cluster.replica(1).url());

    let (code, document) = check(&primary, &[&first, &second]).await;
    assert_eq!((code, &document["ok"]), (0, &Value::Bool(true)), "{document}");
    let hosts = document["clusters"][0]["hosts"].as_array().expect("hosts");
    let roles: Vec<_> = hosts.iter().map(|host| host["actual_role"].as_str()).collect();
    assert_eq!(roles, [Some("primary"), Some("replica"), Some("replica")]);
    assert!(hosts.iter().all(|host| host["timeline"] == 1 && host["pg_monitor"] == true), "{document}");
    assert!(hosts[1]["lag_bytes"].is_u64(), "{document}");

    // The two names exchanged.
    let (code, document) = check(&first, &[&primary]).await;
    assert_eq!((code, findings(&document, 0), findings(&document, 1)), (1, vec!["wrong-role"], vec!["wrong-role"]));

    // One server under two names: past the proxy, and through it.
    let (code, document) = check(&primary, &[&first, &cluster.replica(0).direct_url()]).await;
    assert_eq!((code, findings(&document, 2)), (1, vec!["same-server-twice"]));

    // A role that may not see a replica's timeline.
    let role = "CREATE ROLE outsider LOGIN PASSWORD 'outsider'";
    cluster.primary().sql(role).await.expect("the role is created");
    cluster.replica(0).catch_up(cluster.primary()).await.expect("the replica catches up");
    let as_outsider = |url: &str| url.replace("tidegate:tidegate@", "outsider:outsider@");
    let (code, document) = check(&as_outsider(&primary), &[&as_outsider(&first)]).await;
    assert_eq!((code, findings(&document, 0)), (1, vec!["not-in-pg-monitor"]));
    let message = document["clusters"][0]["hosts"][0]["findings"][0]["message"].as_str().expect("a message");
    assert!(message.contains(r#"GRANT pg_monitor TO "outsider";"#), "{message}");
    assert!(!document.to_string().contains("outsider:outsider"), "{document}");

    // A server of another cluster.
    let stranger = Cluster::start(ClusterOptions { replicas: 0, name: "stranger".into(), ..ClusterOptions::default() });
    let stranger = stranger.await.expect("the other cluster starts");
    let (code, document) = check(&primary, &[&stranger.primary().url()]).await;
    let expected = vec!["wrong-role", "wrong-system-identifier", "several-primaries"];
    assert_eq!((code, findings(&document, 1)), (1, expected));

    cluster.replica(1).kill().await.expect("the replica dies");
    let (code, document) = check(&primary, &[&first, &second]).await;
    assert_eq!((code, findings(&document, 1), findings(&document, 2)), (1, vec![], vec!["unreachable"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_refuses_a_wrong_configuration() {
    let output = tidegate(&["check", "--primary", "not a URL", "--log-format", "xml"]).await;
    assert_eq!(output.status.code(), Some(2));
    let problems = String::from_utf8(output.stderr).expect("text");
    assert!(problems.contains("primary") && problems.contains("telemetry.log_format"), "{problems}");
    let output = tidegate(&["check", "--init", "--statement", "SELECT 1"]).await;
    let problems = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.code() == Some(2) && problems.contains("cannot be used with"), "{problems}");
}
