//! The position tokens that a client remembers: what its next calls must see.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tokens of answers so far. Usually one: the broker merges what it is sent into what it returns. Several stand side by
/// side after concurrent calls, until one call has carried them all.
#[derive(Debug)]
pub(crate) struct Positions {
    tokens: Mutex<Vec<String>>,
    remember: bool,
}

impl Positions {
    pub(crate) fn new(tokens: Vec<String>, remember: bool) -> Self {
        Positions { tokens: Mutex::new(tokens), remember }
    }

    /// What a call sends.
    pub(crate) fn current(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Takes a call's answer: its token covers what the call sent, and nothing that others returned meanwhile.
    pub(crate) fn answered(&self, sent: &[String], token: &str) {
        if !self.remember {
            return;
        }
        let mut tokens = self.lock();
        tokens.retain(|known| known != token && !sent.contains(known));
        if !token.is_empty() {
            tokens.push(token.to_owned());
        }
    }

    /// Takes a failed call's answer: without a token, nothing is known to be covered.
    pub(crate) fn failed(&self, sent: &[String], token: &str) {
        if !token.is_empty() {
            self.answered(sent, token);
        }
    }

    /// A copy that goes its own way, with one more token.
    pub(crate) fn with(&self, token: String) -> Self {
        let mut tokens = self.current();
        if !token.is_empty() && !tokens.contains(&token) {
            tokens.push(token);
        }
        Positions::new(tokens, self.remember)
    }

    /// An empty memory of the same kind.
    pub(crate) fn fresh(&self) -> Self {
        Positions::new(Vec::new(), self.remember)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner) // a Vec of whole tokens is never half-changed
    }
}

#[cfg(test)]
mod tests {
    use super::Positions;

    #[test]
    fn a_token_replaces_what_its_call_sent() {
        let positions = Positions::new(vec!["a".into()], true);
        let sent = positions.current();
        positions.answered(&sent, "ab");
        assert_eq!(positions.current(), ["ab"]);
    }

    #[test]
    fn concurrent_calls_keep_both_tokens_until_one_call_carried_them() {
        let positions = Positions::new(vec!["a".into()], true);
        let (first, second) = (positions.current(), positions.current());
        positions.answered(&first, "ab");
        positions.answered(&second, "ac");
        assert_eq!(positions.current(), ["ab", "ac"]);
        let third = positions.current();
        positions.answered(&third, "abc");
        assert_eq!(positions.current(), ["abc"]);
    }

    #[test]
    fn a_failure_without_a_token_forgets_nothing() {
        let positions = Positions::new(vec!["a".into()], true);
        positions.failed(&positions.current(), "");
        assert_eq!(positions.current(), ["a"]);
        positions.failed(&positions.current(), "b");
        assert_eq!(positions.current(), ["b"]);
    }

    #[test]
    fn a_memory_that_is_off_keeps_what_it_was_given_only() {
        let positions = Positions::new(vec!["a".into()], false);
        positions.answered(&positions.current(), "b");
        assert_eq!(positions.current(), ["a"]);
        assert_eq!(positions.with("c".into()).current(), ["a", "c"]);
        assert!(positions.fresh().current().is_empty());
    }
}
