//! Position tokens that come with a session's requests.

use tidegate_client::{
    Client, HostRole,
    proto::{self, SessionRequest, SessionResponse, session_request::Request, session_response::Response},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    asking::{begin, commit, context, primary_alone, session_read, session_write, stub, tell},
    harness::{Bed, create_counters, pause_all, read_counter, resume_all, set_counter, within},
};

struct Stream {
    requests: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
    id: u64,
}

impl Stream {
    async fn open(bed: &Bed, tokens: &[&str]) -> Stream {
        let (requests, queue) = mpsc::channel(1);
        let mut stub = stub(bed).await;
        let positions = tokens.iter().map(|&token| token.to_owned()).collect();
        let context = context().map(|context| proto::CallContext { positions, ..context });
        let open = Request::Open(proto::SessionOpen { context });
        let first = SessionRequest { request_id: 1, request: Some(open), ..Default::default() };
        requests.send(first).await.expect("it is sent");
        let responses = stub.session(ReceiverStream::new(queue)).await.expect("a session").into_inner();
        let mut stream = Stream { requests, responses, id: 1 };
        assert!(matches!(stream.last().await.response, Some(Response::Opened(_))));
        stream
    }

    async fn last(&mut self) -> SessionResponse {
        within("an answer", async {
            loop {
                let response = self.responses.message().await.expect("no status").expect("a response");
                if response.last {
                    return response;
                }
            }
        })
        .await
    }

    async fn ask(&mut self, transaction: u64, tokens: &[&str], request: Request) -> SessionResponse {
        self.id += 1;
        let positions = tokens.iter().map(|&token| token.to_owned()).collect();
        let (request_id, transaction_id) = (self.id, transaction);
        let request =
            SessionRequest { request_id, transaction_id, positions, request: Some(request), ..Default::default() };
        self.requests.send(request).await.expect("it is sent");
        self.last().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_requests_may_bring_tokens_and_a_bad_one_spoils_its_own_request_only() {
    let bed = Bed::with(primary_alone(), |_| {}).await;
    let client = bed.client().await;
    tell(&client, "CREATE TABLE marks (n int)").await.expect("the table is made");
    let token = client.execute("INSERT INTO marks VALUES (0)", []).await.expect("a write").position;

    let mut session = Stream::open(&bed, &[]).await;
    let begun = session.ask(0, &[&token], begin()).await;
    assert!(matches!(begun.response, Some(Response::Done(_))), "{begun:?}");
    let transaction = begun.request_id;
    for _ in 0..40 {
        let written = session.ask(transaction, &[&token], session_write("INSERT INTO marks VALUES (1)")).await;
        assert!(matches!(written.response, Some(Response::Write(_))), "{written:?}");
    }
    let refused = session.ask(transaction, &["no token"], session_write("INSERT INTO marks VALUES (2)")).await;
    let Some(Response::Failure(failure)) = refused.response else { panic!("it is refused: {refused:?}") };
    assert_eq!(failure.reason, "POSITION_MALFORMED");
    assert_eq!((&*refused.position, &*failure.position), ("", ""), "nothing of what it brought is taken in");
    // What fails for another reason has taken in what it brought, and says so.
    for failing in [session_write("no statement"), session_read("no statement"), commit()] {
        let failed = Stream::open(&bed, &[]).await.ask(0, &[&token], failing).await;
        assert!(matches!(failed.response, Some(Response::Failure(_))), "{failed:?}");
        assert!(!failed.position.is_empty(), "{failed:?}");
    }

    let committed = session.ask(transaction, &[&token], commit()).await;
    assert!(matches!(committed.response, Some(Response::Done(_))), "{committed:?}");
    assert!(!committed.position.is_empty(), "what was committed must be seen from now on");
    let read = session.ask(0, &[&token], session_read("SELECT count(*) FROM marks WHERE n = 1")).await;
    assert!(matches!(read.response, Some(Response::Read(_))), "{read:?}");
    assert_eq!(tell(&client, "SELECT count(*) FROM marks").await.expect("a count"), "41");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_answers_stands_for_all_tokens_that_it_was_opened_with() {
    let bed = Bed::start().await;
    create_counters(&bed).await;
    let writer = bed.session_client("writer").await;
    let lower = set_counter(&writer, 1).await;
    bed.wait_until_caught_up().await;
    pause_all(&bed).await;
    let higher = set_counter(&writer, 2).await;

    let mut session = Stream::open(&bed, &[&higher, &lower]).await;
    let begun = session.ask(0, &[], begin()).await;
    let bearer = bed.connect(Client::builder().position(begun.position)).await;
    let (n, receipt) = read_counter(&bearer).await;
    assert_eq!((n, receipt.role()), (2, HostRole::Primary), "the replicas have replayed the lower one only");
    resume_all(&bed).await;
}
