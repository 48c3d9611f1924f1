//! Functions whose effects outlive the call that ran them, or reach beyond it: refused by name, with what to use instead.
//! This guards against mistakes: dynamic SQL and functions of one's own still reach them.

use super::{
    classify::Place,
    keyword::Keyword,
    scanner::{Scanner, Token},
};

/// A call that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) function: &'static str,
    pub(super) place: &'static str,
    pub(super) instead: &'static str,
}

const SIGNALS: &str = "it signals other processes of the server, which the login role should have no right to: \
     connect to PostgreSQL itself for that";
const USE_XACT_LOCK: &str = "its lock outlives the transaction: use pg_advisory_xact_lock, or a Session's transaction, \
     which unlocks what it locked when it ends";
const LASTS: &str = "what it sets up lasts as long as the connection, which others use after you: \
     connect to PostgreSQL itself for that";
const USE_CONNSTR: &str = "the named connection would be left to the next caller: give dblink() a connection string";
const USE_WRITE: &str = "rolling back does not undo it: use ExecuteWrite or a transaction";
const NO_SEED: &str = "the seed is the connection's, which others use too: use it in a transaction, \
     with the random() that it is for";
const NO_NOTIFY: &str = "a read is rolled back, so nobody would be told: use ExecuteWrite or a transaction";

/// Whose function it is: others' of that name are not meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    /// `pg_catalog`.
    Catalogue,
    /// An extension, in whatever schema.
    Anywhere,
}

/// Where a call is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Everywhere,
    /// Where no transaction of the caller's is open.
    NotInTransaction,
    InReads,
}

use Home::{Anywhere, Catalogue};
use Where::{Everywhere, InReads, NotInTransaction};

/// A flat table.
const REFUSED: &[(&str, Home, Where, &str)] = &[
    ("pg_terminate_backend", Catalogue, Everywhere, SIGNALS),
    ("pg_cancel_backend", Catalogue, Everywhere, SIGNALS),
    ("pg_log_backend_memory_contexts", Catalogue, Everywhere, SIGNALS),
    ("pg_reload_conf", Catalogue, Everywhere, SIGNALS),
    ("pg_rotate_logfile", Catalogue, Everywhere, SIGNALS),
    ("pg_promote", Catalogue, Everywhere, SIGNALS),
    ("pg_wal_replay_pause", Catalogue, Everywhere, SIGNALS),
    ("pg_wal_replay_resume", Catalogue, Everywhere, SIGNALS),
    ("pg_backup_start", Catalogue, Everywhere, LASTS),
    ("pg_start_backup", Catalogue, Everywhere, LASTS),
    ("pg_replication_origin_session_setup", Catalogue, Everywhere, LASTS),
    ("dblink_connect", Anywhere, Everywhere, USE_CONNSTR),
    ("dblink_connect_u", Anywhere, Everywhere, USE_CONNSTR),
    ("pg_advisory_lock", Catalogue, NotInTransaction, USE_XACT_LOCK),
    ("pg_advisory_lock_shared", Catalogue, NotInTransaction, USE_XACT_LOCK),
    ("pg_try_advisory_lock", Catalogue, NotInTransaction, USE_XACT_LOCK),
    ("pg_try_advisory_lock_shared", Catalogue, NotInTransaction, USE_XACT_LOCK),
    ("setseed", Catalogue, InReads, NO_SEED),
    ("pg_notify", Catalogue, InReads, NO_NOTIFY),
    ("pg_logical_emit_message", Catalogue, InReads, USE_WRITE),
    ("pg_switch_wal", Catalogue, InReads, USE_WRITE),
    ("pg_create_restore_point", Catalogue, InReads, USE_WRITE),
    ("pg_create_physical_replication_slot", Catalogue, InReads, USE_WRITE),
    ("pg_create_logical_replication_slot", Catalogue, InReads, USE_WRITE),
    ("pg_copy_physical_replication_slot", Catalogue, InReads, USE_WRITE),
    ("pg_copy_logical_replication_slot", Catalogue, InReads, USE_WRITE),
    ("pg_replication_slot_advance", Catalogue, InReads, USE_WRITE),
    ("pg_drop_replication_slot", Catalogue, InReads, USE_WRITE),
    ("pg_logical_slot_get_changes", Catalogue, InReads, USE_WRITE),
    ("pg_logical_slot_get_binary_changes", Catalogue, InReads, USE_WRITE),
    ("lo_import", Catalogue, InReads, USE_WRITE),
    ("lo_export", Catalogue, InReads, USE_WRITE),
    ("dblink", Anywhere, InReads, USE_WRITE),
    ("dblink_exec", Anywhere, InReads, USE_WRITE),
    ("dblink_send_query", Anywhere, InReads, USE_WRITE),
    ("dblink_open", Anywhere, InReads, USE_WRITE),
    ("dblink_fetch", Anywhere, InReads, USE_WRITE),
];

/// The first refused function that a statement calls: its name, qualified or not, quoted or not, before a parenthesis.
/// (With Unicode escapes, `U&"…"`, nobody writes one by mistake.)
pub(super) fn refused(tokens: Scanner<'_>, place: Place) -> Option<Refused> {
    if defines_routine(tokens.clone()) {
        // Nothing of its body runs now.
        return None;
    }
    let mut called = Called::default();
    for token in tokens {
        match (Name::of(token), token) {
            (Some(name), _) => called = called.and(name),
            (None, Token::Punct(b'.')) => called.after_point = called.name.is_some(),
            (None, token) => {
                if let (Token::Punct(b'('), Some(name)) = (token, called.name)
                    && !is_definition(called.before)
                    && let Some(refused) = judge(called.schema, name, place)
                {
                    return Some(refused);
                }
                called = Called::default();
            }
        }
    }
    None
}

/// What stands before a parenthesis: `word schema.name (`.
#[derive(Clone, Copy, Default)]
struct Called<'a> {
    before: Option<Keyword>,
    schema: Option<Name<'a>>,
    name: Option<Name<'a>>,
    after_point: bool,
}

impl<'a> Called<'a> {
    fn and(self, name: Name<'a>) -> Called<'a> {
        let (before, schema) = match (self.after_point, self.name) {
            (true, schema) => (self.before, schema),
            (false, word) => (word.and_then(Name::keyword), None),
        };
        Called { before, schema, name: Some(name), after_point: false }
    }
}

/// A word or a quoted identifier.
#[derive(Clone, Copy)]
enum Name<'a> {
    Word(&'a str),
    Quoted(&'a str),
}

impl<'a> Name<'a> {
    fn of(token: Token<'a>) -> Option<Name<'a>> {
        match token {
            Token::Word(word) => Some(Name::Word(word)),
            Token::Quoted(text) => Some(Name::Quoted(text)),
            Token::Other | Token::Punct(_) => None,
        }
    }

    fn keyword(self) -> Option<Keyword> {
        match self {
            Name::Word(word) => Keyword::of(word),
            Name::Quoted(_) => None,
        }
    }

    fn is(self, name: &str) -> bool {
        match self {
            Name::Word(word) => word.eq_ignore_ascii_case(name),
            Name::Quoted(text) => text == name,
        }
    }
}

fn judge(schema: Option<Name<'_>>, name: Name<'_>, place: Place) -> Option<Refused> {
    let is_at_home = |home: Home| home == Home::Anywhere || schema.is_none_or(|schema| schema.is("pg_catalog"));
    let (function, _, limit, instead) =
        REFUSED.iter().copied().find(|(function, home, ..)| name.is(function) && is_at_home(*home))?;
    let refused = |place| Some(Refused { function, place, instead });
    match (limit, place) {
        (Where::Everywhere, _) => refused("here"),
        (Where::NotInTransaction, Place::Read | Place::Write) => refused("outside a Session's transaction"),
        (Where::InReads, Place::Read) => refused("in a read"),
        _ => None,
    }
}

/// Behind these words a parenthesis holds a list of columns or types: a table or function of that name is meant.
fn is_definition(before: Option<Keyword>) -> bool {
    matches!(
        before,
        Some(Keyword::Function | Keyword::Procedure | Keyword::Routine | Keyword::Into | Keyword::Table | Keyword::As)
    )
}

/// `CREATE [OR REPLACE] {FUNCTION | PROCEDURE}`
fn defines_routine(tokens: Scanner<'_>) -> bool {
    let mut words = tokens.map(|token| Name::of(token).and_then(Name::keyword)).take(4);
    words.next().flatten() == Some(Keyword::Create)
        && words.any(|word| matches!(word, Some(Keyword::Function | Keyword::Procedure)))
}

#[cfg(test)]
mod tests {
    use super::{Refused, refused};
    use crate::sql::{Place, scanner::Scanner};

    const PLACES: [Place; 3] = [Place::Read, Place::Write, Place::Transaction];

    /// Where a statement is refused: `R`, `W`, `T`.
    fn places(sql: &str) -> (String, Option<&'static str>) {
        let verdicts = PLACES.map(|place| refused(Scanner::new(sql), place));
        let letters = "RWT".chars().zip(&verdicts).filter(|(_, verdict)| verdict.is_some());
        let name = verdicts.iter().flatten().map(|Refused { function, .. }| *function).next();
        (letters.map(|(letter, _)| letter).collect(), name)
    }

    #[test]
    fn calls_are_refused_where_they_do_harm() {
        let table = [
            ("SELECT pg_terminate_backend(1)", "RWT", "pg_terminate_backend"),
            ("select PG_Cancel_Backend (pid) from pg_stat_activity", "RWT", "pg_cancel_backend"),
            ("SELECT pg_catalog.pg_reload_conf()", "RWT", "pg_reload_conf"),
            ("SELECT \"pg_catalog\" . \"pg_promote\" /* now */ ( )", "RWT", "pg_promote"),
            ("SELECT 1, (SELECT count(*) FROM pg_rotate_logfile())", "RWT", "pg_rotate_logfile"),
            ("WITH x AS (SELECT pg_backup_start('x')) SELECT 1", "RWT", "pg_backup_start"),
            ("SELECT extensions.dblink_connect('mine', 'dbname=x')", "RWT", "dblink_connect"),
            ("SELECT pg_wal_replay_pause()", "RWT", "pg_wal_replay_pause"),
            ("SELECT pg_advisory_lock(1)", "RW", "pg_advisory_lock"),
            ("SELECT pg_try_advisory_lock(1, 2)", "RW", "pg_try_advisory_lock"),
            ("SELECT pg_advisory_lock_shared(1)", "RW", "pg_advisory_lock_shared"),
            ("INSERT INTO t SELECT pg_try_advisory_lock_shared(1)", "RW", "pg_try_advisory_lock_shared"),
            ("SELECT setseed(0.5), random()", "R", "setseed"),
            ("SELECT * FROM dblink('dbname=x', 'DELETE FROM t') AS t(n int)", "R", "dblink"),
            ("SELECT public.dblink_exec('dbname=x', 'DELETE FROM t')", "R", "dblink_exec"),
            ("SELECT pg_logical_emit_message(false, 'a', 'b')", "R", "pg_logical_emit_message"),
            ("SELECT lo_export(1, '/tmp/x')", "R", "lo_export"),
            ("SELECT pg_notify('a', 'b')", "R", "pg_notify"),
        ];
        for (sql, want, name) in table {
            assert_eq!(places(sql), (want.to_owned(), Some(name)), "{sql}");
        }
    }

    #[test]
    fn names_that_are_no_calls_pass() {
        let table = [
            "SELECT pg_advisory_xact_lock(1), pg_advisory_unlock(1), pg_advisory_unlock_all()",
            "SELECT 'pg_terminate_backend(1)'",
            "SELECT $$ pg_terminate_backend(1) $$",
            "SELECT 1 -- pg_terminate_backend(1)",
            "SELECT setseed FROM pg_terminate_backend",
            "SELECT n AS pg_terminate_backend, (1)",
            "SELECT pg_terminate_backend.n, (1) FROM pg_terminate_backend",
            "SELECT my.pg_terminate_backend(1), my.setseed(1)",
            "SELECT \"PG_TERMINATE_BACKEND\"(1)",
            "SELECT U&\"pg_terminate_backend\"",
            "SELECT xpg_terminate_backend(1), pg_terminate_backend_of(1)",
            "INSERT INTO setseed (n) VALUES (1)",
            "INSERT INTO public.dblink (n) VALUES (1)",
            "CREATE TABLE dblink (n int)",
            "SELECT * FROM (VALUES (1)) AS dblink (n)",
            "GRANT EXECUTE ON FUNCTION pg_terminate_backend(int, bigint) TO me",
            "DROP FUNCTION my.setseed(int)",
            "CREATE OR REPLACE FUNCTION f() RETURNS bool BEGIN ATOMIC SELECT pg_reload_conf(); END",
        ];
        for sql in table {
            assert_eq!(places(sql), (String::new(), None), "{sql}");
        }
    }
}
