//! Which tokens a session's requests bring, and which a client drops, when a broker refuses one of them.

use super::{Asked, Begin, Client, Error, ExecuteWriteResponse, FOREIGN, Mutex, Script, Statement, proto, serve};

/// A server whose writes outside of sessions return these tokens.
fn writes_return(tokens: &[&str]) -> Script {
    let written = |&token: &&str| Ok(ExecuteWriteResponse { position: token.to_owned(), ..Default::default() });
    Script { write: Mutex::new(tokens.iter().map(written).collect()), ..Default::default() }
}

fn sorted(mut tokens: Vec<String>) -> Vec<String> {
    tokens.sort();
    tokens
}

#[tokio::test]
async fn tokens_of_a_refused_session_request_are_kept_and_brought_again() {
    let (script, url) = serve(writes_return(&["a", FOREIGN])).await;
    let client = Client::connect(url).await.unwrap();
    let mut session = client.raw_session().await.unwrap();
    let write = || {
        Asked::Write(proto::SessionWrite { statement: Some(Statement::new("x").into_proto()), ..Default::default() })
    };
    // At the same time: neither token covers the other.
    let (one, other) = tokio::join!(client.execute("INSERT", []), client.execute("INSERT", []));
    assert!(one.is_ok() && other.is_ok());

    // The second was sent before the first was refused: it must not run without "a" either.
    let pipelined = [session.send(0, None, write()).unwrap(), session.send(0, None, write()).unwrap()];
    for id in pipelined {
        let answer = session.receive().await.unwrap();
        assert_eq!((answer.request_id, answer.position.as_str()), (id, ""), "{answer:?}");
        assert_eq!(sorted(client.positions()), ["a", FOREIGN]);
    }
    session.send(0, None, write()).unwrap();
    session.receive().await.unwrap();
    assert_eq!(sorted(client.positions()), ["a", FOREIGN]);
    let asked = script.session_asked.lock().unwrap();
    assert!(asked[1..].iter().all(|request| sorted(request.positions.clone()) == ["a", FOREIGN]), "{asked:?}");
}

#[tokio::test]
async fn no_token_keeps_a_transaction_from_its_end() {
    let (script, url) = serve(writes_return(&[FOREIGN])).await;
    let client = Client::connect(url).await.unwrap();
    let mut session = client.session().await.unwrap();
    let mut transaction = session.begin(Begin::new()).await.unwrap(); // 2
    client.execute("INSERT", []).await.unwrap();
    transaction.write("INSERT", []).await.unwrap(); // 3
    transaction.commit().await.unwrap(); // 4
    let refused = session.write("INSERT", []).await.unwrap_err(); // 5
    assert!(matches!(refused, Error::Failed(_)), "{refused:?}");
    assert_eq!(client.positions(), [FOREIGN, "token-3"]);
    let asked = script.session_asked.lock().unwrap();
    let brought: Vec<_> = asked.iter().map(|request| request.positions.join(" ")).collect();
    assert_eq!(brought, ["", "", "", "", FOREIGN], "kept for the first request outside");
}
