//! Whether a statement, by its text, changes what others were prepared for: the types of columns, and what names mean.

use super::{
    keyword::Keyword,
    scanner::{Scanner, Token},
};

/// Whose prepared statements a statement may make stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaChange {
    /// Nobody's. Functions that the statement calls may say otherwise.
    None,
    /// Its own connection's: it makes or changes something temporary.
    Temporary,
    /// Everybody's.
    Lasting,
}

/// Says what a statement's text changes. DO counts, as migrations use it; CALL does not, as applications do.
pub fn schema_change(sql: &str) -> SchemaChange {
    let mut words = Scanner::new(sql).filter(|token| *token != Token::Punct(b';')).map(|token| match token {
        Token::Word(word) => Keyword::of(word),
        _ => None,
    });
    match words.next().flatten() {
        Some(Keyword::Create) => {
            let is_temporary = |word: Option<Keyword>| matches!(word, Some(Keyword::Temp | Keyword::Temporary));
            // CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMPORARY …
            if words.take(4).any(is_temporary) { SchemaChange::Temporary } else { SchemaChange::Lasting }
        }
        Some(Keyword::Alter | Keyword::Drop | Keyword::Do) => SchemaChange::Lasting,
        _ => SchemaChange::None,
    }
}

#[cfg(test)]
mod tests {
    use super::{SchemaChange, schema_change};

    #[test]
    fn definitions_change_the_schema() {
        use SchemaChange::{Lasting, None, Temporary};
        let table = [
            ("ALTER TABLE t ALTER n TYPE text", Lasting),
            ("/* migration 7 */ ; drop table t", Lasting),
            ("CREATE TABLE temporary_things (n int)", Lasting),
            ("CREATE OR REPLACE VIEW v AS SELECT 1", Lasting),
            ("DO $$ BEGIN ALTER TABLE t ADD n int; END $$", Lasting),
            ("create temp table t (n int)", Temporary),
            ("CREATE LOCAL TEMPORARY TABLE t (n int)", Temporary),
            ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", Temporary),
            ("SELECT 1", None),
            ("INSERT INTO alter VALUES (1)", None),
            ("CALL migrate()", None),
            ("", None),
        ];
        for (sql, change) in table {
            assert_eq!(schema_change(sql), change, "{sql}");
        }
    }
}
