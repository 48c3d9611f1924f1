//! Recognises the COPY statements whose data goes through the caller, and refuses those that read or write the server's
//! own files or start programs there.

use super::{
    classify::{SqlError, first_statement, has_second_statement},
    keyword::Keyword,
    scanner::Token,
};

/// Which way a COPY's data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// `COPY … FROM STDIN`: from the caller into a table.
    In,
    /// `COPY … TO STDOUT`: from a table or a query to the caller.
    Out,
}

/// Says which way a COPY goes.
///
/// By the grammar (`CopyStmt` in PostgreSQL's `gram.y`): FROM and TO are reserved words, so the first of them that is
/// neither in parentheses nor behind a point says the direction; what stands behind it says whose data it is. There
/// STDIN and STDOUT mean the same.
///
/// # Errors
/// As [`super::inspect`], and for everything but one of those two forms.
pub fn copy(sql: &str) -> Result<Copy, SqlError> {
    let statement = first_statement(sql)?;
    let mut tokens = statement.clone();
    let keyword = |token| if let Some(Token::Word(word)) = token { Keyword::of(word) } else { None };
    if keyword(tokens.next()) != Some(Keyword::Copy) {
        return Err(SqlError::NotCopy);
    }
    if has_second_statement(statement) {
        return Err(SqlError::MultipleStatements);
    }
    let (mut parentheses, mut behind_point) = (0_usize, false);
    while let Some(token) = tokens.next() {
        match token {
            Token::Punct(b'(') => parentheses += 1,
            Token::Punct(b')') => parentheses = parentheses.saturating_sub(1),
            _ => {}
        }
        let direction = match keyword(Some(token)) {
            Some(Keyword::From) => Some(Copy::In),
            Some(Keyword::To) => Some(Copy::Out),
            _ => None,
        };
        if let Some(direction) = direction.filter(|_| parentheses == 0 && !behind_point) {
            return match keyword(tokens.next()) {
                Some(Keyword::Stdin | Keyword::Stdout) => Ok(direction),
                _ => Err(SqlError::CopyOnServer),
            };
        }
        behind_point = token == Token::Punct(b'.');
    }
    Err(SqlError::NotCopy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_the_caller() {
        for sql in [
            "COPY t FROM STDIN",
            "copy t from stdin;",
            ";; /* x */ COPY -- y\n t (a, \"to\", b) FROM STDIN WITH (FORMAT csv, HEADER, NULL 'to ''/x''')",
            "COPY \"from\" FROM STDIN",
            "COPY s.from FROM STDIN",
            "COPY s . to (a) FROM stdin WHERE a > 1",
            "COPY BINARY t FROM STDIN",
            "COPY t FROM STDOUT",
            "COPY U&\"d\\0061ta\" FROM STDIN",
            "COPY U&\"d!0061ta\" UESCAPE '!' FROM STDIN",
            "COPY \"t;\" FROM STDIN DELIMITER ';'",
        ] {
            assert_eq!(copy(sql), Ok(Copy::In), "{sql}");
        }
        for sql in [
            "COPY t TO STDOUT",
            "COPY t TO STDIN",
            "COPY (SELECT 1) TO STDOUT",
            "COPY (SELECT ') TO ''/x''' , $$ FROM '/x' $$ FROM \"from\" WHERE (a) IN (SELECT 1)) TO STDOUT (FORMAT csv)",
            "COPY (DELETE FROM t RETURNING *) /* FROM '/x' */ TO STDOUT",
            "COPY \"FROM STDIN\" TO STDOUT BINARY",
        ] {
            assert_eq!(copy(sql), Ok(Copy::Out), "{sql}");
        }
    }

    #[test]
    fn files_and_programs_of_the_server_are_refused_however_they_are_written() {
        for sql in [
            "COPY t FROM '/etc/passwd'",
            "COPY t TO '/tmp/x'",
            "copy t (a, b) /* STDIN */ from -- STDIN\n E'/etc/passwd'",
            "COPY t FROM $$/etc/passwd$$",
            "COPY t FROM U&'/etc/passwd'",
            "COPY t FROM PROGRAM 'id'",
            "COPY t FROM program $a$STDIN$a$",
            "COPY t TO/**/PROGRAM 'cat >/x'",
            "COPY (SELECT 'x' FROM stdin) TO '/x'",
            "COPY (SELECT 1) TO PROGRAM 'x' WITH (FORMAT csv, NULL 'TO STDOUT')",
            "COPY \"FROM STDIN\" FROM '/x'",
            "COPY s.from TO '/x'",
            "COPY t FROM 'STDIN'",
            "COPY t FROM \"STDIN\"",
            "COPY t FROM PROGRAM STDIN",
            "COPY t FROM",
        ] {
            assert_eq!(copy(sql), Err(SqlError::CopyOnServer), "{sql}");
        }
    }

    #[test]
    fn what_is_no_copy_or_not_one() {
        for sql in
            ["SELECT 1", "COPY", "COPY t", "COPY (SELECT 1 TO STDOUT", "\"COPY\" t FROM STDIN", "COPYt FROM STDIN"]
        {
            assert_eq!(copy(sql), Err(SqlError::NotCopy), "{sql}");
        }
        assert_eq!(copy("COPY t FROM STDIN; COPY t FROM STDIN"), Err(SqlError::MultipleStatements));
        assert_eq!(copy("COPY t FROM STDIN; DROP TABLE t"), Err(SqlError::MultipleStatements));
        assert_eq!(copy(" -- COPY t FROM STDIN"), Err(SqlError::Empty));
        assert_eq!(copy("COPY t FROM STDIN\0"), Err(SqlError::NulCharacter));
    }
}
