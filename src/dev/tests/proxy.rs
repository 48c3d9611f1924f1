//! The proxy, before a plain TCP server.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Outcome, eventually};
use crate::dev::{Direction, Proxy};

const SHORT: Duration = Duration::from_millis(150);

/// Answers every byte with itself; after the client's end of stream, says `bye` and ends too.
async fn echo_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut chunk = [0; 4096];
                while let Ok(length @ 1..) = client.read(&mut chunk).await {
                    client.write_all(&chunk[..length]).await?;
                }
                client.write_all(b"bye").await
            });
        }
    });
    Ok(address)
}

async fn connect(proxy: &Proxy) -> std::io::Result<TcpStream> {
    let client = TcpStream::connect(("127.0.0.1", proxy.port())).await?;
    client.set_nodelay(true)?;
    Ok(client)
}

async fn ask(client: &mut TcpStream, text: &str) -> std::io::Result<String> {
    client.write_all(text.as_bytes()).await?;
    hear(client, text.len()).await
}

async fn hear(client: &mut TcpStream, length: usize) -> std::io::Result<String> {
    let mut answer = vec![0; length];
    client.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn traffic_passes_and_half_closes() -> Outcome {
    let proxy = Proxy::start(echo_server().await?).await?;
    let mut client = connect(&proxy).await?;
    assert_eq!(ask(&mut client, "hello").await?, "hello");
    assert_eq!(proxy.connections(), 1);
    client.shutdown().await?;
    let mut rest = String::new();
    client.read_to_string(&mut rest).await?;
    assert_eq!(rest, "bye");
    eventually(5, "the connection is gone", async || proxy.connections() == 0).await;

    let mut client = connect(&proxy).await?;
    assert_eq!(ask(&mut client, "hello").await?, "hello");
    let port = proxy.port();
    drop(proxy);
    assert_eq!(timeout(Duration::from_secs(5), client.read(&mut [0; 8])).await?.unwrap_or(0), 0);
    eventually(5, "the port is closed", async || TcpStream::connect(("127.0.0.1", port)).await.is_err()).await;
    Ok(())
}

#[tokio::test]
async fn clients_are_cut_off_and_held() -> Outcome {
    let proxy = Proxy::start(echo_server().await?).await?;
    let mut client = connect(&proxy).await?;
    assert_eq!(ask(&mut client, "one").await?, "one");
    proxy.cut().await;
    assert_eq!(proxy.connections(), 0);
    assert_eq!(client.read(&mut [0; 8]).await.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert_eq!(connect(&proxy).await.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    proxy.restore().await;
    let mut client = connect(&proxy).await?;
    assert_eq!(ask(&mut client, "two").await?, "two");

    proxy.blackhole().await;
    let mut late = connect(&proxy).await?;
    assert!(timeout(SHORT, ask(&mut client, "three")).await.is_err());
    assert!(timeout(SHORT, ask(&mut late, "four")).await.is_err());
    proxy.restore().await;
    assert_eq!(hear(&mut client, 5).await?, "three");
    assert_eq!(hear(&mut late, 4).await?, "four");

    proxy.delay_one(Direction::ToClient, SHORT * 2);
    assert!(timeout(SHORT, ask(&mut client, "five")).await.is_err());
    assert_eq!(hear(&mut client, 4).await?, "five");
    proxy.delay(Duration::ZERO);
    assert_eq!(timeout(SHORT, ask(&mut client, "six")).await??, "six");

    let nowhere = Proxy::start(([127, 0, 0, 1], 1).into()).await?;
    let mut client = connect(&nowhere).await?;
    assert_eq!(client.read(&mut [0; 8]).await.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    Ok(())
}

#[tokio::test]
async fn turns_are_counted() -> Outcome {
    let proxy = Proxy::start(echo_server().await?).await?;
    let mut before = connect(&proxy).await?;
    assert_eq!(ask(&mut before, "not counted").await?, "not counted");
    let count = proxy.count_turns();
    let mut client = connect(&proxy).await?;
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "ask and wait").await?, "ask and wait");
    }
    assert_eq!(count.turns(), 3);
    // Sent apart, but before any answer came: one turn.
    client.write_all(b"a").await?;
    tokio::time::sleep(Duration::from_millis(5)).await;
    client.write_all(b"b").await?;
    assert_eq!(hear(&mut client, 2).await?, "ab");
    assert_eq!(count.turns(), 4);
    assert_eq!(ask(&mut before, "counted").await?, "counted");
    assert_eq!(count.turns_by_connection(), [1, 4]);
    count.reset();
    assert_eq!(count.turns(), 0);
    drop(count);
    assert_eq!(timeout(SHORT, ask(&mut client, "fast again")).await??, "fast again");
    Ok(())
}
