//! Rules by operation: what they keep from replicas, how fresh they make what asks for nothing, and `check --explain`.

use serde_json::Value;
use tidegate::{
    config::{Config, RuleConfig, RuleConsistency},
    dev::{ClusterOptions, DATABASE},
    model::{Draw, Percentage},
};
use tidegate_client::{
    Begin, Client, Consistency, HostRole, ReadOptions, Receipt, RouteReason,
    proto::{self, session_request::Request, session_response::Response},
};

use crate::{
    asking::{context, session_read, stub},
    check_command::tidegate,
    harness::{Bed, READ_COUNTER, create_counters, read_int, set_counter, within},
    reload::apply,
};

fn rule(name: &str, operation: &str) -> RuleConfig {
    let (name, operation) = (name.to_owned(), operation.to_owned());
    RuleConfig { name, operation, database: None, replica_hundredths: None, consistency: None }
}

async fn read(client: &Client, operation: &str, consistency: Option<Consistency>) -> Receipt {
    let options = ReadOptions::new().operation(operation);
    let options = match consistency {
        Some(consistency) => options.consistency(consistency),
        None => options,
    };
    read_int(client, "SELECT 1", options).await.1
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_keep_reads_from_replicas_and_make_them_fresher() {
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |config| {
        let elsewhere = RuleConfig { database: Some("other".into()), ..rule("elsewhere", "*") };
        let worker = RuleConfig { replica_hundredths: Some(0), ..rule("workers", "worker.*") };
        let half = RuleConfig { replica_hundredths: Some(5_000), ..rule("half", "GET /v2/*") };
        let fresh = RuleConfig { consistency: Some(RuleConsistency::Strong), ..rule("fresh", "fresh") };
        config.rules = vec![elsewhere, worker, half, fresh];
    })
    .await;
    let client = bed.client().await;

    let by_rule = |receipt: &Receipt| (receipt.role(), receipt.reason()) == (HostRole::Primary, RouteReason::Rule);
    for consistency in [None, Some(Consistency::Session), Some(Consistency::Eventual)] {
        let receipt = read(&client, "worker.mail", consistency).await;
        assert!(by_rule(&receipt), "{receipt:?}");
        let receipt = read(&client, "Worker.mail", consistency).await;
        assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::NoPosition));
    }
    assert_eq!(read(&client, "worker.mail", Some(Consistency::Strong)).await.reason(), RouteReason::Strong);

    // A session draws once; without one every call does.
    let share = Percentage::from_hundredths(5_000).expect("a percentage");
    for n in 0..20 {
        let session = format!("session {n}");
        let client = client.for_session(session.clone());
        for operation in ["GET /v2/tags", "GET /v2/names", "GET /v2/tags"] {
            let receipt = read(&client, operation, Some(Consistency::Eventual)).await;
            let taken = share.takes_in(Draw::of("GET /v2/*", &session));
            assert_eq!(by_rule(&receipt), !taken, "{session}: {receipt:?}");
        }
    }
    within("both happen without a session", async {
        let mut seen = [false; 2];
        while seen != [true; 2] {
            let receipt = read(&client, "GET /v2/tags", None).await;
            seen[usize::from(by_rule(&receipt))] = true;
        }
    })
    .await;

    assert_eq!(read(&client, "fresh", None).await.reason(), RouteReason::Strong);
    assert_eq!(read(&client, "fresh", Some(Consistency::Eventual)).await.role(), HostRole::Replica);
    assert_eq!(bed.metric(&["tidegate_rule_hits_total", "rule=\"workers\"", "verdict=\"primary\""]), 4.0);
    assert_eq!(bed.metric(&["tidegate_rule_hits_total", "rule=\"elsewhere\""]), 0.0);

    // In a session each request has its own operation; one without has the session's.
    let open = Request::Open(proto::SessionOpen {
        context: context().map(|context| proto::CallContext { operation: "worker.session".into(), ..context }),
    });
    let wanted = [("worker.mail", true), ("GET /", false), ("", true)];
    let reads = wanted.iter().map(|(operation, _)| ((*operation).to_owned(), session_read("SELECT 1")));
    let requests: Vec<_> = std::iter::once((String::new(), open)).chain(reads).collect();
    let requests = (1..).zip(requests).map(|(request_id, (operation, request))| proto::SessionRequest {
        request_id,
        operation,
        request: Some(request),
        ..Default::default()
    });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    let mut answers = stub(&bed).await.session(requests).await.expect("the session opens").into_inner();
    let mut reasons = Vec::new();
    while let Some(answer) = answers.message().await.expect("the session goes on") {
        if let Some(Response::Read(part)) = answer.response {
            reasons.extend(part.header.and_then(|header| header.receipt).map(|receipt| receipt.reason()));
        }
    }
    let by_rule: Vec<bool> = reasons.iter().map(|reason| *reason == RouteReason::Rule).collect();
    assert_eq!(by_rule, wanted.map(|(_, by_rule)| by_rule), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_makes_reads_causal_until_a_reload_takes_it_away() {
    let bed = Bed::with(ClusterOptions::default(), |config| {
        let causal =
            |name, operation| RuleConfig { consistency: Some(RuleConsistency::Causal), ..rule(name, operation) };
        config.rules = vec![causal("causal", "GET *"), causal("unnamed", "")];
    })
    .await;
    create_counters(&bed).await;
    bed.cluster.replica(1).pause_replay().await.expect("replay pauses");
    set_counter(&bed.client().await, 1).await;
    bed.cluster.replica(0).catch_up(bed.cluster.primary()).await.expect("the other replays");
    let client = bed.session_client("reader").await;
    let look = async |client: &Client, options: ReadOptions| read_int(client, READ_COUNTER, options).await.0;
    let ruled = || ReadOptions::new().operation("GET /");
    let session_reads = || ruled().consistency(Consistency::Session);
    let eventual = || ruled().consistency(Consistency::Eventual);
    within("the counter is seen", async { while look(&client, ruled()).await != 1 {} }).await;
    for _ in 0..20 {
        assert_eq!(look(&client, ruled()).await, 1, "what one read saw, the next one sees");
    }
    within("who says how fresh may go back", async { while look(&client, eventual()).await != 0 {} }).await;
    // A transaction that only reads, too.
    let another = bed.session_client("another").await;
    let mut session = another.session().await.expect("a session");
    within("a transaction sees it", async {
        loop {
            let begin = Begin::new().on_replica(&ReadOptions::new());
            let mut transaction = session.begin(begin).await.expect("it begins");
            let rows = transaction.read(READ_COUNTER, []).await.expect("a read").rows().await.expect("rows");
            transaction.commit().await.expect("it ends");
            if rows.iter().next().expect("a row").get::<i64>(0).expect("a number") == 1 {
                return;
            }
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(look(&another, session_reads()).await, 1, "and binds what comes behind it");
    }

    let without = Config { rules: vec![], ..bed.config.clone() };
    assert_eq!(apply(bed.app(), &without).await, ["rule causal: removed", "rule unnamed: removed"]);
    let late = bed.session_client("late").await;
    let both = async {
        let mut seen = [false; 2];
        while seen != [true; 2] {
            seen[usize::from(look(&late, ruled()).await == 1)] = true;
        }
        while look(&late, ruled()).await != 0 {}
    };
    within("a session that saw it goes back", both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_explains_what_a_call_would_get_without_asking_a_host() {
    let folder = std::env::temp_dir().join(format!("tidegate-explain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("tidegate.toml");
    let text = format!(
        "[[cluster]]\nname = \"main\"\nprimary = \"postgres://a@127.0.0.1:1/app\"\n\
         [[cluster]]\nname = \"own\"\nhosts = [\"postgres://a@127.0.0.1:2/app\"]\n\
         [[database]]\nname = \"{DATABASE}\"\ncluster = \"main\"\nown_cluster = \"own\"\nown_percentage = 60\n\
         [[rule]]\nname = \"v2\"\noperation = \"GET /v2/*\"\nreplica_percentage = 20\n"
    );
    std::fs::write(&file, text).expect("the file is written");
    let config = file.to_str().expect("a path").to_owned();
    let explain = async |more: &[&str]| {
        let args = [&["check", "--config", &config, "--explain", "--operation", "GET /v2/tags"], more].concat();
        let output = tidegate(&args).await;
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), text, String::from_utf8(output.stderr).expect("text"))
    };
    let json = async |more: &[&str]| -> Value {
        let (code, text, _) = explain(&[&["--json"], more].concat()).await;
        assert_eq!(code, Some(0), "{text}");
        serde_json::from_str(&text).expect("JSON")
    };
    let draw = |matter: &str| Percentage::from_hundredths(Draw::of(matter, "u7").get()).expect("a draw").to_string();
    let moved = Draw::of(DATABASE, "u7").get() < 6_000;
    let cluster = if moved { "own" } else { "main" };
    let read = json(&["--session", "u7"]).await;
    assert_eq!((&read["rule"]["name"], &read["rule"]["draw"]), (&"v2".into(), &draw("GET /v2/*").into()), "{read}");
    assert_eq!(
        (&read["rollout"]["draw"], &read["primary_cluster"]),
        (&draw(DATABASE).into(), &cluster.into()),
        "{read}"
    );
    let write = json(&["--session", "u7", "--write", "--database", DATABASE]).await;
    assert_eq!((&write["reason"], &write["rule"]), (&"WRITE".into(), &Value::Null), "{write}");
    let stays = json(&["--write"]).await;
    assert_eq!((&stays["rollout"]["draw"], &stays["primary_cluster"]), (&Value::Null, &"main".into()), "{stays}");
    let (code, text, _) = explain(&["--session", "u7"]).await;
    assert_eq!(code, Some(0));
    assert!(text.contains("rule       v2 (\"GET /v2/*\")") && text.contains(&draw(DATABASE)), "{text}");
    let (code, _, error) = explain(&["--database", "nothing"]).await;
    assert!(code == Some(2) && error.contains("name one of"), "{error}");
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
}
