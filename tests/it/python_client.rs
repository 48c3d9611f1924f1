//! Clients in another language, generated from the .proto files: they read their own writes, stream, and open sessions.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tidegate::dev::DATABASE;
use tokio::process::Command;

use crate::{
    asking::{backends, primary_alone},
    check_command::PROGRAM_PATIENCE,
    harness::Bed,
};

/// Python with grpcio: what TIDEGATE_TEST_PYTHON names, or what `make test` has set up.
fn python() -> PathBuf {
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let python = std::env::var_os("TIDEGATE_TEST_PYTHON").map_or_else(made, PathBuf::from);
    assert!(python.exists(), "{} is missing: `make test` sets it up (scripts/setup test)", python.display());
    python
}

/// Runs a script of clients/python/tests against a broker, and returns what it printed.
async fn run(script: &str, arguments: &[&str]) -> String {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
    let mut command = Command::new(python());
    command.arg(client.join("tests").join(script)).args(arguments).kill_on_drop(true);
    if script != "raw_stubs.py" {
        command.env("PYTHONPATH", client.join("src"));
    }
    let Output { status, stdout, stderr } = tokio::time::timeout(PROGRAM_PATIENCE, command.output())
        .await
        .expect("the script ends")
        .expect("Python starts");
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{script}: {text}\n{}", String::from_utf8_lossy(&stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn python_clients_read_their_own_writes_under_delayed_replay() {
    let bed = Bed::start().await;
    for replica in bed.cluster.replicas() {
        replica.apply_delay(Duration::from_millis(100)).await.expect("the delay is set");
    }
    let broker = bed.app().grpc_address().to_string();
    let text = run("end_to_end.py", &[&broker, DATABASE, "1000"]).await;
    assert!(text.trim_end().ends_with(" 0 violations"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stubs_from_the_proto_files_alone_suffice() {
    let bed = Bed::start().await;
    let broker = bed.app().grpc_address().to_string();
    let text = run("raw_stubs.py", &[&broker, DATABASE]).await;
    assert!(text.contains("all as promised"), "{text}");
}

const SERVICE_CONFIG: &str = include_str!("../../clients/service_config.json");

/// What is safe for a client's own machinery to send again, and nothing more.
#[test]
fn the_service_config_repeats_reads_that_were_unavailable_and_nothing_else() {
    let config: serde_json::Value = serde_json::from_str(SERVICE_CONFIG).expect("JSON");
    let methods = config["methodConfig"].as_array().expect("methods");
    let [method] = methods.as_slice() else { panic!("one rule: {methods:?}") };
    let name = serde_json::json!([{ "service": "tidegate.v1.BrokerService", "method": "ExecuteRead" }]);
    assert_eq!(method["name"], name);
    let policy = &method["retryPolicy"];
    assert_eq!(policy["retryableStatusCodes"], serde_json::json!(["UNAVAILABLE"]));
    // gRPC allows no more than five; and a broker in trouble is spared.
    assert!((2..=5).contains(&policy["maxAttempts"].as_i64().expect("a number")), "{policy}");
    assert!(config["retryThrottling"]["maxTokens"].as_i64().is_some(), "{config}");
    assert_eq!(SERVICE_CONFIG, include_str!("../../clients/python/src/tidegate/service_config.json"), "Python's copy");
}

/// Opens the gate for what comes next, and ends the backend of what hangs before it: again and again.
async fn end_what_hangs(bed: &Bed) {
    let primary = bed.cluster.primary();
    let pid_of = |query: &str| {
        format!(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidegate' AND state = 'active' \
             AND query LIKE '%{query}%'"
        )
    };
    let mut ended = 0;
    loop {
        let has_rows = primary.sql("SELECT has_rows FROM gate").await.is_ok_and(|answer| answer == "t");
        let query = if has_rows { "generate_series" } else { "pg_sleep" };
        if backends(primary, &format!("wait_event = 'PgSleep' AND query LIKE '%{query}%'")).await > 0 || has_rows {
            // One that was told already takes its time.
            if let Ok(pid) = primary.sql_value::<i32>(&pid_of(query)).await
                && pid != ended
            {
                primary.sql("UPDATE gate SET ends = ends - 1").await.expect("the gate counts down");
                primary.terminate_backend(pid).await.expect("it is told to end");
                ended = pid;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcs_own_retries_act_on_reads_before_their_first_row_and_on_nothing_else() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let tables = "CREATE TABLE gate AS SELECT 0 AS ends, false AS has_rows; CREATE TABLE marks (n int); \
                  GRANT ALL ON gate, marks TO tidegate";
    bed.cluster.primary().sql(tables).await.expect("the tables are made");
    let broker = bed.app().grpc_address().to_string();
    let arguments = [broker.as_str(), DATABASE];
    let text = tokio::select! {
        text = run("retries.py", &arguments) => text,
        () = end_what_hangs(&bed) => unreachable!(),
    };
    assert!(text.contains("all as promised"), "{text}");
    let unavailable = |method: &str| {
        bed.metric(&["tidegate_request_duration_seconds_count", "UNAVAILABLE", &format!("\"{method}\"")])
    };
    assert_eq!((unavailable("ExecuteRead"), unavailable("ExecuteWrite")), (3.0, 1.0), "as many as were asked for");
}
