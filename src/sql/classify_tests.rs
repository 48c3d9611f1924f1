//! Tables of statements and what classification says of them.

use proptest::prelude::*;

use super::{Kind, Place, SqlError, inspect};

fn kind(sql: &str) -> Kind {
    inspect(sql, Place::Write).unwrap_or_else(|error| panic!("{sql}: {error}")).kind
}

#[test]
fn queries() {
    for sql in [
        "SELECT 1",
        "select 1;",
        "  -- why\n /* and /* how */ */ ;; ( ( SELECT 1 ) UNION SELECT 2 ) ; ; -- end",
        "VALUES (1), (2)",
        "TABLE t",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "SHOW search_path",
        "EXPLAIN ANALYZE UPDATE t SET a = 1",
        "SELECT 'a;b', E'a\\';b', $$;$$, \"a;b\" FROM t -- ; x",
        "SELECT ';' /* ; COMMIT */",
        "SELECT a ?| b, a #>> '{a}', a @@ b FROM t WHERE a = $1",
        "SELECT U&'\\D83D\\DE00', E'\\uD83D\\uDE00', U&'!0061\\' UESCAPE '!'",
        "SELECT 'never ends; COMMIT",
    ] {
        assert_eq!(kind(sql), Kind::Query, "{sql}");
    }
}

#[test]
fn calls() {
    for sql in ["CALL p(1)", "do $$ begin commit; end $$", "DO LANGUAGE plpgsql 'begin end;'"] {
        assert_eq!(kind(sql), Kind::Call, "{sql}");
    }
}

#[test]
fn outside_transaction() {
    for sql in [
        "VACUUM",
        "vacuum (analyze) t",
        "CREATE DATABASE d",
        "DROP DATABASE IF EXISTS d",
        "CREATE TABLESPACE s LOCATION '/x'",
        "DROP TABLESPACE s",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "ALTER SYSTEM RESET ALL",
        "CREATE INDEX CONCURRENTLY ON t (a)",
        "CREATE UNIQUE INDEX /* x */ CONCURRENTLY IF NOT EXISTS i ON t (a)",
        "DROP INDEX CONCURRENTLY IF EXISTS i",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX INDEX concurrently i",
        "REINDEX (VERBOSE, CONCURRENTLY) TABLE t",
        "REINDEX (CONCURRENTLY TRUE, VERBOSE FALSE) INDEX i",
        "REINDEX DATABASE d",
        "REINDEX SCHEMA s",
        "REINDEX (VERBOSE) SYSTEM",
        "CLUSTER",
        "CLUSTER;",
        "CLUSTER VERBOSE",
        "CLUSTER (VERBOSE) ;",
        "ALTER DATABASE d SET TABLESPACE s",
        "ALTER DATABASE \"SET\" SET TABLESPACE s",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
        "ALTER SUBSCRIPTION s REFRESH PUBLICATION",
        "DROP SUBSCRIPTION s",
        "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
        "ALTER TABLE IF EXISTS ONLY s.t DETACH PARTITION s.\"p\" CONCURRENTLY;",
    ] {
        assert_eq!(kind(sql), Kind::OutsideTransaction, "{sql}");
    }
}

#[test]
fn others() {
    for sql in [
        "INSERT INTO t VALUES (1) RETURNING *",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "TRUNCATE t",
        "LOCK TABLE t",
        "NOTIFY c, 'x'",
        "ANALYZE t",
        "CREATE TABLE concurrently_not (a int)",
        "CREATE INDEX i ON t (a)",
        "CREATE INDEX \"concurrently\" ON t (a)",
        "CREATE UNIQUE INDEX i ON t (a)",
        "DROP INDEX i",
        "DROP TABLE database",
        "REINDEX TABLE t",
        "REINDEX (VERBOSE) INDEX i",
        "REINDEX (CONCURRENTLY FALSE) TABLE t",
        "REINDEX (CONCURRENTLY 0) TABLE t",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "CLUSTER t",
        "CLUSTER VERBOSE t USING i",
        "CLUSTER (VERBOSE) t",
        "ALTER DATABASE d SET work_mem = '1MB'",
        "ALTER DATABASE d OWNER TO o",
        "ALTER ROLE r SET search_path = s",
        "ALTER TABLE t DETACH PARTITION p",
        "ALTER TABLE t DETACH PARTITION p FINALIZE",
        "ALTER TABLE t ADD COLUMN detach int",
        "\"commit\"",
        "\u{feff}COMMIT",
        "123",
        "bogus",
    ] {
        assert_eq!(kind(sql), Kind::Other, "{sql}");
    }
}

#[test]
fn one_statement_that_holds_semicolons() {
    for sql in [
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); DELETE FROM b)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
        "create or replace procedure begin() begin atomic insert into t values (1); select x as end, t.end, 1 as case; end;",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1;",
    ] {
        assert_eq!(kind(sql), Kind::Other, "{sql}");
    }
}

#[test]
fn several_statements() {
    for sql in [
        "SELECT 1; SELECT 2",
        "SELECT 1;; COMMIT",
        "INSERT INTO t VALUES (1); -- x\n DELETE FROM t",
        "SELECT 'a\\'; COMMIT; --'",
        "SELECT 1 -- x\r; COMMIT",
        "SELECT a @--\r;\rCOMMIT",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; COMMIT",
        "CREATE TABLE begin (atomic int); COMMIT",
        "SELECT 1 AS begin; COMMIT",
        "ALTER TABLE t RENAME TO begin; SELECT 1",
    ] {
        assert_eq!(inspect(sql, Place::Write), Err(SqlError::MultipleStatements), "{sql}");
    }
}

#[test]
fn nothing_to_run() {
    for sql in ["", " \t\r\n", ";", " ; ;; ", "-- SELECT 1", "/* SELECT 1 */;", "/* SELECT 1 /* */"] {
        assert_eq!(inspect(sql, Place::Write), Err(SqlError::Empty), "{sql}");
    }
    assert_eq!(inspect("SELECT 1\0", Place::Write), Err(SqlError::NulCharacter));
}

/// Neither the stack nor the time runs out: nothing here recurses, and no part of a text is read again and again.
#[test]
fn a_megabyte_of_anything_gets_an_answer() {
    let answers: [(&str, Result<Kind, SqlError>); 14] = [
        ("(", Ok(Kind::Query)),
        ("(SELECT ", Ok(Kind::Query)),
        ("/*", Err(SqlError::Empty)),
        ("--\r", Err(SqlError::Empty)),
        (";", Err(SqlError::Empty)),
        ("'", Ok(Kind::Other)),
        ("E'a'\n", Ok(Kind::Other)),
        ("E'a' -- b\r", Ok(Kind::Other)),
        ("$a", Ok(Kind::Other)),
        ("$a$b", Ok(Kind::Other)),
        ("CASE ", Ok(Kind::Other)),
        ("1+", Ok(Kind::Other)),
        ("CREATE FUNCTION BEGIN ATOMIC ", Ok(Kind::Other)),
        ("SELECT 1;", Err(SqlError::MultipleStatements)),
    ];
    for (piece, want) in answers {
        let text = piece.repeat((1 << 20) / piece.len());
        assert_eq!(inspect(&text, Place::Write).map(|statement| statement.kind), want, "{piece:?}");
    }
}

#[test]
fn refused() {
    let table = [
        ("BEGIN", "BEGIN"),
        ("begin isolation level serializable;", "BEGIN"),
        ("START TRANSACTION READ ONLY", "START TRANSACTION"),
        ("/* x */ ; COMMIT", "COMMIT"),
        ("-- x\rCOMMIT AND CHAIN", "COMMIT"),
        ("COMMIT PREPARED 'x'", "COMMIT"),
        ("END", "END"),
        ("RollBack", "ROLLBACK"),
        ("ROLLBACK PREPARED 'x'", "ROLLBACK"),
        ("ROLLBACK TO s", "ROLLBACK"),
        ("ABORT", "ABORT"),
        ("SAVEPOINT s", "SAVEPOINT"),
        ("RELEASE s", "RELEASE"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("PREPARE TRANSACTION 'x'", "PREPARE"),
        ("EXECUTE p", "EXECUTE"),
        ("DEALLOCATE ALL", "DEALLOCATE"),
        ("SET search_path = a", "SET"),
        ("SET LOCAL work_mem = '1MB'", "SET"),
        ("SET ROLE r", "SET"),
        ("SET SESSION AUTHORIZATION r", "SET"),
        ("SET CONSTRAINTS ALL DEFERRED", "SET"),
        ("SET TRANSACTION READ WRITE", "SET"),
        ("RESET ALL", "RESET"),
        ("DISCARD ALL", "DISCARD"),
        ("COPY t FROM STDIN", "COPY"),
        ("COPY (SELECT 1) TO STDOUT", "COPY"),
        ("LISTEN c", "LISTEN"),
        ("UNLISTEN *", "UNLISTEN"),
        ("LOAD 'x'", "LOAD"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE"),
        ("FETCH 1 FROM c", "FETCH"),
        ("MOVE 1 FROM c", "MOVE"),
        ("CLOSE c", "CLOSE"),
        // The first statement's refusal says more than that there are two.
        ("BEGIN; SELECT 1; COMMIT", "BEGIN"),
    ];
    for (sql, want) in table {
        match inspect(sql, Place::Write) {
            Err(SqlError::Refused { keyword, instead }) => {
                assert_eq!(keyword, want, "{sql}");
                assert!(!instead.is_empty());
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn what_a_place_does_not_allow_is_refused_there() {
    let refusal = |sql: &str, place: Place| inspect(sql, place).map_err(|error| error.to_string());
    let lock = refusal("SELECT pg_advisory_lock(1)", Place::Write).expect_err("a session's lock");
    assert!(lock.contains("pg_advisory_lock()") && lock.contains("pg_advisory_xact_lock"), "{lock}");
    assert!(refusal("SELECT pg_advisory_lock(1)", Place::Transaction).is_ok());
    let notify = refusal("NOTIFY gossip", Place::Read).expect_err("nobody would hear it");
    assert!(notify.contains("NOTIFY") && notify.contains("ExecuteWrite"), "{notify}");
    assert!(refusal("NOTIFY gossip", Place::Write).is_ok());
}

proptest! {
    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        let _ = inspect(&text, Place::Write);
    }

    /// Case, comments and blanks around a keyword change nothing.
    #[test]
    fn noise_hides_no_commit(noise in prop::collection::vec(prop::sample::select(vec![
        " ", "\n", "\r", "\t", ";", "-- SELECT\n", "--\r", "/**/", "/* ' /* $$ */ */", "/* -- */",
    ]), 0..8), upper in any::<bool>()) {
        let sql = format!("{}{}", noise.concat(), if upper { "COMMIT" } else { "commit" });
        let refused = matches!(inspect(&sql, Place::Write), Err(SqlError::Refused { keyword: "COMMIT", .. }));
        prop_assert!(refused, "{}", sql);
    }
}
