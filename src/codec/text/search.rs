//! The text forms of `tsvector` and `tsquery`, after `tsvectorout` of PostgreSQL's tsvector.c and `infix` of its tsquery.c.

use super::{
    super::read::{self, Malformed},
    bounded::Text,
    push_number,
};

/// Appends a lexeme in quotes, in which quotes and backslashes are doubled.
fn push_lexeme(lexeme: &str, out: &mut Text) {
    out.push('\'');
    for character in lexeme.chars() {
        if matches!(character, '\'' | '\\') {
            out.push(character);
        }
        out.push(character);
    }
    out.push('\'');
}

/// Takes a text that ends with a zero byte.
fn take_lexeme<'a>(raw: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let length = raw.iter().position(|byte| *byte == 0).ok_or(Malformed("a lexeme has no end"))?;
    let lexeme = read::utf8(read::take_slice(raw, length)?)?;
    read::take::<1>(raw)?;
    Ok(lexeme)
}

/// Appends a vector: lexemes with their positions, each with its weight unless that is D.
pub(super) fn vector(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let count = i32::from_be_bytes(read::take(&mut raw)?);
    if count < 0 {
        return Err(Malformed("its number of lexemes is negative"));
    }
    for at in 0..count {
        if at > 0 {
            out.push(' ');
        }
        push_lexeme(take_lexeme(&mut raw)?, out);
        let positions = u16::from_be_bytes(read::take(&mut raw)?);
        for at in 0..positions {
            out.push(if at == 0 { ':' } else { ',' });
            let position = u16::from_be_bytes(read::take(&mut raw)?);
            push_number((position & 0x3FFF).into(), 1, out);
            match position >> 14 {
                3 => out.push('A'),
                2 => out.push('B'),
                1 => out.push('C'),
                _ => {}
            }
        }
    }
    read::end(raw)
}

/// An item of a query, as the wire has it.
#[derive(Debug, Clone, Copy)]
enum Item<'a> {
    Lexeme {
        text: &'a str,
        weights: u8,
        is_prefix: bool,
    },
    Not,
    And,
    Or,
    /// With its distance.
    Phrase(i16),
}

impl Item<'_> {
    /// `tsearch_op_priority`: how tightly it binds.
    fn priority(self) -> i8 {
        match self {
            Item::Lexeme { .. } => 5,
            Item::Not => 4,
            Item::Phrase(_) => 3,
            Item::And => 2,
            Item::Or => 1,
        }
    }
}

/// Appends a query: infix, with parentheses only where they are needed.
pub(super) fn query(mut raw: &[u8], out: &mut Text) -> Result<(), Malformed> {
    let count = u32::from_be_bytes(read::take(&mut raw)?);
    // Each item is a character at least; in memory it is more.
    if usize::try_from(count).is_ok_and(|count| count > out.left() && count <= raw.len()) {
        out.fill();
        return Ok(());
    }
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(take_item(&mut raw)?);
    }
    read::end(raw)?;
    if !items.is_empty() {
        push_infix(&items, &left_operands(&items)?, out);
    }
    Ok(())
}

fn take_item<'a>(raw: &mut &'a [u8]) -> Result<Item<'a>, Malformed> {
    const LEXEME: u8 = 1;
    const OPERATOR: u8 = 2;
    match read::take(raw)? {
        [LEXEME] => {
            let [weights, is_prefix] = read::take(raw)?;
            Ok(Item::Lexeme { text: take_lexeme(raw)?, weights, is_prefix: is_prefix != 0 })
        }
        [OPERATOR] => match read::take(raw)? {
            [1] => Ok(Item::Not),
            [2] => Ok(Item::And),
            [3] => Ok(Item::Or),
            [4] => Ok(Item::Phrase(i16::from_be_bytes(read::take(raw)?))),
            _ => Err(Malformed("it has an unknown operator")),
        },
        _ => Err(Malformed("it has an unknown item")),
    }
}

/// An operator stands before its operands, the right one first: so a right operand is the item behind, and this answers
/// where each left one begins (0 where there is none).
fn left_operands(items: &[Item<'_>]) -> Result<Vec<usize>, Malformed> {
    const MISSING: Malformed = Malformed("an operator lacks an operand");
    let mut left = vec![0; items.len()];
    let mut whole = Vec::new();
    for (at, (item, left)) in items.iter().zip(&mut left).enumerate().rev() {
        match item {
            Item::Lexeme { .. } => {}
            Item::Not => {
                whole.pop().ok_or(MISSING)?;
            }
            Item::And | Item::Or | Item::Phrase(_) => {
                whole.pop().ok_or(MISSING)?;
                *left = whole.pop().ok_or(MISSING)?;
            }
        }
        whole.push(at);
    }
    if whole.len() == 1 { Ok(left) } else { Err(Malformed("an operand has no operator")) }
}

/// What is still to be written; a stack instead of recursion, as deep as queries are long.
enum Task {
    /// A subtree, below an operator of a priority; whether it is the right operand of a phrase, whose order matters.
    Tree {
        at: usize,
        parent: i8,
        right_of_phrase: bool,
    },
    Close,
    Operator(usize),
}

fn push_infix(items: &[Item<'_>], left: &[usize], out: &mut Text) {
    let mut tasks = vec![Task::Tree { at: 0, parent: -1, right_of_phrase: false }];
    while let Some(task) = tasks.pop() {
        let (at, parent, right_of_phrase) = match task {
            Task::Tree { at, parent, right_of_phrase } => (at, parent, right_of_phrase),
            Task::Close => {
                out.push_str(" )");
                continue;
            }
            Task::Operator(at) => {
                push_operator(items.get(at), out);
                continue;
            }
        };
        let Some(&item) = items.get(at) else { continue };
        let priority = item.priority();
        if let Item::Lexeme { text, weights, is_prefix } = item {
            push_lexeme(text, out);
            push_suffix(weights, is_prefix, out);
            continue;
        }
        let is_phrase = matches!(item, Item::Phrase(_));
        if priority < parent || (is_phrase && right_of_phrase) {
            out.push_str("( ");
            tasks.push(Task::Close);
        }
        tasks.push(Task::Tree { at: at + 1, parent: priority, right_of_phrase: is_phrase });
        if matches!(item, Item::Not) {
            out.push('!');
        } else {
            tasks.push(Task::Operator(at));
            let left = left.get(at).copied().unwrap_or_default();
            tasks.push(Task::Tree { at: left, parent: priority, right_of_phrase: false });
        }
    }
}

fn push_operator(item: Option<&Item<'_>>, out: &mut Text) {
    match item {
        Some(Item::And) => out.push_str(" & "),
        Some(Item::Or) => out.push_str(" | "),
        Some(Item::Phrase(1)) => out.push_str(" <-> "),
        Some(Item::Phrase(distance)) => out.push_str(&format!(" <{distance}> ")),
        _ => {}
    }
}

fn push_suffix(weights: u8, is_prefix: bool, out: &mut Text) {
    if weights != 0 || is_prefix {
        out.push(':');
    }
    if is_prefix {
        out.push('*');
    }
    for (bit, name) in [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')] {
        if weights & bit != 0 {
            out.push(name);
        }
    }
}
