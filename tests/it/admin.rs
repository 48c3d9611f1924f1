//! What operators see and decide: the topology once and as it changes, where a call would go, hosts that are kept from
//! reads; and who is let in.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use prost::Message;
use tidegate::{config::Secret, dev::Server};
use tidegate_client::{
    AdminClient, Client, Consistency, Error, HostRole, ReadOptions, RouteReason,
    proto::{
        self, CallContext, ExplainRouteRequest, ExplainRouteResponse, GetTopologyRequest, HostHealth, HostState,
        Standing, admin_service_client::AdminServiceClient,
    },
};
use tonic::{Code, Request};

use crate::{
    asking::{ask, context, failure, primary_alone},
    harness::{
        Bed, READ_COUNTER, create_counters, pause_all, read_counter, read_int, resume_all, set_counter, stop, within,
    },
    server::{http, reflected},
};

const SERVICE: &str = "tidegate.v1.AdminService";

async fn admin(bed: &Bed) -> AdminClient {
    AdminClient::connect(bed.url()).await.expect("the broker accepts connections")
}

fn host<'a>(topology: &'a proto::Topology, server: &Server) -> &'a HostState {
    topology.clusters[0].hosts.iter().find(|host| host.name == server.name()).expect("the host is shown")
}

/// The code and the stable reason, which docs/errors.md has.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    let error = result.expect_err("it is refused");
    (error.code(), failure(&error).reason.clone())
}

fn eventual() -> ReadOptions {
    ReadOptions::new().consistency(Consistency::Eventual)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topology_is_shown_once_and_as_it_changes() {
    let mut bed = Bed::start().await;
    create_counters(&bed).await;
    let admin = admin(&bed).await;
    let shown = admin.topology().await.expect("an answer");
    let [cluster] = shown.clusters.as_slice() else { panic!("{shown:?}") };
    let primary = bed.cluster.primary().name();
    assert_eq!((cluster.name.as_str(), cluster.primary.as_str()), (bed.cluster.name(), primary));
    assert_eq!((cluster.timeline, cluster.conflict.len(), cluster.hosts.len()), (1, 0, 3));
    assert!(cluster.lease.is_some() && cluster.insert_lsn.contains('/') && cluster.system_identifier > 0);
    for state in &cluster.hosts {
        let role = if state.name == primary { HostRole::Primary } else { HostRole::Replica };
        assert_eq!((state.role(), state.health(), state.timeline), (role, HostHealth::Up, 1), "{state:?}");
        assert_eq!((state.drained, state.refused.as_str(), state.share_percent), (false, "", 100), "{state:?}");
        assert_eq!(state.lag_bytes.is_some(), role == HostRole::Replica, "{state:?}");
        let kinds: Vec<_> = state.pools.iter().map(|pool| pool.kind.as_str()).collect();
        assert!(kinds.contains(&"read") && kinds.contains(&"write"), "{kinds:?}");
    }

    // As a whole at once, and again with each change; nobody asks for it.
    let mut watched = admin.watch(Some(std::time::Duration::from_millis(10))).await.expect("it is watched");
    let first = within("the first state", watched.next()).await.expect("a state");
    let replica = Arc::clone(bed.cluster.replica(0));
    assert_eq!((first.clusters[0].hosts.len(), host(&first, &replica).health()), (3, HostHealth::Up));
    replica.kill().await.expect("it is killed");
    within("it is shown as down", async {
        while host(&watched.next().await.expect("a state"), &replica).health() != HostHealth::Down {}
    })
    .await;
    let (code, reason) = refusal(admin.watch(Some(std::time::Duration::from_nanos(1))).await.map(drop));
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "FIELD_INVALID"));

    bed.app().begin_shutdown();
    let end = within("the stream ends", async {
        loop {
            if let Err(error) = watched.next().await {
                return error;
            }
        }
    })
    .await;
    assert_eq!((end.code(), failure(&end).reason.as_str()), (Code::Unavailable, "DRAINING"));
    bed.stop_broker().await;
}

/// What the account of a read and the read itself are to agree on.
async fn explain(admin: &AdminClient, session: &str, options: proto::ReadOptions) -> ExplainRouteResponse {
    let context = CallContext { session_id: session.into(), ..context().expect("a context") };
    let call = ExplainRouteRequest { context: Some(context), options: Some(options), write: false };
    admin.explain(call).await.expect("an account")
}

fn standing(account: &ExplainRouteResponse, server: &Server) -> Standing {
    account.standings.iter().find(|it| it.host == server.name()).expect("every host has its standing").standing()
}

/// Accounts for a read, and reads: until nothing has changed in between. Then both say the same.
async fn explained(
    admin: &AdminClient,
    client: &Client,
    session: &str,
    consistency: Consistency,
) -> ExplainRouteResponse {
    let asked = || proto::ReadOptions { consistency: consistency.into(), ..Default::default() };
    within("the account of one state", async {
        loop {
            let before = explain(admin, session, asked()).await;
            let options = ReadOptions::new().consistency(consistency);
            let (_, receipt) = read_int(client, READ_COUNTER, options).await;
            if before == explain(admin, session, asked()).await {
                assert!(before.hosts.contains(&receipt.host), "{receipt:?}\n{before:?}");
                assert_eq!((before.reason(), &before.required_lsn), (receipt.reason(), &receipt.required_lsn));
                return before;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_of_a_read_is_what_the_read_does() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let admin = admin(&bed).await;
    let [one, two] = bed.cluster.replicas() else { panic!("two replicas") };
    let primary = bed.cluster.primary();
    let (stranger, writer) = (bed.client().await, bed.session_client("writer").await);

    let free = explained(&admin, &stranger, "", Consistency::Eventual).await;
    assert_eq!(free.hosts, [one.name(), two.name()]);
    assert_eq!((free.reason(), standing(&free, primary)), (RouteReason::NoPosition, Standing::NotNeeded));
    let strong = explained(&admin, &stranger, "", Consistency::Strong).await;
    assert_eq!(
        (strong.hosts.as_slice(), standing(&strong, one)),
        (&[primary.name().to_owned()][..], Standing::NotPrimary)
    );

    pause_all(&bed).await;
    set_counter(&writer, 1).await;
    let behind = explained(&admin, &writer, "writer", Consistency::Session).await;
    assert_eq!((behind.reason(), behind.hosts.as_slice()), (RouteReason::Behind, &[primary.name().to_owned()][..]));
    assert!(!behind.waits && behind.binding.contains(&behind.required_lsn), "{behind:?}");
    assert_eq!((standing(&behind, one), standing(&behind, two)), (Standing::Behind, Standing::Behind));
    let patient =
        proto::ReadOptions { max_wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }), ..Default::default() };
    assert!(explain(&admin, "writer", patient).await.waits);
    explained(&admin, &stranger, "", Consistency::Session).await;

    // One of both may answer.
    one.resume_replay().await.expect("replay resumes");
    crate::harness::read_counter_until("it has caught up", &writer, 1, |receipt| receipt.host == one.name()).await;
    let one_of_both = explained(&admin, &writer, "writer", Consistency::Session).await;
    assert_eq!(
        (one_of_both.reason(), one_of_both.hosts.as_slice()),
        (RouteReason::CaughtUp, &[one.name().to_owned()][..])
    );
    assert_eq!(standing(&one_of_both, two), Standing::Behind);
    admin.drain("", one.name()).await.expect("it is drained");
    let drained = explained(&admin, &writer, "writer", Consistency::Session).await;
    assert_eq!((drained.reason(), standing(&drained, one)), (RouteReason::Behind, Standing::Drained));
    resume_all(&bed).await;

    let write = ExplainRouteRequest { context: context(), options: None, write: true };
    let write = admin.explain(write).await.expect("an account");
    assert_eq!((write.reason(), write.hosts.as_slice()), (RouteReason::Write, &[primary.name().to_owned()][..]));
    for (database, options, expected) in [
        ("nobody", None, (Code::NotFound, "DATABASE_UNKNOWN")),
        ("", Some(proto::ReadOptions::default()), (Code::InvalidArgument, "FIELD_INVALID")),
    ] {
        let context = Some(CallContext { database: database.into(), ..CallContext::default() });
        let (code, reason) = refusal(admin.explain(ExplainRouteRequest { context, options, write: true }).await);
        assert_eq!((code, reason.as_str()), expected);
    }
    bed.cluster.primary().kill().await.expect("the primary is killed");
    bed.wait_until("it is missed", || bed.view().primary.is_none()).await;
    let nowhere = admin.explain(ExplainRouteRequest { context: context(), options: None, write: true }).await;
    let nowhere = nowhere.expect("an account");
    assert_eq!((nowhere.rejection.as_str(), nowhere.hosts.len()), ("NO_PRIMARY_AVAILABLE", 0));
}

/// Callers that read all the time; how many reads there were, once they end. A failed one fails the test.
struct Readers {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Readers {
    async fn start(bed: &Bed) -> Readers {
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut tasks = Vec::new();
        for n in 0..4 {
            let client = bed.session_client(&format!("reader-{n}")).await;
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    read_counter(&client).await;
                    count.fetch_add(1, Relaxed);
                }
            }));
        }
        Readers { stop, count, tasks }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        for task in self.tasks {
            within("a reader ends", task).await.expect("no read failed");
        }
        self.count.load(Relaxed)
    }
}

/// The hosts that twenty reads went to, from now on, and why the last one did.
async fn read_from(client: &Client) -> (Vec<String>, RouteReason) {
    let mut hosts = Vec::new();
    let mut reason = RouteReason::Unspecified;
    for _ in 0..20 {
        let (_, receipt) = read_int(client, READ_COUNTER, eventual()).await;
        reason = receipt.reason();
        hosts.push(receipt.host);
    }
    hosts.sort();
    hosts.dedup();
    (hosts, reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_takes_no_new_read_and_none_fails_meanwhile() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let (admin, client) = (admin(&bed).await, bed.client().await);
    let [one, two] = bed.cluster.replicas() else { panic!("two replicas") };
    let primary = bed.cluster.primary();
    let readers = Readers::start(&bed).await;

    // What runs there goes on to its end.
    let sql = "SELECT n, repeat('x', 100) FROM generate_series(1, 200000) n";
    let mut stream = within("a stream on the host", async {
        loop {
            let stream = client.read_with(sql, [], eventual()).await.expect("it starts");
            if stream.receipt().is_some_and(|receipt| receipt.host == one.name()) {
                return stream;
            }
        }
    })
    .await;
    let drained = admin.drain("", one.name()).await.expect("it is drained");
    assert!(drained.drained && drained.pools.iter().any(|pool| pool.in_use > 0), "{drained:?}");
    assert_eq!(read_from(&client).await, (vec![two.name().to_owned()], RouteReason::NoPosition));
    assert_eq!(bed.metric(&["tidegate_host_drained{", one.name()]), 1.0);
    let mut rows = 0;
    while let Some(batch) = stream.next().await.expect("it is let to its end") {
        rows += batch.rows().count();
    }
    assert_eq!(rows, 200_000);

    // It stays so over a reload, and over a restart of the server.
    let mut config = bed.config.clone();
    config.pool.max_queue += 1;
    bed.app().apply(config).await.expect("nothing takes a restart");
    one.restart().await.expect("it restarts");
    bed.wait_until("it is back", || bed.view().hosts[1].passed_last_sample).await;
    assert!(host(&admin.topology().await.expect("an answer"), one).drained);
    assert_eq!(read_from(&client).await.0, [two.name()]);

    // With nobody else left the primary reads; it cannot be drained itself.
    admin.drain(bed.cluster.name(), two.name()).await.expect("it is drained");
    admin.drain(bed.cluster.name(), two.name()).await.expect("it is drained already");
    assert_eq!(read_from(&client).await, (vec![primary.name().to_owned()], RouteReason::NoReplica));
    for (cluster, name, expected) in [
        ("", primary.name(), (Code::FailedPrecondition, "HOST_IS_PRIMARY")),
        ("", "nobody", (Code::NotFound, "HOST_UNKNOWN")),
        ("nowhere", two.name(), (Code::NotFound, "HOST_UNKNOWN")),
        ("", "", (Code::InvalidArgument, "FIELD_MISSING")),
    ] {
        let (code, reason) = refusal(admin.drain(cluster, name).await);
        assert_eq!((code, reason.as_str()), expected, "{cluster} {name}");
    }
    assert_eq!(ask(&client, "SELECT 1").await.expect("the primary takes reads"), "1");

    assert!(!admin.restore("", one.name()).await.expect("it is restored").drained);
    admin.restore("", two.name()).await.expect("it is restored");
    within("both take reads again", async { while read_from(&client).await.0 != [one.name(), two.name()] {} }).await;
    assert!(readers.end().await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lets_in_who_shows_its_token_and_without_one_programs_on_this_machine() {
    let bed = Bed::with(primary_alone(), |config| config.grpc.cors_origins = vec!["*".into()]).await;
    admin(&bed).await.topology().await.expect("a program on this machine is let in");
    assert!(reflected(&bed.url()).await.iter().any(|name| name == SERVICE));
    let raw = || async { AdminServiceClient::connect(bed.url()).await.expect("the broker accepts connections") };
    for (header, value) in [("origin", "http://localhost"), ("x-forwarded-for", "192.0.2.1")] {
        let mut request = Request::new(GetTopologyRequest {});
        request.metadata_mut().insert(header, value.parse().expect("a value"));
        let refused = raw().await.get_topology(request).await.expect_err("it is refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{header}");
    }
    // A page's own way, from an origin that may call the broker otherwise.
    let path = format!("POST /{SERVICE}/GetTopology HTTP/1.1");
    let message = GetTopologyRequest {}.encode_to_vec();
    let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    for origin in ["Origin: https://app.example.org\r\n", ""] {
        let head = format!("{path}\r\n{origin}Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1");
        let (head, body) = http(bed.app().grpc_address(), &head, &framed).await;
        let all = (head + &String::from_utf8_lossy(&body)).replace(": ", ":");
        assert!(all.contains("grpc-status:7"), "{all}");
    }

    // Bound to more than this machine it is there with a token only.
    let mut open = bed.config.clone();
    open.grpc.listen = "0.0.0.0:0".parse().expect("an address");
    let off = bed.second_broker(&open).await;
    let url = |app: &tidegate::app::App| format!("http://127.0.0.1:{}", app.grpc_address().port());
    let stranger = AdminClient::connect(url(&off)).await.expect("the broker accepts connections");
    assert_eq!(refusal(stranger.topology().await).0, Code::Unimplemented);
    assert_eq!(refusal(stranger.watch(None).await.map(drop)).0, Code::Unimplemented);
    assert!(!reflected(&url(&off)).await.iter().any(|name| name == SERVICE));

    // From a reload on with one: the same connection is asked for it.
    let token = "a-token-of-the-operators";
    open.admin.token = Some(Secret::new(token));
    off.apply(open.clone()).await.expect("nothing takes a restart");
    let invalid = (Code::Unauthenticated, "ADMIN_TOKEN_INVALID".to_owned());
    assert_eq!(refusal(stranger.topology().await), invalid);
    let with = |token: &str| stranger.clone().with_token(token).expect("a header's value");
    assert_eq!(refusal(with("another-token-of-them").topology().await), invalid);
    with(token).topology().await.expect("who shows it is let in");
    assert!(reflected(&url(&off)).await.iter().any(|name| name == SERVICE));

    // Another token: who has the former one is shown nothing more, also on a stream that is open.
    let operator = with(token);
    let mut watched = operator.watch(Some(std::time::Duration::from_millis(10))).await.expect("it is watched");
    within("the first state", watched.next()).await.expect("a state");
    open.admin.token = Some(Secret::new("the-next-token-of-them"));
    off.apply(open).await.expect("nothing takes a restart");
    let end = within("the stream ends", async {
        loop {
            if let Err(error) = watched.next().await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(end.code(), Code::Unauthenticated);
    assert_eq!(refusal(operator.drain("", bed.cluster.primary().name()).await), invalid);
    for method in [
        refusal(with("the-next-token-of-them").rollout("x").await),
        refusal(with("the-next-token-of-them").set_rollout("x", None, 1.0).await),
    ] {
        assert_eq!(method, (Code::NotFound, "DATABASE_UNKNOWN".to_owned()));
    }
    assert_eq!(refusal(with("the-next-token-of-them").reload().await).1, "CONFIG_INVALID", "it has no file");
    stop(off).await;
}
