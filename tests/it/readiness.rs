//! What orchestrators and load balancers are told: a broker is ready while it can serve something, and one cluster that is
//! away does not take the others with it.

use tidegate::{
    app::App,
    config::{ClusterConfig, Config, PostgresUrl},
    dev::Cluster,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    asking::primary_alone,
    harness::{config_for, poll_until, stop},
    server::{SERVICE, http},
};

/// What `/readyz` says.
async fn readiness(app: &App) -> (bool, String) {
    let (head, body) = http(app.http_address(), "GET /readyz HTTP/1.1", &[]).await;
    (head.starts_with("http/1.1 200"), String::from_utf8(body).expect("text"))
}

async fn until_ready(app: &App, ready: bool, body: &str) {
    poll_until(&format!("ready: {ready}"), async || readiness(app).await.0 == ready).await;
    assert_eq!(readiness(app).await.1, body);
}

async fn health(client: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.into() };
    client.check(request).await.expect("an answer").into_inner().status()
}

/// Another cluster, of one host where nobody listens.
fn with_nobody(config: &Config, name: &str) -> Config {
    let mut host = config.clusters[0].hosts[0].clone();
    host.url = PostgresUrl { port: 1, ..host.url };
    let mut config = config.clone();
    config.clusters.push(ClusterConfig { name: name.into(), hosts: vec![host], discovery: None });
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_ready_while_it_can_serve_some_cluster_and_says_which_it_cannot() {
    let cluster = Cluster::start(primary_alone()).await.expect("the cluster starts");
    let config = with_nobody(&config_for(&cluster), "away");
    let main = cluster.name();
    let proxy = cluster.primary().proxy();
    proxy.cut().await;
    let app = App::start(&config).await.expect("the broker starts");
    let nobody = format!(
        r#"{{"ready":false,"reasons":["cluster {main}: no host is up","cluster away: no host is up"],"impaired":[]}}"#
    );
    until_ready(&app, false, &nobody).await;
    let channel = Channel::from_shared(format!("http://{}", app.grpc_address())).expect("a URL");
    let mut client = HealthClient::new(channel.connect().await.expect("it connects"));
    assert_eq!(health(&mut client, "").await, ServingStatus::Serving, "the port takes calls");
    assert_eq!(health(&mut client, SERVICE).await, ServingStatus::NotServing, "nothing was found yet");

    proxy.restore().await;
    let impaired = r#"{"ready":true,"reasons":[],"impaired":["cluster away: no host is up"]}"#;
    until_ready(&app, true, impaired).await;
    poll_until("it serves", async || health(&mut client.clone(), SERVICE).await == ServingStatus::Serving).await;

    // Clients that heed health are not to be turned away from calls that may wait.
    proxy.cut().await;
    until_ready(&app, false, &nobody).await;
    assert_eq!(health(&mut client, SERVICE).await, ServingStatus::Serving);
    proxy.restore().await;
    until_ready(&app, true, impaired).await;

    // Every broker reads the same file: what is wrong with a cluster that it adds takes none of them out, at no moment.
    let more = with_nobody(&config, "new");
    let control = std::sync::Arc::clone(app.control());
    let applied = tokio::spawn(async move { control.apply(more).await.map(drop) });
    while !applied.is_finished() {
        let (ready, why) = readiness(&app).await;
        assert!(ready, "{why}");
    }
    applied.await.expect("it ends").expect("it is applied");
    let both = r#"{"ready":true,"reasons":[],"impaired":["cluster away: no host is up","cluster new: no host is up"]}"#;
    until_ready(&app, true, both).await;
    stop(app).await;
}
