//! Splits a statement's text into tokens by PostgreSQL's lexical rules; knows no grammar.
//!
//! The tokenizer of `sqlparser` 0.63 does not serve here. It gives up on valid text, such as `E'\uD83D\uDE00'` and
//! `U&'\D83D\DE00'` (surrogate pairs), `U&'!0061\' UESCAPE '!'`, or an `E''` string continued on the next line; and it
//! reads `a@--b` as an operator and not, as PostgreSQL does, as `@` and a comment. This scanner decodes nothing, so there
//! is nothing for it to refuse: text that never ends simply ends with the input, and the server says what is wrong.
//! The rules are those of PostgreSQL's `src/backend/parser/scan.l`.

/// A token. Words keep their text; of everything else only the shape matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An unquoted identifier or keyword, as written.
    Word(&'a str),
    /// A quoted identifier, as written between its quotes.
    Quoted(&'a str),
    /// A string of any kind, a Unicode-escaped identifier, a number or a parameter.
    Other,
    /// One character of punctuation or of an operator.
    Punct(u8),
}

/// Iterates over the tokens of a text; comments and white space are skipped.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The text from a place to where the last token ended.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Where the next token begins: behind blanks and comments.
    pub(super) fn place(&mut self) -> usize {
        self.skip_blanks_and_comments();
        self.at
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// Advances while `wanted` holds.
    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
                (Some(b'/'), Some(b'*')) => self.skip_block_comment(),
                (Some(byte), _) if is_space(byte) => self.at += 1,
                _ => return,
            }
        }
    }

    /// Block comments nest, as in the SQL standard.
    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return,
            }
        }
    }

    /// Skips from an opening quote over its closing one; a doubled quote is part of the content.
    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if byte == quote {
                if self.peek(0) != Some(quote) {
                    return;
                }
                self.at += 1;
            }
        }
    }

    /// Skips an `E''` string from its opening quote: a backslash hides the byte after it.
    fn skip_escaped(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'\'' if self.peek(0) == Some(b'\'') => self.at += 1,
                // A string goes on behind a line break, and then the backslash keeps its meaning. (For a plain string
                // the continuation reads the same as a string of its own.)
                b'\'' if !self.skip_to_continuation() => return,
                _ => {}
            }
        }
    }

    /// Behind a closing quote: moves behind the next opening quote if only blanks and `--` comments with at least one
    /// line break lie between.
    fn skip_to_continuation(&mut self) -> bool {
        let before = self.at;
        let mut line_break = false;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_while(|byte| byte != b'\n' && byte != b'\r'),
                (Some(byte), _) if is_space(byte) => {
                    line_break |= matches!(byte, b'\n' | b'\r');
                    self.at += 1;
                }
                (Some(b'\''), _) if line_break => {
                    self.at += 1;
                    return true;
                }
                _ => {
                    self.at = before;
                    return false;
                }
            }
        }
    }

    /// At a `$`: skips `$tag$…$tag$` or `$1`; a `$` that starts neither is punctuation.
    fn dollar(&mut self) -> Token<'a> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let tag_length = rest.bytes().skip(1).take_while(|byte| is_word(*byte) && *byte != b'$').count();
        let starts_with_digit = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if !starts_with_digit && rest.as_bytes().get(tag_length + 1) == Some(&b'$') {
            let (delimiter, body) = rest.split_at(tag_length + 2);
            self.at += delimiter.len() + body.find(delimiter).map_or(body.len(), |end| end + delimiter.len());
            return Token::Other;
        }
        self.at += 1;
        if !starts_with_digit {
            return Token::Punct(b'$');
        }
        self.skip_while(|byte| byte.is_ascii_digit());
        Token::Other
    }

    /// At a letter: a word, or a string or quoted identifier with a prefix.
    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        match (self.peek(0), self.peek(1), self.peek(2)) {
            (Some(b'e' | b'E'), Some(b'\''), _) => {
                self.at += 1;
                self.skip_escaped();
                return Token::Other;
            }
            (Some(b'b' | b'B' | b'x' | b'X' | b'n' | b'N'), Some(b'\''), _) => {
                self.at += 1;
                self.skip_quoted(b'\'');
                return Token::Other;
            }
            (Some(b'u' | b'U'), Some(b'&'), Some(quote @ (b'\'' | b'"'))) => {
                self.at += 2;
                self.skip_quoted(quote);
                return Token::Other;
            }
            _ => self.skip_while(is_word),
        }
        Token::Word(self.text.get(start..self.at).unwrap_or_default())
    }
}

impl<'a> Iterator for Scanner<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks_and_comments();
        let first = self.peek(0)?;
        Some(match first {
            b'\'' => {
                self.skip_quoted(first);
                Token::Other
            }
            b'"' => {
                let start = self.at + 1;
                self.skip_quoted(first);
                Token::Quoted(self.text.get(start..self.at.saturating_sub(1)).unwrap_or_default())
            }
            b'$' => self.dollar(),
            // Numbers of every base, with underscores, points and exponents; nothing that could be a word may follow one.
            b'0'..=b'9' => {
                self.skip_while(|byte| byte == b'.' || (is_word(byte) && byte != b'$'));
                Token::Other
            }
            _ if is_word(first) => self.word(),
            _ => {
                self.at += 1;
                Token::Punct(first)
            }
        })
    }
}

/// `space` of scan.l (a vertical tab since PostgreSQL 16). Other Unicode blanks are letters to PostgreSQL.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

/// `ident_cont` of scan.l: every byte of a character outside ASCII is a letter.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Scanner, Token};

    /// Words as written, `?` for other tokens, punctuation as it is; joined by blanks.
    fn sketch(text: &str) -> String {
        let tokens = Scanner::new(text).map(|token| match token {
            Token::Word(word) => word.to_owned(),
            Token::Quoted(_) | Token::Other => "?".to_owned(),
            Token::Punct(byte) => char::from(byte).to_string(),
        });
        tokens.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tokens_are_those_of_postgresql() {
        let table: &[(&str, &str)] = &[
            ("", ""),
            (" \t\r\n\x0C", ""),
            ("-- only\r-- comments\n/* a /* b */ c */", ""),
            ("-- ends at a carriage return\rCOMMIT", "COMMIT"),
            ("/* never ends /* COMMIT */", ""),
            ("/*/ still a comment */ a", "a"),
            ("a--b\nc", "a c"),
            ("a - -b", "a - - b"),
            ("a@--b\n;c", "a @ ; c"),
            ("a*/*b*/c", "a * c"),
            ("'a\\' b", "? b"),
            ("'a;''b' c", "? c"),
            ("'never ends ; COMMIT", "?"),
            ("E'a\\'; b' c", "? c"),
            ("e'\\\\' c", "? c"),
            ("e'a''b\\'' c", "? c"),
            ("E'a'\n'b\\' ; c' d", "? d"),
            ("E'a' -- x\n 'b\\' ; c' d", "? d"),
            ("E'a' 'b\\' c", "? ? c"),
            ("E'\\uD83D\\uDE00' a", "? a"),
            ("E'ends with a backslash\\", "?"),
            ("fe'a\\' b", "fe ? b"),
            ("U&'!0061\\' UESCAPE '!' a", "? UESCAPE ? a"),
            ("u&\"d\\0061\"\"t\" a", "? a"),
            ("U & 'a'", "U & ?"),
            ("b'01' X'ff' n'x' a", "? ? ? a"),
            ("\"a;\"\"b\" c", "? c"),
            ("$$ ; ' $$ a", "? a"),
            ("$a$ ; $$ ; $b$ $a$ a", "? a"),
            ("$é$ ; $é$ a", "? a"),
            ("$a$ never ends; COMMIT $$", "?"),
            ("$1 $22::text", "? ? : : text"),
            ("$ a", "$ a"),
            ("a$b$c d$1", "a$b$c d$1"),
            ("1_000 0x1F 1.e5 .5 1e-5", "? ? ? . ? ? - ?"),
            ("a ?| b #>> c", "a ? | b # > > c"),
            ("größe;x", "größe ; x"),
            ("\u{a0}a", "\u{a0}a"),
        ];
        for (text, want) in table {
            assert_eq!(&sketch(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in any::<String>()) {
            Scanner::new(&text).for_each(drop);
        }

        #[test]
        fn lexical_noise_is_read_to_its_end(text in "[eEuU&'\"$a/*\\\\\n;-]{0,40}") {
            Scanner::new(&text).for_each(drop);
        }
    }
}
