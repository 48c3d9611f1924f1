//! Position tokens carry what was written to whoever holds them: other clients, other brokers, several at once.

use tidegate::{
    config::Secret,
    dev::{Cluster, ClusterOptions, DATABASE},
};
use tidegate_client::{
    Client, HostRole, RouteReason,
    proto::{self, broker_service_client::BrokerServiceClient},
};
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

use crate::harness::{
    Bed, READ_COUNTER, config_for, create_counters, pause_all, read_counter, read_counter_until, resume_all,
    set_counter, stop, within,
};

const METADATA: &str = "tidegate-position";

async fn bearer(bed: &Bed, token: &str) -> Client {
    bed.connect(Client::builder().position(token).remember_positions(false)).await
}

/// A read by the generated stub alone: its last message and where it ran.
async fn raw_read(bed: &Bed, positions: &[&str], metadata: &[&str]) -> Result<(proto::Receipt, String), tonic::Status> {
    let mut stub: BrokerServiceClient<Channel> = BrokerServiceClient::connect(bed.url()).await.expect("a connection");
    let mut request = Request::new(proto::ExecuteReadRequest {
        context: Some(proto::CallContext {
            database: DATABASE.into(),
            positions: positions.iter().map(|&token| token.to_owned()).collect(),
            ..Default::default()
        }),
        statement: Some(proto::Statement { sql: READ_COUNTER.into(), params: Vec::new() }),
        options: None,
    });
    for token in metadata {
        request.metadata_mut().append(METADATA, token.parse::<MetadataValue<_>>().expect("printable"));
    }
    let mut stream = stub.execute_read(request).await?.into_inner();
    let only = within("the result", stream.message()).await?.expect("a message");
    let receipt = only.header.and_then(|header| header.receipt).expect("a small result is one message");
    Ok((receipt, only.summary.expect("a small result is one message").position))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_binds_whoever_holds_it_and_nobody_else() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let token = set_counter(&bed.client().await, 1).await;
    let (holder, other) = (bearer(&bed, &token).await, bed.client().await);

    let (n, receipt) = read_counter(&holder).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (1, HostRole::Primary, RouteReason::Behind));
    let (n, receipt) = read_counter(&other).await;
    assert_eq!((n, receipt.role(), receipt.reason()), (0, HostRole::Replica, RouteReason::NoPosition));

    resume_all(&bed).await;
    let receipt = read_counter_until("a replica answers", &holder, 1, |r| r.role() == HostRole::Replica).await;
    assert_eq!(receipt.reason(), RouteReason::CaughtUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_field_and_of_the_metadata_count_alike_and_are_merged() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let replayed = set_counter(&bed.client().await, 1).await;
    read_counter_until("replay", &bearer(&bed, &replayed).await, 1, |r| r.role() == HostRole::Replica).await;
    pause_all(&bed).await;
    let pending = set_counter(&bed.client().await, 2).await;

    let joined = format!("{pending}, {replayed}");
    let ways: [(&[&str], &[&str]); 6] = [
        (&[&pending], &[]),
        (&[], &[&pending]),
        (&[&replayed, &pending], &[]),
        (&[&pending], &[&replayed]),
        (&[], &[&replayed, &pending]),
        (&[], &[&joined]),
    ];
    for (field, metadata) in ways {
        let (receipt, merged) = raw_read(&bed, field, metadata).await.expect("the read succeeds");
        assert_eq!(receipt.role(), HostRole::Primary, "{field:?} {metadata:?}");
        let (receipt, _) = raw_read(&bed, &[&merged], &[]).await.expect("the read succeeds");
        assert_eq!(receipt.role(), HostRole::Primary, "what came back stands for all of {field:?} {metadata:?}");
    }
    let (receipt, _) = raw_read(&bed, &[&replayed], &[&replayed]).await.expect("the read succeeds");
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Replica, RouteReason::CaughtUp));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_holds_positions_of_several_clusters() {
    let options = ClusterOptions { name: "second".into(), replicas: 1, ..ClusterOptions::default() };
    let second = Cluster::start(options).await.expect("the second cluster starts");
    let bed = Bed::with(ClusterOptions { replicas: 1, ..ClusterOptions::default() }, |config| {
        let mut other = config_for(&second);
        other.databases[0].name = "second".into();
        config.clusters.append(&mut other.clusters);
        config.databases.append(&mut other.databases);
    })
    .await;
    create_counters(&bed).await;
    let to_second = |token: &str| Client::builder().database("second").position(token).connect(bed.url());
    let blank = to_second("").await.expect("a connection");
    blank.execute("CREATE TABLE counters (id int PRIMARY KEY, n int)", []).await.expect("the table is created");
    blank.execute("INSERT INTO counters VALUES (1, 0)", []).await.expect("the row is inserted");
    read_counter_until("replay", &blank, 0, |r| r.role() == HostRole::Replica).await;
    pause_all(&bed).await;
    second.replica(0).pause_replay().await.expect("replay pauses");

    let first_token = set_counter(&bed.client().await, 1).await;
    let both = set_counter(&to_second(&first_token).await.expect("a connection"), 2).await;
    let (n, receipt) = read_counter(&bearer(&bed, &both).await).await;
    assert_eq!((n, receipt.role(), receipt.cluster.as_str()), (1, HostRole::Primary, bed.cluster.name()));
    let (n, receipt) = read_counter(&to_second(&both).await.expect("a connection")).await;
    assert_eq!((n, receipt.role(), receipt.cluster.as_str()), (2, HostRole::Primary, "second"));
    // And the first token says nothing of the second cluster.
    let (n, receipt) = read_counter(&to_second(&first_token).await.expect("a connection")).await;
    assert_eq!((n, receipt.role()), (0, HostRole::Replica));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_returns_a_token_in_its_trailer() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    pause_all(&bed).await;
    let mut stub = BrokerServiceClient::connect(bed.url()).await.expect("a connection");
    let duplicate = proto::ExecuteWriteRequest {
        context: Some(proto::CallContext { database: DATABASE.into(), ..Default::default() }),
        statements: vec![proto::Statement { sql: "INSERT INTO counters VALUES (1, 7)".into(), params: Vec::new() }],
        ..Default::default()
    };
    let status = stub.execute_write(duplicate).await.expect_err("a duplicate key");
    assert_eq!(status.code(), Code::AlreadyExists);
    let token = status.metadata().get(METADATA).expect("a token").to_str().expect("text").to_owned();
    // An error does not prove that nothing was written: the token binds to what was.
    let (receipt, _) = raw_read(&bed, &[&token], &[]).await.expect("the read succeeds");
    assert_eq!((receipt.role(), receipt.reason()), (HostRole::Primary, RouteReason::Behind));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_none_and_one_of_another_deployment_are_refused_and_counted() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let mut config = config_for(&bed.cluster);
    config.tokens.secret = Some(Secret::new("the secret of another deployment"));
    let stranger = bed.second_broker(&config).await;
    let url = format!("http://{}", stranger.grpc_address());
    let to_stranger = Client::builder().database(DATABASE).connect(url).await.expect("a connection");
    let foreign = set_counter(&to_stranger, 1).await;

    for (token, reason, kind) in
        [("not a token", "POSITION_MALFORMED", "malformed"), (&foreign, "POSITION_FOREIGN", "foreign")]
    {
        let error = bearer(&bed, token).await.read(READ_COUNTER, []).await.expect_err("the token is refused");
        assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, reason));
        let error = bearer(&bed, token).await.execute("SELECT 1", []).await.expect_err("the token is refused");
        assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, reason));
        let status = raw_read(&bed, &[], &[token]).await.expect_err("the token is refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(bed.metric(&["tidegate_position_tokens_refused_total", kind]), 3.0);
    }
    stop(stranger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_broker_binds_at_another() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let second = bed.second_broker(&bed.config).await;
    let url = format!("http://{}", second.grpc_address());
    let there = |token: &str| Client::builder().database(DATABASE).position(token).connect(url.clone());
    for n in 1..=5 {
        pause_all(&bed).await;
        let token = set_counter(&bed.client().await, n).await;
        let holder = there(&token).await.expect("a connection");
        let (read, receipt) = read_counter(&holder).await;
        assert_eq!((read, receipt.role(), receipt.reason()), (n, HostRole::Primary, RouteReason::Behind));
        resume_all(&bed).await;
        let receipt = read_counter_until("a replica", &holder, n, |r| r.role() == HostRole::Replica).await;
        assert_eq!(receipt.reason(), RouteReason::CaughtUp);
    }
    stop(second).await;
}
