//! Defaults and timeouts that a call may leave out or get wrong, and what a session cannot do yet: refused by name.

use tidegate_client::{
    Outcome,
    proto::{self, session_request::Request},
};
use tonic::Code;

use crate::{
    asking::{begin, failure, read_request, session_read, stub},
    bad_input::start,
};

const INVALID: Code = Code::InvalidArgument;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_name_means_the_only_one_and_a_wrong_timeout_is_refused() {
    let bed = start().await;
    let mut stub = stub(&bed).await;
    let mut request = read_request("SELECT 1", vec![]);
    request.context = None;
    stub.execute_read(request.clone()).await.expect("the only database is meant");
    for timeout in ["5 parsecs", "", "-1S", "123456789S"] {
        let mut late = tonic::Request::new(request.clone());
        late.metadata_mut().insert("grpc-timeout", timeout.parse().expect("metadata"));
        let error = stub.execute_read(late).await.map(drop).expect_err("a wrong timeout").into();
        let failure = failure(&error);
        let is = (failure.code, failure.reason.as_str(), failure.field.as_str(), failure.outcome);
        assert_eq!(is, (INVALID, "FIELD_INVALID", "grpc-timeout", Outcome::NotExecuted), "{timeout:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_cannot_do_yet_is_refused_by_name_and_the_session_goes_on() {
    let bed = start().await;
    let mut session = bed.client().await.raw_session().await.expect("the session opens");
    let key = || "k".to_owned();
    let keyed = proto::SessionBegin { idempotency_key: key(), ..Default::default() };
    let cases = [(Request::Begin(keyed), "begin.idempotency_key")];
    for (request, field) in cases {
        session.send(0, None, request).expect("it is sent");
        let answer = session.receive().await.expect("an answer");
        let Some(proto::session_response::Response::Failure(failure)) = answer.response else {
            panic!("{field}: {answer:?}")
        };
        let is = (Code::from_i32(failure.code), failure.reason.as_str(), failure.field.as_str(), failure.outcome());
        assert_eq!(is, (Code::Unimplemented, "FIELD_UNSUPPORTED", field, Outcome::NotExecuted));
        assert!(failure.message.contains(field), "{}", failure.message);
    }
    session.send(0, None, begin()).expect("it is sent");
    assert!(matches!(
        session.receive().await.expect("an answer").response,
        Some(proto::session_response::Response::Done(_))
    ));
    session.send(0, None, session_read("SELECT 1")).expect("it is sent");
    assert!(session.receive().await.expect("an answer").last);
    session.close().await.expect("the session ends well");
}
