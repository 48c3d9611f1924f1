//! The position tokens that a client remembers: what its next calls must see.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::token::keep_needed;

/// Tokens of answers so far. Usually one: the broker merges what it is sent into what it returns. Concurrent calls return
/// several; those that stand for all are kept, until one call has carried them.
#[derive(Debug)]
pub(crate) struct Positions {
    tokens: Mutex<Vec<String>>,
    remember: bool,
}

impl Positions {
    pub(crate) fn new(mut tokens: Vec<String>, remember: bool) -> Self {
        keep_needed(&mut tokens);
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
            keep_needed(&mut tokens);
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
    use crate::token::test_support::token;

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
    fn of_many_concurrent_answers_those_are_kept_that_stand_for_all() {
        let positions = Positions::new(Vec::new(), true);
        // Answered out of order; the position that was written last is not the highest.
        let written = |lsn: u64| if lsn == 500 { 2_000 } else { 1_000 };
        for n in 0..1_000 {
            let lsn = (n * 389) % 1_000;
            positions.answered(&[], &token(&[("main", 1, lsn, written(lsn), None)]));
        }
        let needed = [token(&[("main", 1, 500, 2_000, None)]), token(&[("main", 1, 999, 1_000, None)])];
        let mut kept = positions.current();
        kept.sort();
        assert_eq!(kept, needed);
        let copy = positions.with(token(&[("main", 1, 1_000, 3_000, None)]));
        assert_eq!(copy.current().len(), 1);
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
