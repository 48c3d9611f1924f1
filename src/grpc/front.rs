//! The way of a call from its connection to the services. Nearly all are plain gRPC calls to the broker's service, which
//! get there without passing what only pages in browsers need (CORS, gRPC-Web) and what tells services apart.

use std::{convert::Infallible, net::IpAddr};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, Version, header};
use hyper::{body::Incoming, service::Service};
use tonic::body::Body;
use tower::{Service as _, ServiceExt, util::BoxCloneSyncService};

use super::{accept::Peer, limit, service::Service as Adapter};
use crate::gather::Sharers;
use crate::proto::broker_service_server::{BrokerServiceServer, SERVICE_NAME};

/// All services, with all that stands in front of them.
pub(super) type Stack = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// The services of one connection.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) broker: BrokerServiceServer<Adapter>,
    pub(super) others: Stack,
    /// The largest request message, in bytes.
    pub(super) max_request_bytes: usize,
    /// Where the connection comes from.
    pub(super) peer: Peer,
    /// The calls on the connection that wait for their answers to begin.
    pub(super) waiting: Sharers,
}

impl Front {
    /// The same for another connection.
    pub(super) fn come_from(&self, peer: IpAddr) -> Front {
        Front { peer: Peer(peer), waiting: Sharers::of_answers(), ..self.clone() }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        let waits = self.waiting.enter();
        if !is_plain_call(&request) {
            return self.others.clone().oneshot(request).inspect(move |_| drop(waits)).boxed();
        }
        let limit = self.max_request_bytes;
        let request = request.map(|body| limit::Limited::new(body, limit));
        let answer = self.broker.clone().call(request);
        let answered = move |answer: Result<_, _>| {
            drop(waits);
            answer.map(|response| limit::response(response, limit))
        };
        answer.map(answered).boxed()
    }
}

/// Whether it is a gRPC call to the broker's service, and not from a page in a browser.
fn is_plain_call<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let is_grpc = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    });
    let path = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    is_grpc
        && path.is_some_and(|rest| rest.starts_with('/'))
        && request.version() == Version::HTTP_2
        && !headers.contains_key(header::ORIGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_grpc_calls_to_the_broker_take_the_short_way() {
        let call = |path: &str, version, headers: &[(&str, &str)]| {
            let mut request = Request::post(path).version(version);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            is_plain_call(&request.body(()).unwrap())
        };
        let read = "/tidegate.v1.BrokerService/ExecuteRead";
        let (h2, grpc) = (Version::HTTP_2, ("content-type", "application/grpc"));
        assert!(call(read, h2, &[grpc]));
        assert!(call(read, h2, &[("content-type", "application/grpc+proto"), ("te", "trailers")]));
        for (path, version, headers) in [
            (read, h2, &[("content-type", "application/grpc-web+proto")][..]),
            (read, h2, &[grpc, ("origin", "https://app.example")]),
            (read, Version::HTTP_11, &[grpc]),
            (read, h2, &[("content-type", "text/plain")]),
            (read, h2, &[]),
            ("/tidegate.v1.BrokerServiceX/ExecuteRead", h2, &[grpc]),
            ("/tidegate.v1.AdminService/GetTopology", h2, &[grpc]),
            ("/grpc.health.v1.Health/Check", h2, &[grpc]),
        ] {
            assert!(!call(path, version, headers), "{path} {version:?} {headers:?}");
        }
    }
}
