//! Reading Rust source well enough for `tests/tidy.rs`: what is code, where functions begin and end, which modules
//! are named. Not a parser: it knows comments, strings and braces.

/// The source with comments and the insides of strings and character literals blanked; lines stay where they are.
pub(crate) fn code_only(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    let blank = |out: &mut String, part: &[char]| out.extend(part.iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => line_end(&chars, at),
            ('/', Some('*')) => comment_end(&chars, at),
            ('"', _) => string_end(&chars, at + 1),
            ('r', Some('"' | '#')) if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
                raw_string_end(&chars, at).unwrap_or(at)
            }
            ('\'', Some('\\')) => find(&chars, at + 3, '\''),
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => at + 3,
            _ => at,
        };
        if end > at {
            let is_text = matches!(chars[at], '"' | 'r' | '\'');
            // The quotes stay, so that a line of a string still counts as a line of code.
            if is_text && end - at >= 2 {
                out.push('"');
                blank(&mut out, &chars[at + 1..end - 1]);
                out.push('"');
            } else {
                blank(&mut out, &chars[at..end]);
            }
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |found| at + found)
}

/// The end of a block comment; they nest.
fn comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (1, at + 2);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of `r"…"` or `r#"…"#`; None if it is something else, such as `r#type`.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = at + 2 + hashes;
    while end < chars.len() {
        let closed = chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes;
        end += 1;
        if closed {
            return Some((end + hashes).min(chars.len()));
        }
    }
    Some(chars.len())
}

fn find(chars: &[char], from: usize, wanted: char) -> usize {
    (from..chars.len()).find(|&at| chars[at] == wanted).map_or(chars.len(), |at| at + 1)
}

/// A function: its name, the line it begins on (from 1), and the lines of code in its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) body_lines: usize,
}

/// The functions of a source that went through [`code_only`].
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|&c| is_word(c)).collect();
        let (Some(open), false) = (body_start(code, at), name.is_empty()) else { continue };
        let body = &code[open + 1..block_end(code, open)];
        found.push(Function {
            name,
            line: line_of(code, at),
            body_lines: body.lines().filter(|line| !line.trim().is_empty()).count(),
        });
    }
    found
}

/// Where a function's body opens; None for a signature alone.
fn body_start(code: &str, from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(from + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Where the block that opens at `open` closes.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset;
        }
    }
    code.len()
}

/// The line (from 1) of a byte offset.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The code without its `#[cfg(test)] mod … { … }` blocks: tests may use what they like.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(at) = out.find("#[cfg(test)]") {
        let rest = &out[at..];
        let end = match (rest.find('{'), rest.find(';')) {
            (Some(open), semicolon) if semicolon.is_none_or(|semicolon| open < semicolon) => {
                block_end(&out, at + open) + 1
            }
            (_, Some(semicolon)) => at + semicolon + 1,
            (_, None) => out.len(),
        };
        let end = end.min(out.len());
        let blanked: String = out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(at..end, &blanked);
    }
    out
}

/// Where a path of modules or crates is named: (line, the word behind `root::`), such as `crate::model` or, in a
/// group, `crate::{model, sql::Kind}`.
pub(crate) fn named_behind(code: &str, root: &str) -> Vec<(usize, String)> {
    let prefix = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in code.match_indices(&prefix) {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let words = if rest.starts_with('{') { group(rest) } else { vec![first_word(rest)] };
        found.extend(words.into_iter().map(|word| (line_of(code, at), word)));
    }
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|&c| is_word(c)).collect()
}

/// The first word of each item of `{a, b::{c, d}}`.
fn group(text: &str) -> Vec<String> {
    let inside = &text[1..block_end(text, 0).max(1)];
    let (mut items, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&inside[start..]);
    items.into_iter().map(first_word).filter(|word| !word.is_empty()).collect()
}

/// Where a word stands alone: its lines.
pub(crate) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let alone = |at: usize| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(|c| is_word(c) || c == '\'') && !after.is_some_and(is_word)
    };
    code.match_indices(word).filter(|&(at, _)| alone(at)).map(|(at, _)| line_of(code, at)).collect()
}
