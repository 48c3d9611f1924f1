//! The program itself: how it starts, what it says and never says, how it ends, and its exit codes.

use std::{
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use rustix::process::{Pid, Signal, kill_process};
use tidegate::dev::{Cluster, USER};
use tidegate_client::Client;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};
use tonic::{Request, Response, Status};

use crate::{
    asking::{Stub, ask, primary_alone, read_request, tell, until_backends},
    harness::{poll_until, within},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");
/// A password that no log line holds by accident.
const PASSWORD: &str = "hunter2-of-the-database";
const SECRET: &str = "hunter3-that-signs-tokens";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

pub async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        within("the program ends", program(args).output()).await.expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// A broker in a process of its own.
pub struct Served {
    child: Child,
    url: String,
    log: Arc<Mutex<String>>,
    logging: tokio::task::JoinHandle<()>,
}

impl Served {
    pub async fn start(primary: &str, more: &[&str]) -> Served {
        let fixed = ["serve", "--primary", primary, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        Served::run(&[&fixed, more].concat()).await
    }

    /// With these arguments alone.
    pub async fn run(args: &[&str]) -> Served {
        let mut command = program(args);
        // What is freed goes back at once, so that the peak of memory is of what is in use.
        command.env("TIDEGATE_TOKENS_SECRET", SECRET).env("MIMALLOC_PURGE_DELAY", "0");
        let mut child = command.spawn().expect("the program starts");
        let mut errors = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let logging = tokio::spawn(async move {
            while let Some(line) = errors.next_line().await.expect("text") {
                kept.lock().expect("nobody panicked").push_str(&(line + "\n"));
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("its standard output")).lines();
        let line = within("it says where it listens", lines.next_line()).await.expect("a line").expect("a line");
        let address = line.strip_prefix("gRPC on ").and_then(|rest| rest.split(' ').next()).expect("an address");
        Served { url: format!("http://{address}"), child, log, logging }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.url).await.expect("the broker accepts connections")
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)).expect("it runs");
        kill_process(pid, signal).expect("it is signalled");
    }

    /// SIGTERM; its exit code and all that it logged.
    pub async fn stop(mut self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        let status = within("it ends", self.child.wait()).await.expect("a status");
        within("its log ends", self.logging).await.expect("a log");
        let log = self.log.lock().expect("nobody panicked").clone();
        (status.code(), log)
    }

    /// The most resident memory that it took so far, in bytes (Linux).
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().expect("it runs"));
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// How many threads it has (Linux).
    pub fn threads(&self) -> usize {
        let path = format!("/proc/{}/task", self.child.id().expect("it runs"));
        std::fs::read_dir(path).expect("it runs").count()
    }

    pub fn has_logged(&self, text: &str) -> bool {
        self.log.lock().expect("nobody panicked").contains(text)
    }
}

/// A cluster whose service role has [`PASSWORD`], and the URL with it.
pub async fn cluster() -> (Cluster, String) {
    let cluster = Cluster::start(primary_alone()).await.expect("the cluster starts");
    let primary = cluster.primary();
    primary.sql(&format!("ALTER ROLE {USER} PASSWORD '{PASSWORD}'")).await.expect("the password is changed");
    let url = primary.direct_url().replace(":tidegate@", &format!(":{PASSWORD}@"));
    assert!(url.contains(PASSWORD), "{url}");
    (cluster, url)
}

pub async fn until_ready(client: &Client) {
    poll_until("the broker knows its host", || async { ask(client, "SELECT 1").await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_drains_at_sigterm_and_its_log_holds_no_secret_and_no_parameter() {
    let (cluster, url) = cluster().await;
    let served = Served::start(&url, &["--log-level", "debug"]).await;
    let client = served.client().await;
    until_ready(&client).await;
    tell(&client, "CREATE TABLE marks (x text)").await.expect("a write");
    let parameter = || tidegate_client::params!["hunter4-the-parameter"];
    client.execute("INSERT INTO marks VALUES ($1)", parameter()).await.expect("a write");
    let error = client.execute("INSERT INTO marks VALUES ($1::int::text)", parameter()).await.expect_err("no number");
    assert!(!error.to_string().contains(PASSWORD));
    let runner = client.clone();
    let running = tokio::spawn(async move { ask(&runner, "SELECT 'done' FROM pg_sleep(1)").await });
    until_backends(cluster.primary(), "state = 'active' AND query LIKE '%pg_sleep%'", 1).await;
    let (code, log) = served.stop().await;
    assert_eq!(running.await.expect("the call ends").expect("it is let to its end"), "done");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("DEBUG") && log.contains("drained"), "{log}");
    for secret in [PASSWORD, SECRET, "hunter4"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
    until_backends(cluster.primary(), "true", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_being_shown() {
    let (_cluster, url) = cluster().await;
    let wrong = url.replace(PASSWORD, "hunter5-is-wrong");
    let served = Served::start(&wrong, &["--log-level", "debug"]).await;
    let client = served.client().await;
    let error = ask(&client, "SELECT 1").await.expect_err("it cannot log in");
    assert!(!format!("{error:?}").contains("hunter5"), "{error:?}");
    poll_until("the log says so", || std::future::ready(served.has_logged("password authentication failed"))).await;
    let (code, log) = served.stop().await;
    assert_eq!(code, Some(0));
    assert!(!log.contains("hunter5"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_it_with_every_problem() {
    let file = format!("{}/wrong-{}.toml", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let text = "primary = \"mysql://db/app\"\n[pool]\nconnections_per_host = 1\nsize = 3\n\
                [timeouts]\ndefault_timeout = \"soon\"\n[tokens]\nsecret = \"hunter6\"\n";
    std::fs::write(&file, text).expect("the file is written");
    let (code, out, errors) = run(&["serve", "--config", &file, "--log-level", "loud=very"]).await;
    std::fs::remove_file(&file).expect("the file is removed");
    assert_eq!((code, out.as_str()), (Some(2), ""), "{errors}");
    for key in [
        "primary",
        "pool.connections_per_host",
        "pool.size",
        "timeouts.default_timeout",
        "tokens.secret",
        "--log-level",
    ] {
        assert!(errors.contains(key), "{key} is not in\n{errors}");
    }
    assert!(!errors.contains("hunter6"), "{errors}");
    let (code, _, errors) = run(&["serve"]).await;
    assert_eq!(code, Some(2), "{errors}");
    let mut help = program(&["serve", "--help"]);
    let help = help.env("TIDEGATE_PASSWORD", PASSWORD).env("TIDEGATE_PRIMARY", format!("postgres://u:{PASSWORD}@h/d"));
    let help = String::from_utf8(help.output().await.expect("it runs").stdout).expect("text");
    assert!(help.contains("--primary") && !help.contains(PASSWORD), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_says_by_its_exit_code_how_it_went() {
    let (_cluster, url) = cluster().await;
    let served = Served::start(&url, &[]).await;
    until_ready(&served.client().await).await;
    let sql = async |more: &[&str]| run(&[&["sql", "--broker", &served.url], more].concat()).await;
    let (code, out, errors) = sql(&["SELECT 40 + 2 AS answer"]).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("answer") && out.contains("42"), "{out}");
    let (code, out, _) = sql(&["--write", "--json", "--param", "blue", "SELECT $1::text AS colour"]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("\"blue\"") && out.contains("\"position\""), "{out}");
    let (code, _, errors) = sql(&["SELECT 1/0"]).await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("division by zero") && errors.contains("22012"), "{errors}");
    assert_eq!(sql(&["--consistency", "sometimes", "SELECT 1"]).await.0, Some(2));
    assert_eq!(sql(&["--max-staleness", "1s", "--consistency", "strong", "SELECT 1"]).await.0, Some(2));
    assert_eq!(run(&["sql", "--broker", "http://127.0.0.1:1", "SELECT 1"]).await.0, Some(3));
    assert_eq!(served.stop().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_does_not_say_that_nothing_was_sent_when_the_broker_dies_under_a_write() {
    let (cluster, url) = cluster().await;
    let mut served = Served::start(&url, &[]).await;
    until_ready(&served.client().await).await;
    let broker = served.url.clone();
    let write = "CREATE TABLE slow AS SELECT 1 AS n FROM pg_sleep(600)";
    let sql =
        tokio::spawn(async move { run(&["sql", "--broker", &broker, "--timeout", "60s", "--write", write]).await });
    until_backends(cluster.primary(), "state = 'active' AND query LIKE '%pg_sleep%'", 1).await;
    served.child.kill().await.expect("it is killed");
    let (code, _, errors) = sql.await.expect("it ends");
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("outcome: UNKNOWN") && !errors.contains("no broker answers"), "{errors}");
}

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().expect("nobody panicked").extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_span_in_its_callers_trace() {
    let (_cluster, url) = cluster().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    let serving = tokio::spawn(serving);
    let served = Served::start(&url, &["--otlp-endpoint", &endpoint]).await;
    until_ready(&served.client().await).await;
    let mut request = Request::new(read_request("SELECT 'hunter7'", vec![]));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", parent.parse().expect("metadata"));
    request.set_timeout(Duration::from_secs(20));
    let mut stub = Stub::connect(served.url.clone()).await.expect("the broker accepts connections");
    let mut stream = stub.execute_read(request).await.expect("it starts").into_inner();
    while stream.message().await.expect("a message").is_some() {}
    assert_eq!(served.stop().await.0, Some(0), "what is left is sent before it ends");
    serving.abort();
    let spans = collector.0.lock().expect("nobody panicked").clone();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let own: Vec<_> = spans.iter().filter(|span| hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c").collect();
    let [span] = own.as_slice() else { panic!("{} spans of the trace", own.len()) };
    assert_eq!((span.name.as_str(), hex(&span.parent_span_id).as_str()), ("ExecuteRead", "b7ad6b7169203331"));
    let keys: Vec<_> = span.attributes.iter().map(|pair| pair.key.as_str()).collect();
    for key in ["rpc.grpc.status_code", "server.address", "tidegate.route.reason"] {
        assert!(keys.contains(&key), "{key} is not in {keys:?}");
    }
    assert!(!format!("{spans:?}").contains("hunter7"), "no SQL in spans");
}
