//! `tidegate admin` against a broker in a process of its own, which reads its configuration anew when it is told.

use std::fs;

use serde_json::Value;
use tidegate::dev::DATABASE;
use tidegate_client::{AdminClient, Error};
use tonic::Code;

use crate::{
    asking::failure,
    command_line::{Served, cluster, run, until_ready},
    harness::within,
};

/// The reason of a refusal, and its message.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, String) {
    let error = result.expect_err("it is refused");
    let failure = failure(&error);
    (failure.reason.clone(), failure.message.clone())
}

/// `tidegate admin …` on that broker: its exit code, and what it printed as JSON to either output.
async fn admin(url: &str, args: &[&str]) -> (Option<i32>, Value) {
    let all = [&["admin"], args, &["--broker", url, "--json"]].concat();
    let (code, out, err) = run(&all).await;
    let text = if out.is_empty() { &err } else { &out };
    let json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {args:?} printed {out}{err}"));
    (code, json)
}

/// What it shows and refuses, for programs and for people.
async fn shows_and_refuses(broker: &str) {
    let (code, shown) = admin(broker, &["topology"]).await;
    let host = &shown["clusters"][0]["hosts"][0];
    assert_eq!((code, &shown["clusters"][0]["primary"]), (Some(0), &"db1".into()), "{shown}");
    assert_eq!((&host["role"], &host["health"], &host["drained"]), (&"primary".into(), &"up".into(), &false.into()));
    let (code, text, _) = run(&["admin", "topology", "--broker", broker]).await;
    assert!(code == Some(0) && text.contains("cluster main: primary db1, timeline 1"), "{text}");
    let (code, route) = admin(broker, &["explain", "--session", "user-7", "--max-staleness", "2s"]).await;
    assert_eq!((code, &route["hosts"][0], &route["reason"]), (Some(0), &"db1".into(), &"NO_REPLICA".into()), "{route}");
    assert_eq!(route["standings"][0]["standing"], "TAKES", "{route}");
    let (_, text, _) = run(&["admin", "explain", "--write", "--broker", broker]).await;
    assert!(text.contains("goes to    db1 (WRITE)"), "{text}");
    for (args, reason) in [
        (&["drain", "db1"][..], "HOST_IS_PRIMARY"),
        (&["restore", "db2"], "HOST_UNKNOWN"),
        (&["settle-primary", "db1"], "NO_CONFLICT"),
    ] {
        let (code, refused) = admin(broker, args).await;
        assert_eq!((code, &refused["error"]["reason"]), (Some(1), &reason.into()), "{args:?}: {refused}");
    }
    let (code, restored) = admin(broker, &["restore", "db1"]).await;
    assert_eq!((code, &restored["name"]), (Some(0), &"db1".into()));
    assert_eq!(admin(broker, &["rollout", "one"]).await.0, Some(1));
    assert_eq!(run(&["admin", "drain"]).await.0, Some(2));
    assert_eq!(run(&["admin", "topology", "--broker", "127.0.0.1:1"]).await.0, Some(3));
}

/// A broker that was started by a file, which can be written anew.
struct Operated {
    // The servers go last.
    served: Served,
    url: String,
    cluster: tidegate::dev::Cluster,
}

impl Operated {
    async fn start() -> Operated {
        let (cluster, url) = cluster().await;
        fs::create_dir(cluster.folder().join("configuration")).expect("a folder");
        let config = Operated::publish_in(&cluster, &url, &["one"], "");
        let served = Served::run(&["serve", "--config", &config, "--grpc-listen", "127.0.0.1:0"]).await;
        until_ready(&served.client().await).await;
        Operated { served, url, cluster }
    }

    /// A file beside the configuration.
    fn at(cluster: &tidegate::dev::Cluster, name: &str) -> String {
        cluster.folder().join("configuration").join(name).to_str().expect("a path").to_owned()
    }

    fn file(&self, name: &str) -> String {
        Operated::at(&self.cluster, name)
    }

    fn publish(&self, databases: &[&str], more: &str) {
        Operated::publish_in(&self.cluster, &self.url, databases, more);
    }

    fn publish_in(cluster: &tidegate::dev::Cluster, url: &str, databases: &[&str], more: &str) -> String {
        let primary = format!("primary = {{ name = \"db1\", url = \"{url}\" }}");
        let mut text = format!("[[cluster]]\nname = \"main\"\n{primary}\n[http]\nlisten = \"127.0.0.1:0\"\n{more}\n");
        for name in databases {
            text += &format!("[[database]]\nname = \"{name}\"\ndbname = \"{DATABASE}\"\ncluster = \"main\"\n");
        }
        let path = Operated::at(cluster, "config.toml");
        fs::write(&path, text).expect("a file");
        path
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_steer_and_reload_a_broker_from_the_command_line() {
    let operated = Operated::start().await;
    let broker = operated.served.url().to_owned();
    shows_and_refuses(&broker).await;

    let client = AdminClient::connect(&broker).await.expect("the broker accepts connections");
    // A reload: of what differs, or of nothing, with every problem named.
    let (code, unchanged) = admin(&broker, &["reload"]).await;
    assert_eq!((code, unchanged), (Some(0), serde_json::json!({ "changes": [] })));
    operated.publish(&["one", "two"], "");
    let (_, changed) = admin(&broker, &["reload"]).await;
    assert_eq!(changed["changes"][0], serde_json::json!({ "key": "database two", "what": "added" }), "{changed}");
    operated.publish(&["one"], "[pool]\nmax_queue = \"lots\"\n[probe]\ntimeout = 7");
    let (reason, message) = refusal(client.reload().await);
    assert_eq!(reason, "CONFIG_INVALID");
    assert!(message.contains("pool.max_queue") && message.contains("probe.timeout"), "{message}");
    operated.publish(&["one"], "[consistency]\nslots = 4096");
    let (reason, message) = refusal(client.reload().await);
    assert!(reason == "RESTART_REQUIRED" && message.contains("consistency.slots"), "{message}");
    let (code, two) = admin(&broker, &["explain", "--database", "two", "--write"]).await;
    assert_eq!((code, &two["reason"]), (Some(0), &"WRITE".into()), "nothing was changed: {two}");

    // A token, from a reload on; who watches is told of what changes until then.
    let mut watched = client.watch(None).await.expect("it is watched");
    within("the first state", watched.next()).await.expect("a state");
    let token = "hunter5-of-the-operators";
    fs::write(operated.file("token"), format!("{token}\n")).expect("a file");
    operated.publish(&["one"], &format!("[admin]\ntoken_file = \"{}\"", operated.file("token")));
    admin(&broker, &["reload"]).await;
    assert_eq!(refusal(client.reload().await).0, "ADMIN_TOKEN_INVALID");
    let end = within("the stream ends", async {
        loop {
            if let Err(error) = watched.next().await {
                return error.code();
            }
        }
    })
    .await;
    assert_eq!(end, Code::Unauthenticated);
    let (code, refused) = admin(&broker, &["topology"]).await;
    assert_eq!((code, &refused["error"]["code"]), (Some(1), &"Unauthenticated".into()), "{refused}");
    let (code, shown) = admin(&broker, &["topology", "--token-file", &operated.file("token")]).await;
    assert_eq!((code, &shown["clusters"][0]["name"]), (Some(0), &"main".into()), "{shown}");
    assert_eq!(run(&["admin", "topology", "--token-file", &operated.file("nothing")]).await.0, Some(2));

    let (code, log) = operated.served.stop().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(token), "the token is in\n{log}");
}
