//! Clients in another language, generated from the .proto files: they read their own writes, stream, and open sessions.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tidegate::dev::DATABASE;
use tokio::process::Command;

use crate::{check_command::PROGRAM_PATIENCE, harness::Bed};

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
