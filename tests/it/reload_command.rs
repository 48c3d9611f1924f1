//! `tidegate serve` reads its configuration anew: at a signal, and when a file of it has changed.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::process::Signal;
use tidegate_client::Client;

use crate::{
    asking::ask,
    command_line::{Served, cluster, until_ready},
    harness::{poll_until, within},
};

/// More than most machines have cores.
const THREADS: usize = 80;

/// As a cluster's orchestrator lays files out: `config.toml` leads through a link that is exchanged as a whole.
fn publish(folder: &Path, version: u32, config: &str, password: &str) {
    let data = folder.join(format!("version-{version}"));
    fs::create_dir(&data).expect("a folder");
    fs::write(data.join("config.toml"), config).expect("a file");
    fs::write(data.join("password"), password).expect("a file");
    let link = folder.join("new");
    symlink(&data, &link).expect("a link");
    fs::rename(&link, folder.join("current")).expect("it is exchanged");
}

async fn serves(url: &str, database: &str) -> bool {
    let client = Client::builder().database(database).connect(url).await.expect("the broker accepts connections");
    ask(&client, "SELECT 1").await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_and_a_changed_file_reload_and_a_bad_file_changes_nothing_and_says_why() {
    let (cluster, url) = cluster().await;
    let (scheme, rest) = url.split_once("://").expect("a URL");
    let (login, place) = rest.split_once('@').expect("a login");
    let (user, password) = login.split_once(':').expect("a password");
    let folder = cluster.folder().join("configuration");
    fs::create_dir(&folder).expect("a folder");
    let at = |name: &str| folder.join("current").join(name).to_str().expect("a path").to_owned();
    let config = |databases: &[&str], more: &str| {
        let mut text = format!(
            "primary = \"{scheme}://{user}@{place}\"\npassword_file = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
             [runtime]\nthreads = {THREADS}\n{more}\n",
            at("password")
        );
        for name in databases {
            text += &format!("[[database]]\nname = \"{name}\"\ndbname = \"{}\"\n", tidegate::dev::DATABASE);
        }
        text
    };
    publish(&folder, 1, &config(&["one"], ""), password);
    let served = Served::run(&["serve", "--config", &at("config.toml"), "--grpc-listen", "127.0.0.1:0"]).await;
    until_ready(&served.client().await).await;
    assert!(served.threads() > THREADS, "{} threads", served.threads());

    // At a signal: also a password that has changed in its file and on the server.
    let changed = "a-password-of-its-own";
    let alter = format!("ALTER ROLE {} PASSWORD '{changed}'", tidegate::dev::USER);
    cluster.primary().sql(&alter).await.expect("the password is changed");
    publish(&folder, 2, &config(&["one", "two"], "[telemetry]\nlog_level = \"debug\""), changed);
    served.signal(Signal::HUP);
    poll_until("the second database is served", async || serves(served.url(), "two").await).await;
    assert!(serves(served.url(), "one").await);
    poll_until("it says what has changed", async || {
        served.has_logged("database two: added") && served.has_logged("has another login")
    })
    .await;
    poll_until("the log level has changed", async || served.has_logged("DEBUG")).await;

    // What is wrong changes nothing and is named; so does what takes a restart.
    publish(&folder, 3, &config(&["two"], "[pool]\nmax_queue = \"lots\""), changed);
    served.signal(Signal::HUP);
    poll_until("it says why", async || served.has_logged("pool.max_queue")).await;
    publish(&folder, 4, &config(&["two"], "[consistency]\nslots = 4096"), changed);
    served.signal(Signal::HUP);
    poll_until("it says why", async || served.has_logged("consistency.slots")).await;
    assert!(serves(served.url(), "one").await && serves(served.url(), "two").await);

    // Watched: from the reload on that switches it on.
    publish(&folder, 5, &config(&["one"], "[reload]\nwatch = \"on\""), changed);
    served.signal(Signal::HUP);
    poll_until("a database is gone", async || !serves(served.url(), "two").await).await;
    publish(&folder, 6, &config(&["one", "three"], "[reload]\nwatch = \"on\""), changed);
    poll_until("the third database is served", async || serves(served.url(), "three").await).await;
    publish(&folder, 7, "this is no TOML", changed);
    poll_until("it says why", async || served.has_logged("is not TOML")).await;
    assert!(serves(served.url(), "three").await);
    publish(&folder, 8, &config(&["one", "four"], "[reload]\nwatch = \"on\""), changed);
    poll_until("the fourth database is served", async || serves(served.url(), "four").await).await;

    let (code, log) = within("it stops", served.stop()).await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(changed) && !log.contains(password), "a password is in\n{log}");
}
