//! Each method lets its caller in, translates, asks the broker, and translates back.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::{ReloadOffer, access::Access, access::Caller, reply, watch::Watcher};
use crate::{
    broker::{Broker, Failure, PlaceName, Reason},
    clock,
    grpc::{accept::Call, request, service::CallLimits},
    model::Percentage,
    proto::{self, admin_service_server::AdminService},
};

/// Between two answers of a watch that says nothing of it.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(10);
const WATCH_INTERVAL_MAX: Duration = Duration::from_secs(3600);

pub(in crate::grpc) struct Service {
    pub(in crate::grpc) broker: Arc<Broker>,
    pub(in crate::grpc) limits: CallLimits,
    pub(in crate::grpc) reload: ReloadOffer,
    /// Whether the port is bound to a loopback address.
    pub(in crate::grpc) is_loopback: bool,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Service {
    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<proto::WatchTopologyResponse, Status>> + Send>>;

    async fn get_topology(&self, request: Request<proto::GetTopologyRequest>) -> Answer<proto::GetTopologyResponse> {
        self.call("GetTopology", request, |_, _| async {
            let topology = reply::topology(&self.broker.report(), clock::now());
            Ok(proto::GetTopologyResponse { topology: Some(topology) })
        })
        .await
    }

    async fn watch_topology(&self, request: Request<proto::WatchTopologyRequest>) -> Answer<Self::WatchTopologyStream> {
        let call = Call::new(&self.broker, "WatchTopology", &request, "", "");
        match self.watcher(&call, &request) {
            Ok(watcher) => Ok(Response::new(Box::pin(watcher.messages(call)))),
            Err(failure) => Err(call.failed(&failure)),
        }
    }

    async fn explain_route(&self, request: Request<proto::ExplainRouteRequest>) -> Answer<proto::ExplainRouteResponse> {
        self.call("ExplainRoute", request, |message, metadata| async move {
            let context = request::context(message.context, &metadata)?;
            let account = match (message.write, message.options) {
                (true, None) => self.broker.explain_write(&context)?,
                (true, Some(_)) => {
                    let message = "options are a read's: leave them unset, or write";
                    return Err(Failure::field(Reason::FieldInvalid, "options", message));
                }
                (false, options) => {
                    let is_stated = request::states_consistency(options.as_ref());
                    let how = request::read_options("", options, usize::MAX)?;
                    self.broker.explain_read(&context, (how.consistency, is_stated), how.max_wait)?
                }
            };
            Ok(reply::route(&account))
        })
        .await
    }

    async fn drain_host(&self, request: Request<proto::DrainHostRequest>) -> Answer<proto::DrainHostResponse> {
        self.call("DrainHost", request, |message, _| async {
            Ok(proto::DrainHostResponse { host: Some(self.set_drained(message.host, true).await?) })
        })
        .await
    }

    async fn restore_host(&self, request: Request<proto::RestoreHostRequest>) -> Answer<proto::RestoreHostResponse> {
        self.call("RestoreHost", request, |message, _| async {
            Ok(proto::RestoreHostResponse { host: Some(self.set_drained(message.host, false).await?) })
        })
        .await
    }

    async fn settle_primary_conflict(
        &self,
        request: Request<proto::SettlePrimaryConflictRequest>,
    ) -> Answer<proto::SettlePrimaryConflictResponse> {
        self.call("SettlePrimaryConflict", request, |message, _| async {
            let report = self.broker.settle_conflict(&place(message.host)?).await?;
            let cluster = Some(reply::cluster(&report, clock::now()));
            Ok(proto::SettlePrimaryConflictResponse { cluster })
        })
        .await
    }

    async fn get_rollout(&self, request: Request<proto::GetRolloutRequest>) -> Answer<proto::GetRolloutResponse> {
        self.call("GetRollout", request, |message, _| async move {
            let rollout = reply::rollout(self.broker.rollout(&message.database)?);
            Ok(proto::GetRolloutResponse { rollout: Some(rollout) })
        })
        .await
    }

    async fn set_rollout(&self, request: Request<proto::SetRolloutRequest>) -> Answer<proto::SetRolloutResponse> {
        self.call("SetRollout", request, |message, _| async move {
            self.broker.set_rollout(&message.database, message.use_own, percentage(message.percentage)?)?;
            let rollout = reply::rollout(self.broker.rollout(&message.database)?);
            Ok(proto::SetRolloutResponse { rollout: Some(rollout) })
        })
        .await
    }

    async fn reload_config(&self, request: Request<proto::ReloadConfigRequest>) -> Answer<proto::ReloadConfigResponse> {
        self.call("ReloadConfig", request, |_, _| async {
            let Some(reload) = self.reload.get() else {
                let message = "this broker was not started with a configuration that can be read again";
                return Err(Failure::new(Reason::ConfigInvalid, message));
            };
            // Once begun it goes on to its end, whoever waits for it.
            let changes = tokio::spawn(reload()).await;
            let changes = changes.unwrap_or_else(|_| Err(Failure::new(Reason::Internal, "the reload failed")))?;
            let changes = changes.into_iter().map(|(key, what)| proto::ConfigChange { key, what });
            Ok(proto::ReloadConfigResponse { changes: changes.collect() })
        })
        .await
    }
}

impl Service {
    fn admit(&self, caller: &Caller) -> Result<(), Failure> {
        access(&self.limits, self.is_loopback).admit(caller)
    }

    /// A call with one answer: let in, bounded by its deadline, counted.
    async fn call<M, T, F>(
        &self,
        method: &'static str,
        request: Request<M>,
        answer: impl FnOnce(M, tonic::metadata::MetadataMap) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let call = Call::new(&self.broker, method, &request, "", "");
        let span = call.span().clone();
        let admitted = self.admit(&Caller::of(&request));
        let default_timeout = self.limits.changing.borrow().default_timeout;
        let deadline = admitted.and_then(|()| call.deadline(&request, default_timeout));
        let (metadata, _, message) = request.into_parts();
        let answered = match deadline {
            Ok(deadline) => {
                let answer = answer(message, metadata).instrument(span);
                let late = |_| Err(Failure::new(Reason::DeadlineExceeded, "the deadline passed before the answer"));
                tokio::time::timeout_at(deadline.instant().into(), answer).await.unwrap_or_else(late)
            }
            Err(failure) => Err(failure),
        };
        match answered {
            Ok(answer) => {
                call.succeeded();
                Ok(Response::new(answer))
            }
            Err(failure) => Err(call.failed(&failure)),
        }
    }

    fn watcher(
        &self,
        call: &Call,
        request: &Request<proto::WatchTopologyRequest>,
    ) -> Result<Watcher<impl Fn(&Caller) -> Result<(), Failure> + Send + use<>>, Failure> {
        let caller = Caller::of(request);
        self.admit(&caller)?;
        let deadline = call.given_deadline(request)?;
        let given = request.get_ref().min_interval;
        let interval = given.map_or(Ok(WATCH_INTERVAL), |given| request::duration("min_interval", given))?;
        if !(WATCH_INTERVAL_MIN..=WATCH_INTERVAL_MAX).contains(&interval) {
            let message = "min_interval is out of range; give 10 ms to an hour, or leave it unset";
            return Err(Failure::field(Reason::FieldInvalid, "min_interval", message));
        }
        let (limits, is_loopback) = (self.limits.clone(), self.is_loopback);
        let admit = move |caller: &Caller| access(&limits, is_loopback).admit(caller);
        Ok(Watcher::new(Arc::clone(&self.broker), admit, caller, interval, deadline))
    }

    async fn set_drained(&self, host: Option<proto::HostName>, drained: bool) -> Result<proto::HostState, Failure> {
        let (report, id) = self.broker.set_drained(&place(host)?, drained).await?;
        let found = report.host(id).map(|(host, pools)| reply::host(&report.view, host, pools, clock::now()));
        found.ok_or_else(|| Failure::new(Reason::HostUnknown, "the host has left the configuration"))
    }
}

/// As it is now: a reload may have changed the token.
fn access(limits: &CallLimits, is_loopback: bool) -> Access {
    Access::new(limits.changing.borrow().admin_token, is_loopback)
}

fn place(host: Option<proto::HostName>) -> Result<PlaceName, Failure> {
    let proto::HostName { cluster, host } = host.unwrap_or_default();
    if host.is_empty() {
        return Err(Failure::field(
            Reason::FieldMissing,
            "host",
            "host is missing; name the host by its configured name",
        ));
    }
    Ok(PlaceName { cluster, host })
}

/// 0 to 100, to a hundredth.
fn percentage(given: Option<f64>) -> Result<Percentage, Failure> {
    let Some(given) = given else {
        return Err(Failure::field(Reason::FieldMissing, "percentage", "percentage is missing; give 0 to 100"));
    };
    let hundredths = (given * 100.0).round();
    let in_steps = (hundredths - given * 100.0).abs() < 1e-6 && (0.0..=10_000.0).contains(&hundredths);
    Percentage::from_hundredths(hundredths as u16).filter(|_| in_steps).ok_or_else(|| {
        let message = format!("percentage is {given}; give 0 to 100, in steps of 0.01");
        Failure::field(Reason::FieldInvalid, "percentage", message)
    })
}
