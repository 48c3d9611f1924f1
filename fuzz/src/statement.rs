//! What a statement's text says: an answer for every text, the same whatever blanks, comments and case it is dressed
//! in, in time that grows with its length alone, and never one statement where there are two.

use tidegate::sql::{SqlError, Statement, copy, inspect};

use crate::splitter;

type Verdict = Result<Statement, SqlError>;

/// Blanks and comments that may stand before a text.
const BEFORE: [&str; 6] = [" ", "-- a ' \" $$ /* \r", "/* a ; /* ' */ $$ */", ";;\n", "--\n--\n", "\t\u{b}\u{c}\r\n"];
/// And behind it, once its last line has ended.
const BEHIND: [&str; 5] = [" ", "-- ; COMMIT", "/* ; COMMIT; */", ";", "; ; -- COMMIT"];
/// Texts are repeated up to this many bytes: a scan that starts over for each token would not end in the time allowed.
const LONG: usize = 256 << 10;

/// Any text.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let verdict = inspect(&text);
    compare(&text, &verdict);
    if verdict == Err(SqlError::NulCharacter) {
        return;
    }
    for before in BEFORE {
        let dressed = format!("{before}{text}");
        assert_eq!(inspect(&dressed), verdict, "{before:?} before it changes the verdict");
        assert_eq!(copy(&dressed), copy(&text), "{before:?} before it changes the verdict on a COPY");
    }
    if !splitter::read(&text).is_open {
        for behind in BEHIND {
            assert_eq!(inspect(&format!("{text}\n{behind}")), verdict, "{behind:?} behind it changes the verdict");
        }
    }
    // The tags of dollar quotes tell upper case from lower.
    if !text.contains('$') {
        assert_eq!(inspect(&text.to_ascii_uppercase()), verdict, "in upper case");
        assert_eq!(inspect(&text.to_ascii_lowercase()), verdict, "in lower case");
    }
    // One in so many: it is slow.
    if !text.is_empty() && text.len().is_multiple_of(64) {
        let _ = inspect(&text.repeat(LONG / text.len()));
    }
}

/// The verdict against the second reading.
fn compare(text: &str, verdict: &Verdict) {
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
        Ok(_) if reading.has_atomic => assert!(reading.statements > 0),
        Ok(_) => assert_eq!(reading.statements, 1, "not one statement"),
        Err(error @ (SqlError::NotCopy | SqlError::CopyOnServer)) => panic!("an error of COPY: {error}"),
    }
    // What a session takes as a COPY is refused everywhere else, and is one statement.
    if copy(text).is_ok() {
        assert!(matches!(verdict, Err(SqlError::Refused { keyword: "COPY", .. })), "a COPY, but {verdict:?}");
        assert_eq!(reading.statements, 1, "not one COPY");
    }
}
