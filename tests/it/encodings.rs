//! Databases in other encodings than UTF-8: converted where the server can, and where it cannot the column is named.

use tidegate::{config::DatabaseConfig, dev::USER};
use tidegate_client::{ClientBuilder, ReadOptions, Value};
use tonic::Code;

use crate::{
    asking::{failure, primary_alone},
    harness::{Bed, PATIENCE},
};

async fn create(bed: &Bed, name: &str, encoding: &str) {
    let primary = bed.cluster.primary();
    let sql = format!(
        "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' OWNER {USER}"
    );
    primary.sql(&sql).await.expect("the database is created");
    let words = format!(
        "SET client_encoding = '{encoding}'; CREATE TABLE words (id int, word text, words text[]); \
         ALTER TABLE words OWNER TO {USER}; \
         INSERT INTO words SELECT 1, w, ARRAY[w] FROM convert_from('\\x636166e9', '{encoding}') w"
    );
    primary.sql_in(name, &words).await.expect("the table is filled");
}

async fn words(bed: &Bed, database: &str, sql: &str) -> Result<Vec<Value>, tidegate_client::Error> {
    let builder = ClientBuilder::default().database(database).timeout(PATIENCE);
    let client = builder.connect(bed.url()).await.expect("the broker accepts connections");
    let rows = client.read_with(sql, [], ReadOptions::new()).await?.rows().await?;
    Ok(rows.iter().map(|row| row.get::<Value>(0).expect("a value")).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_is_an_error_that_names_its_column() {
    let mut bed = Bed::with(primary_alone(), |config| {
        let cluster = config.clusters[0].name.clone();
        let database = |name: &str| DatabaseConfig { name: name.into(), cluster: cluster.clone(), dbname: name.into() };
        config.databases.extend([database("bytes"), database("latin")]);
        config.pool.connections_per_host = 1;
    })
    .await;
    create(&bed, "bytes", "SQL_ASCII").await;
    create(&bed, "latin", "LATIN1").await;
    bed.restart_broker().await;

    assert_eq!(words(&bed, "latin", "SELECT word FROM words").await.expect("converted"), [Value::from("café")]);
    for (sql, column) in [
        ("SELECT id, word AS \"the word\" FROM words", "\"the word\""),
        ("SELECT words FROM words", "\"words\""),
        ("SELECT (id, word) AS pair FROM words", "\"pair\""),
    ] {
        // Twice: the second time after a reset of the only connection.
        for _ in 0..2 {
            let error = words(&bed, "bytes", sql).await.expect_err(sql);
            let failure = failure(&error);
            assert_eq!(failure.reason.as_str(), "RESULT_MALFORMED", "{sql}: {failure}");
            assert_ne!(failure.code, Code::Unknown, "{sql}");
            for part in [column, "UTF-8", "convert_to", "SQL_ASCII"] {
                assert!(failure.message.contains(part), "{sql}: {part} is not in {:?}", failure.message);
            }
        }
    }
    let bytes = words(&bed, "bytes", "SELECT convert_to(word, 'SQL_ASCII') FROM words").await.expect("its bytes");
    assert_eq!(bytes, [Value::Bytes(b"caf\xe9".to_vec())]);
    let text = words(&bed, "bytes", "SELECT 'é' || id FROM words").await.expect("what is UTF-8 is fine");
    assert_eq!(text, [Value::from("é1")]);
    // A server's message with such bytes in it hurts nobody.
    let error = words(&bed, "bytes", "SELECT word::int FROM words").await.expect_err("not a number");
    assert_eq!(failure(&error).reason.as_str(), "POSTGRES_ERROR");
}
