//! An encrypted connection to PostgreSQL does all that a plain one does: COPY, whose errors are looked for inside the
//! encryption, cancels, notifications.

use std::time::Duration;

use tidegate::config::TlsMode;
use tidegate_client::{ListenEvent, Outcome, ReadOptions};

use crate::{
    asking::{backends, primary_alone, tell, until_backends},
    copy::{COPY_MARKS, copy_in, failed, last, rows},
    harness::{Bed, within},
};

const PID: &str = "SELECT pg_backend_pid()";

/// A primary that offers TLS, and a broker that asks for nothing else. None: this PostgreSQL was built without TLS, which
/// only one of another version may be.
async fn start() -> Option<Bed> {
    let mut bed = Bed::with(primary_alone(), |config| config.pool.connections_per_host = 2).await;
    let primary = bed.cluster.primary();
    let library = primary.sql("SHOW ssl_library").await.expect("the primary answers");
    if library.trim().is_empty() && std::env::var_os("TIDEGATE_PG_BIN").is_some() {
        eprintln!("skipped: this PostgreSQL was built without TLS");
        return None;
    }
    // The server makes its own key: it is for nobody else to read.
    let key = "cat; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
               -keyout server.key -out server.crt";
    primary.sql(&format!("COPY (SELECT 1) TO PROGRAM '{key}'")).await.expect("a certificate is made");
    primary.set("ssl", "on").await.expect("it offers TLS");
    bed.config.clusters[0].hosts[0].url.tls = TlsMode::Require;
    bed.restart_broker().await;
    bed.client().await.execute("CREATE TABLE marks (n int)", []).await.expect("the table is made");
    Some(bed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_connection_does_what_a_plain_one_does() {
    let Some(bed) = start().await else { return };
    let (client, primary) = (bed.client().await, bed.cluster.primary());
    assert_eq!(backends(primary, "pid IN (SELECT pid FROM pg_stat_ssl WHERE NOT ssl)").await, 0);
    assert!(backends(primary, "pid IN (SELECT pid FROM pg_stat_ssl WHERE ssl)").await > 0);
    let pid = tell(&client, PID).await.expect("a pid");

    let mut session = client.raw_session().await.expect("the session opens");
    // An error while data is still sent; one before any; and the connection is in step behind both.
    for (sql, sqlstate) in [(COPY_MARKS, "22P02"), ("COPY nowhere FROM STDIN", "42P01")] {
        let id = session.send(0, None, copy_in(sql)).expect("it is sent");
        session.send_copy_data(id, b"one\n".to_vec()).await.expect("it is sent");
        let failure = failed(last(&mut session).await);
        assert_eq!(failure.outcome(), Outcome::RolledBack, "{sql}");
        assert_eq!(failure.postgres.expect("PostgreSQL's account").sqlstate, sqlstate, "{sql}");
        session.end_copy(id, String::new()).expect("it is sent");
    }
    let id = session.send(0, None, copy_in(COPY_MARKS)).expect("it is sent");
    session.send_copy_data(id, "1\n".repeat(300_000).into()).await.expect("it is sent");
    session.end_copy(id, String::new()).expect("it is sent");
    assert_eq!(rows(&last(&mut session).await), 300_000);
    session.close().await.expect("the session ends well");
    assert_eq!(tell(&client, PID).await.expect("a pid"), pid, "one connection has done all this");

    let mut session = client.session().await.expect("the session opens");
    let mut copy = session.copy_out("COPY marks TO STDOUT").await.expect("it starts");
    let mut bytes = 0;
    while let Some(piece) = copy.next().await.expect("data") {
        bytes += piece.len();
    }
    assert_eq!((copy.rows(), bytes), (Some(300_000), 600_000));
    let options = || ReadOptions::new().timeout(Duration::from_millis(300));
    let stopped = session.read("SELECT pg_sleep(600)::text", [], options()).await.map(drop);
    assert_eq!(stopped.expect_err("it is late").reason(), "DEADLINE_EXCEEDED");
    until_backends(primary, "state = 'active' AND query LIKE '%pg_sleep%'", 0).await;

    let mut heard = client.listen(["a"]).await.expect("it listens");
    client.execute("SELECT pg_notify('a', 'one')", []).await.expect("it is notified");
    let event = within("it is heard", heard.next()).await.expect("the stream goes on");
    assert_eq!(event, ListenEvent::Notification { channel: "a".into(), payload: "one".into() });
    assert_eq!(backends(primary, "pid IN (SELECT pid FROM pg_stat_ssl WHERE NOT ssl)").await, 0);
}
