//! Text that PostgreSQL and sqlparser cannot read differently: words, numbers, plain strings, quoted names, parameters and
//! operators; comments are cut out first, by PostgreSQL's rules.

use super::{NotClean, tables::OPERATORS};
use crate::sql::scanner::{Scanner, Token};

/// A longer text is not parsed: the time and depth that it takes are bounded with it.
const BYTES_MAX: usize = 32 << 10;
const TOKENS_MAX: usize = 1024;

/// The characters of operators, and those of them that let one end in `+` or `-` (`src/backend/parser/scan.l`).
const SIGNS: &str = "~!@#^&|`?+-*/%<>=";
const SPECIAL: [char; 10] = ['~', '!', '@', '#', '^', '&', '|', '`', '?', '%'];

/// Why so long a text is not judged.
pub(super) fn too_long(bytes: usize) -> Option<NotClean> {
    (bytes > BYTES_MAX).then(|| NotClean::new(format!("the text is longer than {BYTES_MAX} bytes")))
}

/// The text without its comments.
pub(super) fn plain(sql: &str) -> Result<String, NotClean> {
    if let Some(why) = too_long(sql.len()) {
        return Err(why);
    }
    // Also in a comment: no PostgreSQL statement can hold it.
    if sql.contains('\0') {
        return Err(NotClean::new("the text holds a NUL character"));
    }
    let mut plain = String::with_capacity(sql.len());
    let mut tokens = Scanner::new(sql);
    let mut end = 0;
    let mut signs = String::new();
    for _ in 0..TOKENS_MAX {
        let start = tokens.place();
        let Some(token) = tokens.next() else { return Ok(plain) };
        let text = tokens.since(start);
        let is_sign = matches!(token, Token::Punct(byte) if SIGNS.contains(char::from(byte)));
        if start > end || !is_sign {
            check_signs(&std::mem::take(&mut signs))?;
        }
        if start > end {
            plain.push(' ');
        }
        if is_sign {
            signs.push_str(text);
        }
        end = start + text.len();
        plain.push_str(text);
        check(token, text)?;
    }
    Err(NotClean::new(format!("the statement has more than {TOKENS_MAX} words and signs")))
}

fn check(token: Token<'_>, text: &str) -> Result<(), NotClean> {
    let is_plain = match token {
        Token::Word(word) => word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
        // A backslash's meaning is a setting's (standard_conforming_strings).
        Token::Quoted(_) => ends_with_own_quote(text, '"'),
        Token::Punct(byte) => !matches!(byte, b'$' | b'\\' | b'`' | b'{' | b'}'),
        Token::Other => match text.as_bytes().first() {
            Some(b'\'') => ends_with_own_quote(text, '\'') && !text.contains('\\'),
            Some(b'$') => text.len() > 1 && text.bytes().skip(1).all(|byte| byte.is_ascii_digit()),
            _ => is_number(text),
        },
    };
    if is_plain {
        return Ok(());
    }
    let shown: String = text.chars().take(20).collect();
    Err(NotClean::new(format!("{shown:?}: only plain names, numbers and '…' strings without backslashes are judged")))
}

/// Signs that touch one another are one operator to PostgreSQL, and sometimes two to sqlparser: `a ^-b`, `a =~b`, `a !=-1`.
fn check_signs(signs: &str) -> Result<(), NotClean> {
    let mut left = signs;
    while !left.is_empty() {
        let plus_and_minus: &[char] = if left.contains(SPECIAL) { &[] } else { &['+', '-'] };
        let shorter = left.trim_end_matches(plus_and_minus).len().max(1);
        let operator;
        (operator, left) = left.split_at(shorter);
        if !OPERATORS.contains(&operator) && !matches!(operator, "!=" | "=>") {
            return Err(NotClean::new(format!("the operator {operator} is not on the list")));
        }
    }
    Ok(())
}

fn ends_with_own_quote(text: &str, quote: char) -> bool {
    text.len() > 1 && text.ends_with(quote)
}

/// `12`, `1.5`, `1e10`; a sign behind `e` makes tokens of its own.
fn is_number(text: &str) -> bool {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    is_digits(whole) && fraction.bytes().all(|byte| byte.is_ascii_digit()) && is_digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_nul_character_is_not_clean_wherever_it_stands() {
        for sql in ["SELECT 1 /* \0 */", "SELECT 1 -- \0", "SELECT '\0'", "\0"] {
            assert!(plain(sql).is_err(), "{sql:?}");
        }
        assert!(plain("SELECT 1 /* */").is_ok());
    }
}
