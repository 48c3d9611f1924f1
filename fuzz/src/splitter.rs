//! Reads SQL's lexical rules (PostgreSQL's `scan.l`) a second time, in another way than `tidegate::sql`: a list of rules,
//! each of which says how much of the rest it matches, and the longest match wins, as in a scanner made by flex. Slow and
//! plain, to compare with.

/// What a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Statements: parts between semicolons outside parentheses that hold anything but blanks and comments.
    pub statements: usize,
    /// A comment, a string or a quoted identifier is open at the end.
    pub is_open: bool,
    /// The unquoted word ATOMIC occurs: semicolons inside a routine's body do not end it, which is not followed here.
    pub has_atomic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Blank,
    Comment,
    Quoted,
    Word,
    Number,
    One,
}

/// A match: what it is, its length in bytes, and whether it ran into the end of the text.
type Match = (Class, usize, bool);

/// Reads the text.
pub fn read(text: &str) -> Reading {
    let mut reading = Reading { statements: 0, is_open: false, has_atomic: false };
    let (mut rest, mut depth, mut in_statement) = (text, 0_usize, false);
    while !rest.is_empty() {
        let (class, length, is_open) = longest(rest);
        let (token, behind) = rest.split_at(length);
        rest = behind;
        reading.is_open |= is_open;
        reading.has_atomic |= class == Class::Word && token.eq_ignore_ascii_case("atomic");
        match (class, token) {
            (Class::Blank | Class::Comment, _) => continue,
            (Class::One, ";") if depth == 0 => in_statement = false,
            (_, token) => {
                depth = match (class, token) {
                    (Class::One, "(") => depth + 1,
                    (Class::One, ")") => depth.saturating_sub(1),
                    _ => depth,
                };
                reading.statements += usize::from(!in_statement);
                in_statement = true;
            }
        }
    }
    reading
}

/// The longest match of all rules; of equally long ones the first.
fn longest(rest: &str) -> Match {
    let one = rest.chars().next().map_or(0, char::len_utf8);
    let rules = [line_comment, block_comment, blank, quoted, escaped, dollar_quoted, number, word];
    let mut best = (Class::One, one, false);
    for found in rules.into_iter().filter_map(|rule| rule(rest)).rev() {
        if found.1 > best.1 || (found.1 == best.1 && best.0 != Class::Comment) {
            best = found;
        }
    }
    best
}

fn is_blank(c: char) -> bool {
    [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'].contains(&c)
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn blank(rest: &str) -> Option<Match> {
    let length = rest.find(|c| !is_blank(c)).unwrap_or(rest.len());
    (length > 0).then_some((Class::Blank, length, false))
}

fn line_comment(rest: &str) -> Option<Match> {
    let content = rest.strip_prefix("--")?;
    let end = content.find(['\n', '\r']);
    Some((Class::Comment, 2 + end.unwrap_or(content.len()), false))
}

fn block_comment(rest: &str) -> Option<Match> {
    rest.starts_with("/*").then_some(())?;
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        let bytes = &rest.as_bytes()[at..];
        if bytes.starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes.starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
        if depth == 0 {
            return Some((Class::Comment, at, false));
        }
    }
    Some((Class::Comment, rest.len(), true))
}

/// `'…'`, `"…"` and the same with a prefix whose backslashes mean nothing to the scanner.
fn quoted(rest: &str) -> Option<Match> {
    let prefixes = ["", "b", "B", "x", "X", "n", "N", "u&", "U&"];
    let prefix = prefixes.into_iter().find(|prefix| {
        let behind = rest.strip_prefix(prefix);
        let is_identifier = prefix.is_empty() || prefix.len() == 2;
        behind.is_some_and(|behind| behind.starts_with('\'') || (is_identifier && behind.starts_with('"')))
    })?;
    let quote = char::from(rest.as_bytes()[prefix.len()]);
    let content = &rest[prefix.len() + 1..];
    let parts = content.split(quote).collect::<Vec<_>>();
    // An empty part between two quotes is a doubled quote, and the string goes on behind it.
    let (mut at, mut part) = (prefix.len() + 1, 0);
    loop {
        at += parts[part].len();
        let Some(next) = parts.get(part + 1) else { return Some((Class::Quoted, rest.len(), true)) };
        at += 1;
        let is_doubled = next.is_empty() && part + 2 < parts.len();
        if !is_doubled {
            return Some((Class::Quoted, at, false));
        }
        at += 1;
        part += 2;
    }
}

/// `E'…'`, with its continuations on later lines.
fn escaped(rest: &str) -> Option<Match> {
    let content = rest.strip_prefix("E'").or_else(|| rest.strip_prefix("e'"))?;
    let (mut at, mut is_hidden) = (2, false);
    let mut characters = content.char_indices().peekable();
    while let Some((_, c)) = characters.next() {
        at += c.len_utf8();
        if is_hidden {
            is_hidden = false;
        } else if c == '\\' {
            is_hidden = true;
        } else if c == '\'' {
            if characters.peek().is_some_and(|(_, next)| *next == '\'') {
                characters.next();
                at += 1;
            } else if let Some(gap) = continuation(&rest[at..]) {
                at += gap;
                characters = rest[at..].char_indices().peekable();
            } else {
                return Some((Class::Quoted, at, false));
            }
        }
    }
    Some((Class::Quoted, rest.len(), true))
}

/// The length of blanks and comments with a line break among them, and of the quote behind.
fn continuation(rest: &str) -> Option<usize> {
    let mut at = 0;
    while let Some((_, length, _)) = blank(&rest[at..]).or_else(|| line_comment(&rest[at..])) {
        at += length;
    }
    let has_break = rest[..at].contains(['\n', '\r']);
    (has_break && rest[at..].starts_with('\'')).then_some(at + 1)
}

fn dollar_quoted(rest: &str) -> Option<Match> {
    let end = rest.strip_prefix('$')?.find('$')? + 1;
    let tag = &rest[1..end];
    let is_tag =
        !tag.starts_with(|c: char| c.is_ascii_digit()) && tag.chars().all(|c| is_letter(c) || c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    let delimiter = &rest[..=end];
    let close = rest[end + 1..].find(delimiter);
    Some(match close {
        Some(length) => (Class::Quoted, end + 1 + length + delimiter.len(), false),
        None => (Class::Quoted, rest.len(), true),
    })
}

/// Numbers and parameters; more generous than PostgreSQL, which refuses letters behind them.
fn number(rest: &str) -> Option<Match> {
    let parameter = rest.strip_prefix('$').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    if let Some(digits) = parameter {
        let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        return Some((Class::Number, 1 + length, false));
    }
    rest.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
    let length = rest.find(|c: char| !(is_letter(c) || c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    Some((Class::Number, length, false))
}

fn word(rest: &str) -> Option<Match> {
    rest.starts_with(is_letter).then_some(())?;
    let length = rest.find(|c: char| !(is_letter(c) || c.is_ascii_digit() || c == '$')).unwrap_or(rest.len());
    Some((Class::Word, length, false))
}
