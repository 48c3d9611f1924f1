//! `tidegate bench`: with `stream` a slow reader holds PostgreSQL up, not the broker's memory; `failover` loses nothing; idle
//! `sessions` are small; `fairness` leaves nobody out.

use serde_json::Value;

use crate::check_command::tidegate;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_pauses_holds_postgresql_up_and_costs_the_broker_no_memory() {
    // The command checks every row; its exit code is 0 only if memory grew by less than 64 MiB.
    let output = tidegate(&["bench", "stream", "--rows", "400000", "--pause", "100ms", "--json"]).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!((&document["ok"], &document["rows"]), (&Value::Bool(true), &Value::from(400_000)), "{document}");
    // Half of it has been read, and all that is between is full: PostgreSQL itself waits.
    assert_eq!(document["pause"]["backend_waits_for"], "ClientWrite", "{document}");
    assert!(document["pause"]["at_row"].as_u64().expect("a number") < 220_000, "{document}");
    let growth = document["broker_bytes_growth"].as_u64().expect("a number");
    assert!(growth < 64 << 20, "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_measured_failover_loses_no_write_and_says_how_long_it_took() {
    let output = tidegate(&["bench", "failover", "--rounds", "1", "--writers", "3", "--json"]).await;
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&document["missing"], &document["doubled"], &document["failed"]), (&0.into(), &0.into(), &0.into()));
    assert!(document["acknowledged"].as_u64().expect("a number") > 0, "{document}");
    let round = &document["rounds"][0];
    assert_eq!(round["kind"], "crash", "{document}");
    assert!(round["longest_gap_ms"].as_f64().expect("a number") > 0.0, "{document}");
    // How long depends on the machine; what the exit code says of it does not.
    let is_quick = document["resumed_after_promotion_ms_max"].as_i64().expect("a number") < 1000;
    assert_eq!((output.status.code() == Some(0), document["ok"] == true), (is_quick, is_quick), "{document}");
}

async fn document(args: &[&str]) -> Value {
    let output = tidegate(args).await;
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_takes_little_memory_and_no_connection() {
    let document = document(&["bench", "sessions", "--streams", "4000", "--remembered", "500", "--json"]).await;
    let figure = |name: &str| document[name].as_u64().unwrap_or_else(|| panic!("no {name}: {document}"));
    // The memory of a process of its own; what else it takes meanwhile is small beside some thousand streams.
    assert!(figure("bytes_per_idle_stream") <= 20 << 10, "{document}");
    assert!(figure("postgresql_connections_idle") <= figure("postgresql_connections_before"), "{document}");
    assert_eq!((figure("asked"), figure("known")), (100, 100), "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_on_few_connections_are_all_answered() {
    let args = ["bench", "fairness", "--calls", "100", "--rounds", "2", "--connections", "9", "--json"];
    let document = document(&args).await;
    for (part, calls) in [("reads", 200), ("writes", 200), ("callers_of_few", 19 * 50)] {
        assert_eq!(document[part]["calls"], calls, "{document}");
    }
    assert!(document["caller_of_many"]["calls"].as_u64().is_some_and(|calls| calls > 0), "{document}");
    assert!(document["postgresql_connections"].as_u64().is_some_and(|opened| opened <= 9), "{document}");
}
