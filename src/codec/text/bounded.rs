//! A text under way that may become so long and no longer: a few bytes of a value can stand for many of text (a `numeric`
//! of 10 bytes for 131,000 digits, a quote for one more at each level), and what no message can hold is not written first.

/// A text with a bound. Behind the bound nothing is added any more, and [`Text::is_full`] tells.
#[derive(Debug)]
pub(in crate::codec) struct Text {
    text: String,
    most: usize,
    is_full: bool,
}

impl Text {
    /// An empty text of `most` bytes at most.
    pub(in crate::codec) fn new(most: usize) -> Text {
        Text { text: String::new(), most, is_full: false }
    }

    /// Begins anew, in the same memory.
    pub(in crate::codec) fn restart(&mut self, most: usize) {
        self.text.clear();
        (self.most, self.is_full) = (most, false);
    }

    /// Whether more was to be added than the bound allows: the text is then of no use.
    pub(in crate::codec) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(in crate::codec) fn as_str(&self) -> &str {
        &self.text
    }

    pub(in crate::codec) fn capacity(&self) -> usize {
        self.text.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// How much may still be added.
    pub(super) fn left(&self) -> usize {
        if self.is_full { 0 } else { self.most.saturating_sub(self.text.len()) }
    }

    /// Notes that the text would become longer than it may.
    pub(super) fn fill(&mut self) {
        self.is_full = true;
    }

    pub(super) fn push_str(&mut self, text: &str) {
        if text.len() <= self.left() {
            self.text.push_str(text);
        } else {
            self.fill();
        }
    }

    pub(super) fn push(&mut self, character: char) {
        if character.len_utf8() <= self.left() {
            self.text.push(character);
        } else {
            self.fill();
        }
    }

    /// Takes zeros off the end.
    pub(super) fn trim_zeros(&mut self) {
        self.text.truncate(self.text.trim_end_matches('0').len());
    }

    /// What stands from a place on.
    pub(super) fn since(&self, start: usize) -> &str {
        self.text.get(start..).unwrap_or_default()
    }

    /// Puts what stands from a place on in quotes; `escape` says what goes before a quote or a backslash in it.
    pub(super) fn quote(&mut self, start: usize, escape: impl Fn(char) -> char) {
        let part = self.since(start).to_owned();
        self.text.truncate(start);
        self.push('"');
        for character in part.chars() {
            if self.is_full {
                return;
            }
            if matches!(character, '"' | '\\') {
                self.push(escape(character));
            }
            self.push(character);
        }
        self.push('"');
    }
}

impl Extend<char> for Text {
    fn extend<T: IntoIterator<Item = char>>(&mut self, characters: T) {
        for character in characters {
            if self.is_full {
                return;
            }
            self.push(character);
        }
    }
}
