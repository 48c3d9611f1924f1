//! What a statement's text says: an answer for every text, the same whatever blanks, comments and case it is dressed
//! in, in time that grows with its length alone, and never one statement where there are two.

use tidegate::sql::{Kind, Place, SqlError, Statement, copy, footprint, footprint_of_write, inspect};

use crate::splitter;

type Verdict = Result<Statement, SqlError>;

/// Blanks and comments that may stand before a text.
const BEFORE: [&str; 6] = [" ", "-- a ' \" $$ /* \r", "/* a ; /* ' */ $$ */", ";;\n", "--\n--\n", "\t\u{b}\u{c}\r\n"];
/// And behind it, once its last line has ended.
const BEHIND: [&str; 5] = [" ", "-- ; COMMIT", "/* ; COMMIT; */", ";", "; ; -- COMMIT"];
const PLACES: [Place; 3] = [Place::Read, Place::Write, Place::Transaction];
/// What texts are put into, so many times: a parser that tries two readings at each level would not end in the time
/// allowed, and one without a bound would exhaust its stack.
const AROUND: [(&str, &str); 4] =
    [("(", ")"), ("(SELECT ", ")"), ("CASE WHEN ", " THEN 1 END"), ("(SELECT 1 FROM (", ") x)")];
const DEPTHS: [usize; 3] = [12, 45, 400];
/// A longer text is not judged (`BYTES_MAX` of `sql::clean`).
const CLEAN_BYTES: usize = 32 << 10;
/// Texts are repeated up to this many bytes: a scan that starts over for each token would not end in the time allowed.
const LONG: usize = 256 << 10;

/// Any text.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for place in PLACES {
        in_place(&text, place);
    }
    clean(&text);
    // One in so many: it is slow.
    if !text.is_empty() && text.len().is_multiple_of(64) {
        let long = text.repeat(LONG / text.len());
        let _ = (inspect(&long, Place::Read), copy(&long, Place::Read), footprint(&long));
        for (open, close) in AROUND {
            for depth in DEPTHS {
                let _ = footprint(&format!("SELECT {}{text}{}", open.repeat(depth), close.repeat(depth)));
            }
        }
    }
}

fn in_place(text: &str, place: Place) {
    let verdict = inspect(text, place);
    compare(text, place, &verdict);
    if verdict == Err(SqlError::NulCharacter) {
        return;
    }
    for before in BEFORE {
        let dressed = format!("{before}{text}");
        assert_eq!(inspect(&dressed, place), verdict, "{before:?} before it changes the verdict");
        assert_eq!(copy(&dressed, place), copy(text, place), "{before:?} before it changes the verdict on a COPY");
    }
    if !splitter::read(text).is_open {
        for behind in BEHIND {
            let dressed = format!("{text}\n{behind}");
            assert_eq!(inspect(&dressed, place), verdict, "{behind:?} behind it changes the verdict");
        }
    }
    // Quoted names and the tags of dollar quotes tell upper case from lower.
    if !text.contains(['$', '"']) {
        assert_eq!(inspect(&text.to_ascii_uppercase(), place), verdict, "in upper case");
        assert_eq!(inspect(&text.to_ascii_lowercase(), place), verdict, "in lower case");
    }
}

/// What may be clean is one query that may be a read, whatever comments and blanks there are in it.
fn clean(text: &str) {
    let found = footprint(text).ok();
    // What may be clean as a write is one statement that may be one.
    if footprint_of_write(text).is_ok() {
        let verdict = inspect(text, Place::Write);
        assert!(verdict.is_ok(), "it may be clean, and is refused: {verdict:?}");
    }
    if found.is_some() {
        let verdict = inspect(text, Place::Read);
        assert_eq!(verdict.map(|statement| statement.kind), Ok(Kind::Query), "it may be clean, and is not a query");
    }
    // Where no blank is part of a string, a name or a comment.
    if !text.contains(['\'', '"', '$']) && !text.contains("--") && !text.contains("/*") {
        for blank in ["\n\t ", " /* ; ' /* */ */ ", " -- ; '\n"] {
            let dressed = format!("{blank}{}{blank}", text.replace(' ', blank));
            if dressed.len() > CLEAN_BYTES {
                continue;
            }
            assert_eq!(footprint(&dressed).ok(), found, "{blank:?} for each blank changes what it refers to");
        }
    }
}

/// The verdict against the second reading.
fn compare(text: &str, place: Place, verdict: &Verdict) {
    let reading = splitter::read(text);
    match verdict {
        Err(SqlError::NulCharacter) => assert!(text.contains('\0')),
        Err(SqlError::Empty) => assert_eq!(reading.statements, 0, "not empty"),
        Err(SqlError::MultipleStatements) => assert!(reading.statements > 1, "there is one statement"),
        Err(SqlError::Refused { keyword, instead }) => {
            assert!(reading.statements > 0 && !keyword.is_empty() && !instead.is_empty());
            let word = keyword.split(' ').next().unwrap_or_default();
            assert!(text.to_ascii_uppercase().contains(word), "refused for {keyword}, which does not occur");
        }
        Err(SqlError::RefusedFunction { function, place, instead }) => {
            assert!(reading.statements > 0 && !place.is_empty() && !instead.is_empty());
            assert!(text.to_ascii_lowercase().contains(function), "refused for {function}, which does not occur");
        }
        Ok(_) if reading.has_atomic => assert!(reading.statements > 0),
        Ok(_) => assert_eq!(reading.statements, 1, "not one statement"),
        Err(error @ (SqlError::NotCopy | SqlError::CopyOnServer)) => panic!("an error of COPY: {error}"),
    }
    // What a session takes as a COPY is refused everywhere else, and is one statement.
    if copy(text, place).is_ok() {
        assert!(matches!(verdict, Err(SqlError::Refused { keyword: "COPY", .. })), "a COPY, but {verdict:?}");
        assert_eq!(reading.statements, 1, "not one COPY");
    }
}
