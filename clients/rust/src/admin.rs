//! The operator's client: what a broker knows of its hosts, where a call would go, and what only people decide.

use std::time::Duration;

use tonic::{
    Request, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    client::endpoint,
    error::Error,
    proto::{self, admin_service_client::AdminServiceClient},
};

/// A client of one broker's admin service. Cloning is cheap; clones share the connection.
#[derive(Clone, Debug)]
pub struct AdminClient {
    stub: AdminServiceClient<Channel>,
    authorization: Option<MetadataValue<Ascii>>,
    timeout: Option<Duration>,
}

impl AdminClient {
    /// Connects to a broker, such as `http://127.0.0.1:7432`.
    ///
    /// # Errors
    /// [`Error::Connect`]
    pub async fn connect(url: impl Into<String>) -> Result<Self, Error> {
        Ok(Self::over(endpoint(url.into())?.connect().await.map_err(Error::Connect)?))
    }

    /// A client over a channel of your own.
    pub fn over(channel: Channel) -> Self {
        AdminClient { stub: AdminServiceClient::new(channel), authorization: None, timeout: None }
    }

    /// The same connection with the broker's `admin.token`.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it holds what no header can.
    pub fn with_token(mut self, token: &str) -> Result<Self, Error> {
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut value = value.map_err(|_| Error::Protocol("a token is one line of ASCII"))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// The same connection with a time limit for each call; watching has none. Default: the broker's own.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What the broker knows of its hosts now.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn topology(&self) -> Result<proto::Topology, Error> {
        let answer = self.stub().get_topology(self.request(proto::GetTopologyRequest {})).await?.into_inner();
        answer.topology.ok_or(NO_ANSWER)
    }

    /// The same now, and whenever it has changed, at most once in each `min_interval` (`None`: the broker's default).
    ///
    /// # Errors
    /// Any [`Error`] that a call can have; later ones come from the stream.
    pub async fn watch(&self, min_interval: Option<Duration>) -> Result<TopologyStream, Error> {
        let min_interval = min_interval.and_then(|interval| interval.try_into().ok());
        let mut request = self.request(proto::WatchTopologyRequest { min_interval });
        request.metadata_mut().remove("grpc-timeout");
        Ok(TopologyStream { stream: self.stub().watch_topology(request).await?.into_inner() })
    }

    /// Where a call would go now, and why.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn explain(&self, call: proto::ExplainRouteRequest) -> Result<proto::ExplainRouteResponse, Error> {
        Ok(self.stub().explain_route(self.request(call)).await?.into_inner())
    }

    /// Keeps new reads from a replica. The cluster may be empty if only one has a host of that name.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn drain(&self, cluster: &str, host: &str) -> Result<proto::HostState, Error> {
        let message = proto::DrainHostRequest { host: Some(name(cluster, host)) };
        self.stub().drain_host(self.request(message)).await?.into_inner().host.ok_or(NO_ANSWER)
    }

    /// Lets a drained host take reads again.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn restore(&self, cluster: &str, host: &str) -> Result<proto::HostState, Error> {
        let message = proto::RestoreHostRequest { host: Some(name(cluster, host)) };
        self.stub().restore_host(self.request(message)).await?.into_inner().host.ok_or(NO_ANSWER)
    }

    /// Decides for one of several hosts that claim to be the primary.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn settle_primary(&self, cluster: &str, host: &str) -> Result<proto::ClusterState, Error> {
        let message = proto::SettlePrimaryConflictRequest { host: Some(name(cluster, host)) };
        self.stub().settle_primary_conflict(self.request(message)).await?.into_inner().cluster.ok_or(NO_ANSWER)
    }

    /// How far a database has been moved.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn rollout(&self, database: &str) -> Result<proto::Rollout, Error> {
        let message = proto::GetRolloutRequest { database: database.to_owned() };
        self.stub().get_rollout(self.request(message)).await?.into_inner().rollout.ok_or(NO_ANSWER)
    }

    /// Sets how far a database has been moved: a percentage of sessions, or everybody or nobody whatever that is.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn set_rollout(
        &self,
        database: &str,
        use_own: Option<bool>,
        percentage: f64,
    ) -> Result<proto::Rollout, Error> {
        let message = proto::SetRolloutRequest { database: database.to_owned(), use_own, percentage: Some(percentage) };
        self.stub().set_rollout(self.request(message)).await?.into_inner().rollout.ok_or(NO_ANSWER)
    }

    /// Has the broker read its configuration anew; what was changed.
    ///
    /// # Errors
    /// Any [`Error`] that a call can have.
    pub async fn reload(&self) -> Result<Vec<proto::ConfigChange>, Error> {
        Ok(self.stub().reload_config(self.request(proto::ReloadConfigRequest {})).await?.into_inner().changes)
    }

    fn stub(&self) -> AdminServiceClient<Channel> {
        self.stub.clone()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }
}

const NO_ANSWER: Error = Error::Protocol("an answer is empty");

fn name(cluster: &str, host: &str) -> proto::HostName {
    proto::HostName { cluster: cluster.to_owned(), host: host.to_owned() }
}

/// The topology as it changes; from [`AdminClient::watch`]. Dropping it ends the watching.
#[derive(Debug)]
pub struct TopologyStream {
    stream: Streaming<proto::WatchTopologyResponse>,
}

impl TopologyStream {
    /// The next state. Safe to drop while it waits.
    ///
    /// # Errors
    /// What ends the stream, such as `DRAINING`.
    pub async fn next(&mut self) -> Result<proto::Topology, Error> {
        let answer = self.stream.message().await?.ok_or(Error::Cut)?;
        answer.topology.ok_or(NO_ANSWER)
    }
}
