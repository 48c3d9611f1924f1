//! The client against a server of a few lines that answers what each test says: wire form, errors, order, positions.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{TcpListenerStream, UnboundedReceiverStream},
};
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap, transport::Server};

use crate::{
    Begin, Client, Error, Outcome, ReadOptions, Statement, Value, ValueRef, params,
    proto::{
        self, ColumnKind, ExecuteReadResponse, ExecuteWriteResponse, SessionRequest, SessionResponse,
        broker_service_server::{BrokerService, BrokerServiceServer},
        session_request::Request as Asked,
        session_response::Response as Answer,
    },
};

mod session_tokens;

/// A token that the server's sessions refuse.
const FOREIGN: &str = "foreign";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the server answers, and what it was asked.
#[derive(Default)]
struct Script {
    read: Mutex<Vec<Result<ExecuteReadResponse, Status>>>,
    read_hangs: bool,
    write: Mutex<Vec<Result<ExecuteWriteResponse, Status>>>,
    asked: Mutex<Vec<(MetadataMap, proto::CallContext)>>,
    session_asked: Mutex<Vec<SessionRequest>>,
}

struct Scripted(Arc<Script>);

#[tonic::async_trait]
impl BrokerService for Scripted {
    type ExecuteReadStream = Answers<ExecuteReadResponse>;
    type SessionStream = Answers<SessionResponse>;
    type ListenStream = Answers<proto::ListenResponse>;

    async fn execute_read(
        &self,
        request: Request<proto::ExecuteReadRequest>,
    ) -> Result<Response<Self::ExecuteReadStream>, Status> {
        let metadata = request.metadata().clone();
        self.0.asked.lock().unwrap().push((metadata, request.into_inner().context.unwrap()));
        let answers = tokio_stream::iter(std::mem::take(&mut *self.0.read.lock().unwrap()));
        if self.0.read_hangs {
            return Ok(Response::new(Box::pin(answers.chain(tokio_stream::pending()))));
        }
        Ok(Response::new(Box::pin(answers)))
    }

    async fn execute_write(
        &self,
        request: Request<proto::ExecuteWriteRequest>,
    ) -> Result<Response<ExecuteWriteResponse>, Status> {
        let metadata = request.metadata().clone();
        self.0.asked.lock().unwrap().push((metadata, request.into_inner().context.unwrap()));
        self.0.write.lock().unwrap().remove(0).map(Response::new)
    }

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let script = Arc::clone(&self.0);
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            script.session_asked.lock().unwrap().push(request.clone());
            Ok(session_answers(&request))
        });
        Ok(Response::new(flattened(answers)))
    }

    async fn listen(&self, _: Request<proto::ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        Err(Status::unimplemented("listen"))
    }
}

/// The answers of all lists, in order; tokio-stream has no combinator for it.
fn flattened(
    lists: impl Stream<Item = Result<Vec<SessionResponse>, Status>> + Send + 'static,
) -> Answers<SessionResponse> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lists = Box::pin(lists);
        while let Some(list) = lists.next().await {
            match list {
                Ok(list) => list.into_iter().for_each(|answer| drop(sender.send(Ok(answer)))),
                Err(status) => drop(sender.send(Err(status))),
            }
        }
    });
    Box::pin(UnboundedReceiverStream::new(receiver))
}

fn session_answers(request: &SessionRequest) -> Vec<SessionResponse> {
    let answer = |last, answer| SessionResponse {
        request_id: request.request_id,
        last,
        response: Some(answer),
        ..Default::default()
    };
    if request.positions.iter().any(|token| token == FOREIGN) {
        let refused = proto::Failure { reason: "POSITION_MALFORMED".into(), ..Default::default() };
        return vec![answer(true, Answer::Failure(refused))];
    }
    match request.request.as_ref().unwrap() {
        Asked::Open(_) => {
            let notice = proto::SessionNotice { message: "hello".into(), ..Default::default() };
            let opened = proto::SessionOpened { max_unanswered: 3, ..Default::default() };
            vec![
                SessionResponse { response: Some(Answer::Notice(notice)), ..Default::default() },
                answer(true, Answer::Opened(opened)),
            ]
        }
        Asked::Read(_) => {
            let (first, rest) = (part(Some(&[Some(1)]), true, None), part(Some(&[Some(2)]), false, Some(2)));
            vec![answer(false, Answer::Read(first)), answer(true, Answer::Read(rest))]
        }
        Asked::Write(write) if write.statement.as_ref().unwrap().sql == "fail" => {
            vec![answer(true, Answer::Failure(failure()))]
        }
        Asked::Write(_) => {
            let mut written =
                answer(true, Answer::Write(proto::StatementResult { rows_affected: 1, ..Default::default() }));
            written.position = format!("token-{}", request.request_id);
            vec![written]
        }
        _ => vec![answer(true, Answer::Done(proto::SessionDone::default()))],
    }
}

async fn serve(script: Script) -> (Arc<Script>, String) {
    let script = Arc::new(script);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = BrokerServiceServer::new(Scripted(Arc::clone(&script)));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (script, url)
}

/// A message of a result with one bigint column `id`.
fn part(ids: Option<&[Option<i64>]>, header: bool, summary: Option<u64>) -> ExecuteReadResponse {
    let column = proto::Column {
        name: "id".into(),
        kind: ColumnKind::Int64.into(),
        type_name: "int8".into(),
        ..Default::default()
    };
    ExecuteReadResponse {
        header: header.then(|| proto::ReadHeader {
            columns: vec![column],
            receipt: Some(proto::Receipt { host: "a".into(), ..Default::default() }),
        }),
        rows: ids.map(|ids| {
            let mut nulls = vec![0; ids.len().div_ceil(8)];
            ids.iter().enumerate().filter(|(_, id)| id.is_none()).for_each(|(i, _)| nulls[i / 8] |= 1 << (i % 8));
            let values = ids.iter().map(|id| id.unwrap_or_default()).collect();
            proto::RowBatch {
                row_count: ids.len() as u32,
                columns: vec![proto::ColumnValues { nulls, int64s: values, ..Default::default() }],
            }
        }),
        summary: summary.map(|row_count| proto::ReadSummary { row_count, position: "token-r".into() }),
    }
}

fn failure() -> proto::Failure {
    proto::Failure {
        code: Code::AlreadyExists.into(),
        message: "duplicate key".into(),
        reason: "UNIQUE_VIOLATION".into(),
        outcome: Outcome::RolledBack.into(),
        postgres: Some(proto::PostgresError { sqlstate: "23505".into(), ..Default::default() }),
        retry_delay: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        position: "token-f".into(),
        ..Default::default()
    }
}

fn failed_status() -> Status {
    let any = prost_types::Any {
        type_url: "type.googleapis.com/tidegate.v1.Failure".into(),
        value: failure().encode_to_vec(),
    };
    let details =
        tonic_types::Status { code: Code::AlreadyExists.into(), message: "duplicate key".into(), details: vec![any] };
    let mut status = Status::with_details(Code::AlreadyExists, "duplicate key", details.encode_to_vec().into());
    status.metadata_mut().insert("tidegate-position", "token-t".parse().unwrap());
    status
}

#[tokio::test]
async fn a_small_result_is_read_and_its_token_travels_on() {
    let script =
        Script { read: Mutex::new(vec![Ok(part(Some(&[Some(7), None]), true, Some(2)))]), ..Default::default() };
    let (script, url) = serve(script).await;
    let client =
        Client::builder().database("shop").session_id("s").timeout(Duration::from_secs(5)).connect(url).await.unwrap();
    let rows = client.read("SELECT 1", params![1, "x"]).await.unwrap().rows().await.unwrap();
    assert_eq!((rows.len(), rows.receipt().host.as_str(), rows.position()), (2, "a", "token-r"));
    let ids: Vec<Option<i64>> = rows.iter().map(|row| row.get("id").unwrap()).collect();
    assert_eq!(ids, [Some(7), None]);
    let second = rows.iter().nth(1).unwrap();
    assert_eq!(second.values().collect::<Vec<_>>(), [ValueRef::Null]);
    assert!(matches!(second.get::<i64>(0), Err(Error::WrongType { .. })));
    assert!(matches!(second.get::<i64>("no"), Err(Error::NoColumn(_))));

    assert!(matches!(client.read("SELECT 1", []).await, Err(Error::Cut)));
    let asked = script.asked.lock().unwrap();
    assert_eq!((asked[0].1.database.as_str(), asked[0].1.session_id.as_str()), ("shop", "s"));
    assert!(asked[0].0.contains_key("grpc-timeout"));
    assert_eq!(asked[0].1.positions, [""; 0]);
    assert_eq!(asked[1].1.positions, ["token-r"]);
}

#[tokio::test]
async fn a_stream_without_a_summary_is_cut() {
    let messages = vec![Ok(part(Some(&[Some(1)]), true, None)), Ok(part(Some(&[Some(2)]), false, None))];
    let (_, url) = serve(Script { read: Mutex::new(messages), ..Default::default() }).await;
    let mut stream = Client::connect(url).await.unwrap().read("SELECT 1", []).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 1);
    assert_eq!(stream.next().await.unwrap().unwrap().len(), 1);
    assert!(matches!(stream.next().await, Err(Error::Cut)));
}

#[tokio::test]
async fn results_that_contradict_themselves_are_errors() {
    let mut short = part(Some(&[Some(1)]), true, Some(1));
    short.rows.as_mut().unwrap().row_count = 2;
    let contradictions = [
        vec![Ok(part(None, false, Some(0)))],
        vec![Ok(part(None, true, Some(3)))],
        vec![Ok(part(None, true, None)), Ok(part(None, true, None))],
        vec![Ok(part(None, true, Some(0))), Ok(part(None, false, None))],
        vec![Ok(short)],
    ];
    for messages in contradictions {
        let (_, url) = serve(Script { read: Mutex::new(messages), ..Default::default() }).await;
        let client = Client::connect(url).await.unwrap();
        let error = match client.read("SELECT 1", []).await {
            Ok(stream) => stream.rows().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, Error::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn a_failure_is_decoded_and_its_token_remembered() {
    let (_, url) = serve(Script { write: Mutex::new(vec![Err(failed_status())]), ..Default::default() }).await;
    let client = Client::connect(url).await.unwrap();
    let error = client.write([Statement::new("INSERT").bind(1)]).await.unwrap_err();
    assert_eq!(
        (error.code(), error.reason(), error.sqlstate()),
        (Code::AlreadyExists, "UNIQUE_VIOLATION", Some("23505"))
    );
    assert_eq!(error.outcome(), Outcome::RolledBack);
    assert_eq!(error.failure().unwrap().retry_delay, Some(Duration::from_secs(1)));
    assert!(!error.is_unreachable());
    assert_eq!(client.positions(), ["token-t"]);
}

#[tokio::test]
async fn a_failure_behind_the_first_rows_ends_the_stream() {
    let messages = vec![Ok(part(Some(&[Some(1)]), true, None)), Err(failed_status())];
    let (_, url) = serve(Script { read: Mutex::new(messages), ..Default::default() }).await;
    let client = Client::connect(url).await.unwrap();
    let error = client.read("SELECT 1", []).await.unwrap().rows().await.unwrap_err();
    assert_eq!(error.reason(), "UNIQUE_VIOLATION");
    assert_eq!(client.positions(), ["token-t"]);
}

#[tokio::test]
async fn memories_are_shared_by_clones_only() {
    let written = || Ok(ExecuteWriteResponse { position: "token-w".into(), ..Default::default() });
    let (script, url) = serve(Script { write: Mutex::new(vec![written(), written()]), ..Default::default() }).await;
    let client = Client::builder().session_id("a").position("given").connect(url).await.unwrap();
    let (other, with) = (client.for_session("b"), client.with_position("more"));
    client.clone().execute("INSERT", []).await.unwrap();
    assert_eq!(client.positions(), ["token-w"]);
    assert!(other.positions().is_empty());
    assert_eq!(with.positions(), ["given", "more"]);
    other.execute("INSERT", []).await.unwrap();
    let asked = script.asked.lock().unwrap();
    assert_eq!((asked[0].1.session_id.as_str(), asked[1].1.session_id.as_str()), ("a", "b"));
}

#[tokio::test]
async fn the_time_limit_covers_the_stream() {
    let messages = vec![Ok(part(Some(&[Some(1)]), true, None))];
    let (_, url) = serve(Script { read: Mutex::new(messages), read_hangs: true, ..Default::default() }).await;
    let client = Client::connect(url).await.unwrap();
    let options = ReadOptions::new().timeout(Duration::from_millis(300));
    let error = client.read_with("SELECT 1", [], options).await.unwrap().rows().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error}");
    assert_eq!((error.code(), error.outcome()), (Code::DeadlineExceeded, Outcome::Unknown));
}

#[tokio::test]
async fn no_broker_is_told_apart_from_a_failure() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let error = Client::connect(url.as_str()).await.unwrap_err();
    assert!(error.is_unreachable() && error.outcome() == Outcome::NotExecuted, "{error}");
    let error = Client::builder().connect_lazy(url).unwrap().read("SELECT 1", []).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert!(Client::connect("not a url").await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_session_numbers_its_requests_and_rolls_back_what_is_dropped() {
    let (script, url) = serve(Script::default()).await;
    let client = Client::connect(url).await.unwrap();
    let mut session = client.session().await.unwrap();
    assert_eq!(session.take_notice().unwrap().message, "hello");

    let mut transaction = session.begin(Begin::new()).await.unwrap(); // 2
    assert_eq!(transaction.write("INSERT", params![Value::Null]).await.unwrap().rows_affected, 1); // 3
    drop(transaction.read("SELECT 1", []).await.unwrap()); // 4: its second half is passed over
    transaction.commit().await.unwrap(); // 5
    drop(session.begin(Begin::new().read_only()).await.unwrap()); // 6, and 7: its rollback
    let error = session.write("fail", []).await.unwrap_err(); // 8
    assert_eq!((error.reason(), error.outcome()), ("UNIQUE_VIOLATION", Outcome::RolledBack));
    let rows = session.read("SELECT 1", [], ReadOptions::new()).await.unwrap().rows().await.unwrap(); // 9
    assert_eq!(rows.iter().map(|row| row.get::<i64>(0).unwrap()).sum::<i64>(), 3);
    session.close().await.unwrap();

    let asked = script.session_asked.lock().unwrap();
    let ids: Vec<_> = asked.iter().map(|request| (request.request_id, request.transaction_id)).collect();
    assert_eq!(ids, [(1, 0), (2, 0), (3, 2), (4, 2), (5, 2), (6, 0), (7, 6), (8, 0), (9, 0)]);
    assert!(matches!(asked[6].request, Some(Asked::Rollback(_))));
    assert_eq!(client.positions(), ["token-r"]);
}

#[tokio::test]
async fn a_raw_session_pipelines_up_to_the_limit() {
    let (_, url) = serve(Script::default()).await;
    let mut session = Client::connect(url).await.unwrap().raw_session().await.unwrap();
    let write = || {
        Asked::Write(proto::SessionWrite { statement: Some(Statement::new("x").into_proto()), ..Default::default() })
    };
    let begin = session.send(0, None, Asked::Begin(proto::SessionBegin::default())).unwrap();
    session.send(begin, None, write()).unwrap();
    let commit = session.send(begin, None, Asked::Commit(proto::SessionCommit {})).unwrap();
    assert!(matches!(session.send(0, None, write()), Err(Error::TooManyUnanswered)));
    let mut answered = 0;
    while answered != commit {
        answered = session.receive().await.unwrap().request_id;
    }
    assert_eq!(session.unanswered(), 0);
    session.send(0, None, write()).unwrap();
}

#[tokio::test]
async fn a_raw_session_that_is_never_without_a_request_remembers_one_token() {
    let (script, url) = serve(Script::default()).await;
    let client = Client::connect(url).await.unwrap();
    let mut session = client.raw_session().await.unwrap();
    let write = || {
        Asked::Write(proto::SessionWrite { statement: Some(Statement::new("x").into_proto()), ..Default::default() })
    };
    session.send(0, None, write()).unwrap();
    for _ in 0..40 {
        session.send(0, None, write()).unwrap();
        let answer = session.receive().await.unwrap();
        assert_eq!(client.positions(), [answer.position]);
    }
    let asked = script.session_asked.lock().unwrap();
    assert!(asked.iter().all(|request| request.positions.is_empty()), "it has them all: {asked:?}");
}
