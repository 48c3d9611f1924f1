//! Reads array and row literals as PostgreSQL does (`array_in` of arrayfuncs.c, `record_in` of rowtypes.c), strictly:
//! what PostgreSQL would refuse is refused, and so is what it would take for the sake of old clients.

/// An array's literal, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// The length of each dimension.
    pub lengths: Vec<usize>,
    /// The lower bound of each dimension.
    pub lower_bounds: Vec<i64>,
    /// The elements, row-major; None is NULL.
    pub elements: Vec<Option<String>>,
}

/// Reads a whole array literal, whose elements have `delimiter` between them.
pub fn array(text: &str, delimiter: char) -> Option<Array> {
    let (bounds, body) = match text.split_once('=') {
        Some((bounds, body)) if bounds.starts_with('[') => (self::bounds(bounds)?, body),
        _ => (Vec::new(), text),
    };
    if body == "{}" {
        let is_plain = bounds.is_empty();
        return is_plain.then(|| Array { lengths: Vec::new(), lower_bounds: Vec::new(), elements: Vec::new() });
    }
    let dimensions = body.chars().take_while(|c| *c == '{').count();
    let mut reader = Braces { rest: body, delimiter, lengths: vec![None; dimensions], elements: Vec::new() };
    reader.level(0)?;
    if !reader.rest.is_empty() {
        return None;
    }
    let lengths: Vec<usize> = reader.lengths.into_iter().collect::<Option<_>>()?;
    let lower_bounds = match bounds.is_empty() {
        true => vec![1; dimensions],
        false => bounds.iter().map(|(lower, _)| *lower).collect(),
    };
    let fits = |(lower, upper): &(i64, i64), length: &usize| usize::try_from(upper - lower + 1) == Ok(*length);
    let is_consistent = bounds.is_empty()
        || (bounds.len() == dimensions && bounds.iter().zip(&lengths).all(|(bound, length)| fits(bound, length)));
    is_consistent.then_some(Array { lengths, lower_bounds, elements: reader.elements })
}

/// `[0:1][-3:4]`, both ends being `int4`.
fn bounds(text: &str) -> Option<Vec<(i64, i64)>> {
    let one = |part: &str| {
        let (lower, upper) = part.strip_suffix(']')?.split_once(':')?;
        Some((lower.parse::<i32>().ok()?.into(), upper.parse::<i32>().ok()?.into()))
    };
    text.strip_prefix('[')?.split('[').map(one).collect()
}

struct Braces<'a> {
    rest: &'a str,
    delimiter: char,
    /// How many there are in each dimension; every brace of a dimension must hold as many.
    lengths: Vec<Option<usize>>,
    elements: Vec<Option<String>>,
}

impl Braces<'_> {
    fn take(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    /// One pair of braces and what is in it.
    fn level(&mut self, dimension: usize) -> Option<()> {
        self.take('{')?;
        let mut length = 0;
        loop {
            if dimension + 1 < self.lengths.len() {
                self.level(dimension + 1)?
            } else {
                self.element()?
            }
            length += 1;
            if self.take(self.delimiter).is_none() {
                break;
            }
        }
        self.take('}')?;
        let known = self.lengths.get_mut(dimension)?;
        (*known.get_or_insert(length) == length).then_some(())
    }

    fn element(&mut self) -> Option<()> {
        if self.rest.starts_with('"') {
            let (text, rest) = quoted(self.rest, false)?;
            self.rest = rest;
            self.elements.push(Some(text));
            return Some(());
        }
        let end = self.rest.find(['}', self.delimiter])?;
        let (plain, rest) = self.rest.split_at(end);
        // Without quotes: a number, or NULL; nothing that has a meaning of its own here.
        if plain.is_empty() || plain.contains(|c: char| c.is_whitespace() || "{}\"\\".contains(c)) {
            return None;
        }
        self.rest = rest;
        self.elements.push((!plain.eq_ignore_ascii_case("null")).then(|| plain.to_owned()));
        Some(())
    }
}

/// Reads a whole row literal; a field without anything is NULL. None for what is no row, and for a row without fields,
/// whose literal `()` reads as one field that is NULL.
pub fn row(text: &str) -> Option<Vec<Option<String>>> {
    let mut rest = text.strip_prefix('(')?;
    let mut fields = Vec::new();
    loop {
        if rest.starts_with('"') {
            let (field, behind) = quoted(rest, true)?;
            fields.push(Some(field));
            rest = behind;
        } else {
            let end = rest.find([',', ')'])?;
            let (plain, behind) = rest.split_at(end);
            if plain.contains(|c: char| c.is_whitespace() || "(\"\\".contains(c)) {
                return None;
            }
            fields.push((!plain.is_empty()).then(|| plain.to_owned()));
            rest = behind;
        }
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None => return (rest == ")").then_some(fields),
        }
    }
}

/// A text in quotes at the front, and what is behind it. A backslash hides the character after it; in rows a doubled
/// quote is one, too.
fn quoted(text: &str, doubles: bool) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?.chars();
    let mut content = String::new();
    loop {
        match rest.next()? {
            '\\' => content.push(rest.next()?),
            '"' if doubles && rest.as_str().starts_with('"') => content.extend(rest.next()),
            '"' => return Some((content, rest.as_str())),
            c => content.push(c),
        }
    }
}
