//! Judges one statement by its keywords: refused, or how it must be run.

use thiserror::Error;

use super::{
    keyword::Keyword,
    scanner::{Scanner, Token},
};

/// How a statement must be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SELECT, VALUES, TABLE, WITH, SHOW, EXPLAIN, or anything in parentheses. It may still write: a data-modifying WITH,
    /// SELECT INTO, EXPLAIN ANALYZE of an INSERT, a function.
    Query,
    /// CALL or DO: may commit by itself, so it must run inside BEGIN … COMMIT, where PostgreSQL forbids that.
    Call,
    /// Refused by PostgreSQL inside a transaction block (`PreventInTransactionBlock` in its source), such as VACUUM.
    OutsideTransaction,
    /// Everything else: INSERT, UPDATE, DELETE, MERGE, definitions, and what only the server can judge.
    Other,
}

/// What a text says about the one statement in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// How it must be run.
    pub kind: Kind,
}

/// Why a text is not sent to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SqlError {
    /// There is no statement: nothing, or only blanks, comments and semicolons.
    #[error("there is no SQL statement in the text")]
    Empty,
    /// There is a second statement behind a semicolon.
    #[error(
        "the text holds several statements; send one a `Statement` (an ExecuteWrite runs its statements as one transaction)"
    )]
    MultipleStatements,
    /// There is a NUL character, which no PostgreSQL statement may hold.
    #[error("the text holds a NUL character, which PostgreSQL does not accept")]
    NulCharacter,
    /// What must be a COPY is not one, or not one statement that a server would take.
    #[error("the text is not a COPY statement; send COPY … FROM STDIN with copy_in, COPY … TO STDOUT with copy_out")]
    NotCopy,
    /// A COPY from or to a file of the server's, or a program there.
    #[error(
        "only COPY … FROM STDIN and COPY … TO STDOUT are accepted: files and programs of the server are not the caller's"
    )]
    CopyOnServer,
    /// The statement would change the state of a connection that other callers use too.
    #[error("{keyword} is not accepted as SQL text; {instead}")]
    Refused {
        /// The statement's leading keyword.
        keyword: &'static str,
        /// What to use instead.
        instead: &'static str,
    },
}

const USE_TRANSACTION: &str =
    "use Session with begin, commit and rollback, or put the statements into one ExecuteWrite";
const USE_SAVEPOINT: &str = "use Session with savepoint, and rollback with to_savepoint";
const USE_PLAIN: &str = "send the statement itself with its params: the broker prepares it and keeps it prepared";
const NO_SETTINGS: &str =
    "a session setting would leak to other callers of the same connection; context.settings hold for a transaction";
const USE_RESULT: &str = "send the query itself: its rows are streamed, and reading can stop at any time";
const NO_COPY: &str = "use Session with copy_in or copy_out";
const USE_LISTEN: &str = "use the Listen call";
const NO_LOAD: &str = "have the server load the library by shared_preload_libraries or session_preload_libraries";

/// Says what a statement's text is.
///
/// # Errors
/// [`SqlError`], by the text alone. What PostgreSQL itself would refuse (bad syntax, a string that never ends) passes.
pub fn inspect(sql: &str) -> Result<Statement, SqlError> {
    let body = first_statement(sql)?;
    let kind = kind_of(body.clone())?;
    if has_second_statement(body) { Err(SqlError::MultipleStatements) } else { Ok(Statement { kind }) }
}

/// The text from its first statement on.
pub(super) fn first_statement(sql: &str) -> Result<Scanner<'_>, SqlError> {
    if sql.as_bytes().contains(&0) {
        return Err(SqlError::NulCharacter);
    }
    let mut tokens = Scanner::new(sql);
    loop {
        let here = tokens.clone();
        match tokens.next() {
            None => return Err(SqlError::Empty),
            Some(Token::Punct(b';')) => {}
            Some(_) => return Ok(here),
        }
    }
}

fn kind_of(mut tokens: Scanner<'_>) -> Result<Kind, SqlError> {
    let first = match tokens.next() {
        Some(Token::Punct(b'(')) => return Ok(Kind::Query),
        Some(Token::Word(word)) => Keyword::of(word),
        _ => None,
    };
    let Some(first) = first else { return Ok(Kind::Other) };
    if let Some((keyword, instead)) = refusal(first) {
        return Err(SqlError::Refused { keyword, instead });
    }
    let outside = match first {
        Keyword::Select | Keyword::Values | Keyword::Table | Keyword::With | Keyword::Show | Keyword::Explain => {
            return Ok(Kind::Query);
        }
        Keyword::Call | Keyword::Do => return Ok(Kind::Call),
        Keyword::Vacuum => true,
        Keyword::Create => create_is_outside(tokens),
        Keyword::Drop => drop_is_outside(tokens),
        Keyword::Alter => alter_is_outside(tokens),
        Keyword::Reindex => reindex_is_outside(tokens),
        Keyword::Cluster => names_no_table(tokens),
        _ => false,
    };
    Ok(if outside { Kind::OutsideTransaction } else { Kind::Other })
}

/// The statements that are never sent as SQL text: a flat table.
fn refusal(first: Keyword) -> Option<(&'static str, &'static str)> {
    Some(match first {
        Keyword::Begin => ("BEGIN", USE_TRANSACTION),
        Keyword::Start => ("START TRANSACTION", USE_TRANSACTION),
        Keyword::Commit => ("COMMIT", USE_TRANSACTION),
        Keyword::End => ("END", USE_TRANSACTION),
        Keyword::Rollback => ("ROLLBACK", USE_TRANSACTION),
        Keyword::Abort => ("ABORT", USE_TRANSACTION),
        Keyword::Savepoint => ("SAVEPOINT", USE_SAVEPOINT),
        Keyword::Release => ("RELEASE", USE_SAVEPOINT),
        Keyword::Prepare => ("PREPARE", USE_PLAIN),
        Keyword::Execute => ("EXECUTE", USE_PLAIN),
        Keyword::Deallocate => ("DEALLOCATE", USE_PLAIN),
        Keyword::Set => ("SET", NO_SETTINGS),
        Keyword::Reset => ("RESET", NO_SETTINGS),
        Keyword::Discard => ("DISCARD", NO_SETTINGS),
        Keyword::Copy => ("COPY", NO_COPY),
        Keyword::Listen => ("LISTEN", USE_LISTEN),
        Keyword::Unlisten => ("UNLISTEN", USE_LISTEN),
        Keyword::Load => ("LOAD", NO_LOAD),
        Keyword::Declare => ("DECLARE", USE_RESULT),
        Keyword::Fetch => ("FETCH", USE_RESULT),
        Keyword::Move => ("MOVE", USE_RESULT),
        Keyword::Close => ("CLOSE", USE_RESULT),
        _ => return None,
    })
}

/// The next token as a keyword; `None` is any other token, or the end.
fn next_keyword(tokens: &mut Scanner<'_>) -> Option<Keyword> {
    match tokens.next()? {
        Token::Word(word) => Keyword::of(word),
        _ => None,
    }
}

fn create_is_outside(mut tokens: Scanner<'_>) -> bool {
    match next_keyword(&mut tokens) {
        Some(Keyword::Database | Keyword::Tablespace | Keyword::Subscription) => true,
        Some(Keyword::Index) => next_keyword(&mut tokens) == Some(Keyword::Concurrently),
        Some(Keyword::Unique) => {
            next_keyword(&mut tokens) == Some(Keyword::Index)
                && next_keyword(&mut tokens) == Some(Keyword::Concurrently)
        }
        _ => false,
    }
}

fn drop_is_outside(mut tokens: Scanner<'_>) -> bool {
    match next_keyword(&mut tokens) {
        Some(Keyword::Database | Keyword::Tablespace | Keyword::Subscription) => true,
        Some(Keyword::Index) => next_keyword(&mut tokens) == Some(Keyword::Concurrently),
        _ => false,
    }
}

fn alter_is_outside(mut tokens: Scanner<'_>) -> bool {
    match next_keyword(&mut tokens) {
        Some(Keyword::System | Keyword::Subscription) => true,
        Some(Keyword::Database) => {
            let _name = tokens.next();
            next_keyword(&mut tokens) == Some(Keyword::Set) && next_keyword(&mut tokens) == Some(Keyword::Tablespace)
        }
        // ALTER TABLE … DETACH PARTITION name CONCURRENTLY. CONCURRENTLY cannot be a table's name without quotes.
        Some(Keyword::Table) => {
            let mut words = tokens.filter_map(|token| match token {
                Token::Word(word) => Some(Keyword::of(word)),
                _ => None,
            });
            let mut last = None;
            words.any(|word| {
                std::mem::replace(&mut last, word) == Some(Keyword::Detach) && word == Some(Keyword::Partition)
            }) && words.any(|word| word == Some(Keyword::Concurrently))
        }
        _ => false,
    }
}

/// `REINDEX [(option, …)] {INDEX | TABLE | SCHEMA | DATABASE | SYSTEM} [CONCURRENTLY] [name]`
fn reindex_is_outside(mut tokens: Scanner<'_>) -> bool {
    let mut concurrently = false;
    let mut next = tokens.next();
    if next == Some(Token::Punct(b'(')) {
        // An option counts as on unless FALSE, OFF or a number follows its name.
        let mut named = false;
        for token in tokens.by_ref().take_while(|token| *token != Token::Punct(b')')) {
            let keyword = if let Token::Word(word) = token { Keyword::of(word) } else { None };
            match (keyword, token) {
                (Some(Keyword::Concurrently), _) => (named, concurrently) = (true, true),
                (Some(Keyword::False | Keyword::Off), _) | (None, Token::Other) if named => concurrently = false,
                (None, Token::Punct(b',')) => named = false,
                _ => {}
            }
        }
        next = tokens.next();
    }
    let object = if let Some(Token::Word(word)) = next { Keyword::of(word) } else { None };
    match object {
        Some(Keyword::Schema | Keyword::Database | Keyword::System) => true,
        Some(_) => concurrently || next_keyword(&mut tokens) == Some(Keyword::Concurrently),
        None => false,
    }
}

/// `CLUSTER [VERBOSE | (option, …)]` without a table clusters every table, each in its own transaction.
fn names_no_table(mut tokens: Scanner<'_>) -> bool {
    let mut next = tokens.next();
    if next == Some(Token::Punct(b'(')) {
        tokens.by_ref().find(|token| *token == Token::Punct(b')'));
        next = tokens.next();
    } else if let Some(Token::Word(word)) = next
        && Keyword::of(word) == Some(Keyword::Verbose)
    {
        next = tokens.next();
    }
    matches!(next, None | Some(Token::Punct(b';')))
}

/// Whether anything but semicolons follows the semicolon that ends the first statement.
pub(super) fn has_second_statement(mut tokens: Scanner<'_>) -> bool {
    let mut routine = Routine::default();
    let mut parentheses = 0_usize;
    for token in tokens.by_ref() {
        match token {
            Token::Punct(b'(') => parentheses += 1,
            Token::Punct(b')') => parentheses = parentheses.saturating_sub(1),
            // CREATE RULE … DO (INSERT …; DELETE …) is one statement, and so is a routine with its body.
            Token::Punct(b';') if parentheses == 0 && routine.body_depth == 0 => break,
            _ => {}
        }
        routine.step(token, parentheses);
    }
    tokens.any(|token| token != Token::Punct(b';'))
}

/// Follows `CREATE [OR REPLACE] {FUNCTION | PROCEDURE} … BEGIN ATOMIC …; …; END`, whose semicolons do not end it.
/// psql (`src/fe_utils/psqlscan.l`) knows it in the same way.
#[derive(Default)]
struct Routine {
    head: Head,
    /// How many BEGIN ATOMIC and CASE wait for their END.
    body_depth: usize,
    last: Option<Keyword>,
    after_point: bool,
}

/// How far `CREATE [OR REPLACE] {FUNCTION | PROCEDURE}` has been read.
#[derive(Default, PartialEq, Eq)]
enum Head {
    #[default]
    Start,
    Partial,
    Routine,
    Different,
}

impl Routine {
    fn step(&mut self, token: Token<'_>, parentheses: usize) {
        let keyword = if let Token::Word(word) = token { Keyword::of(word) } else { None };
        self.head = match (&self.head, keyword) {
            (Head::Routine, _) | (Head::Partial, Some(Keyword::Function | Keyword::Procedure)) => Head::Routine,
            (Head::Start, Some(Keyword::Create)) | (Head::Partial, Some(Keyword::Or | Keyword::Replace)) => {
                Head::Partial
            }
            _ => Head::Different,
        };
        if self.head == Head::Routine {
            // Behind AS and behind a point these words are names: `SELECT x AS case`, `t.end`.
            let is_name = self.after_point || self.last == Some(Keyword::As);
            match keyword {
                Some(Keyword::Atomic) if self.last == Some(Keyword::Begin) && parentheses == 0 => self.body_depth += 1,
                Some(Keyword::Case) if self.body_depth > 0 && !is_name => self.body_depth += 1,
                Some(Keyword::End) if !is_name => self.body_depth = self.body_depth.saturating_sub(1),
                _ => {}
            }
        }
        self.last = keyword;
        self.after_point = token == Token::Punct(b'.');
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
