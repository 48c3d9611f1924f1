//! Owns the rules by operation: which rule a call meets, and what it says of a read.

use super::{Consistency, Draw, Percentage};
use std::sync::Arc;

/// A pattern of operation names in which `*` stands for any text, also none, and everything else for itself.
///
/// A match takes a time linear in both lengths: callers choose their operations' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// What stands between the stars: at least one.
    pieces: Vec<Box<str>>,
}

impl Glob {
    /// The pattern of a text; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { pieces: text.split('*').map(Into::into).collect() }
    }

    /// Whether all of `text` is as the pattern says.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return text.is_empty() };
        let Some((last, middle)) = rest.split_last() else { return text == &**first };
        let Some(text) = text.strip_prefix(&**first).and_then(|text| text.strip_suffix(&**last)) else { return false };
        // Leftmost first leaves the most for those behind.
        let behind = |text: &'_ str, piece: &str| text.find(piece).map(|at| at + piece.len());
        let mut at = 0;
        middle.iter().all(|piece| behind(&text[at..], piece).inspect(|length| at += length).is_some())
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What metrics and explanations call it.
    pub name: Arc<str>,
    /// The pattern as it was written: what sessions draw by.
    pub operation: Arc<str>,
    /// The pattern.
    pub glob: Glob,
    /// The database that it is for; `None`: all.
    pub database: Option<Arc<str>>,
    /// The share of reads that replicas may take; the others go to the primary. `None`: all.
    pub replicas: Option<Percentage>,
    /// The consistency of reads that ask for none.
    pub consistency: Option<Consistency>,
}

/// All rules, in their order: the first that matches counts.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// What a read asks for itself.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The database, by its configured name.
    pub database: &'a str,
    /// The operation; empty: not said.
    pub operation: &'a str,
    /// The session's id; empty: none.
    pub session_id: &'a str,
    /// The consistency; the default if none was stated.
    pub consistency: Consistency,
    /// Whether it was stated.
    pub is_stated: bool,
}

/// What becomes of a read under the rules.
#[derive(Debug, Clone, Copy)]
pub struct Ruled<'a> {
    /// The rule that it met.
    pub rule: Option<&'a Rule>,
    /// Its consistency.
    pub consistency: Consistency,
    /// Whether the rule keeps it from replicas.
    pub primary_only: bool,
}

impl Rules {
    /// These rules, in this order.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// The rule for an operation on a database.
    #[must_use]
    pub fn find(&self, database: &str, operation: &str) -> Option<&Rule> {
        let is_for =
            |rule: &&Rule| rule.database.as_deref().is_none_or(|name| name == database) && rule.glob.matches(operation);
        self.0.iter().find(is_for)
    }

    /// What becomes of a read. `chance` decides for those without a session: evenly spread over all of `u64`.
    ///
    /// A rule may ask for more than the read does (the primary), never for less: its consistency is for reads that state
    /// none.
    #[must_use]
    pub fn judge(&self, asked: &Asked<'_>, chance: impl FnOnce() -> u64) -> Ruled<'_> {
        let rule = self.find(asked.database, asked.operation);
        let stated = rule.and_then(|rule| rule.consistency).filter(|_| !asked.is_stated);
        let kept_from_replicas = |share: Percentage| {
            let draw = rule.filter(|_| !asked.session_id.is_empty()).map(|rule| rule.draw(asked.session_id));
            !share.takes_in(draw.unwrap_or_else(|| Draw::at(chance())))
        };
        Ruled {
            rule,
            consistency: stated.unwrap_or(asked.consistency),
            primary_only: rule.and_then(|rule| rule.replicas).is_some_and(kept_from_replicas),
        }
    }
}

impl Rule {
    /// A session's draw: not by the rule's place or name, which may change.
    #[must_use]
    pub fn draw(&self, session_id: &str) -> Draw {
        Draw::of(&self.operation, session_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn rule(operation: &str, database: Option<&str>) -> Rule {
        Rule {
            name: operation.into(),
            operation: operation.into(),
            glob: Glob::new(operation),
            database: database.map(Into::into),
            replicas: None,
            consistency: None,
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("GET /v2/*", "GET /v2/tags", true),
            ("GET /v2/*", "GET /v2/", true),
            ("GET /v2/*", "GET /v2/a/b", true),
            ("GET /v2/*", "GET /v2", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**", "a", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*ab*ab*", "aab", false),
            ("*ab*ab*", "abab", true),
            ("worker.*", "Worker.x", false),
            ("*ä*", "väter", true),
            ("GET /?[a]", "GET /?[a]", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_that_matches_counts() {
        let rules = Rules::new(vec![rule("GET *", Some("ci")), rule("GET *", None), rule("*", None)]);
        let found = |database, operation| {
            let rule = rules.find(database, operation).unwrap();
            (&*rule.operation, rule.database.as_deref())
        };
        assert_eq!(found("ci", "GET /"), ("GET *", Some("ci")));
        assert_eq!(found("main", "GET /"), ("GET *", None));
        assert_eq!(found("ci", ""), ("*", None));
        assert!(Rules::default().find("ci", "GET /").is_none());
    }

    #[test]
    fn a_rule_never_weakens_what_was_asked_for() {
        let bounded = Consistency::Bounded { max_staleness: Duration::from_secs(5) };
        let rules = Rules::new(vec![Rule { consistency: Some(bounded), ..rule("a", None) }]);
        let judged = |operation, consistency, is_stated| {
            let asked = Asked { database: "ci", operation, session_id: "", consistency, is_stated };
            rules.judge(&asked, || 0).consistency
        };
        assert_eq!(judged("a", Consistency::Session, false), bounded);
        assert_eq!(judged("a", Consistency::Session, true), Consistency::Session);
        assert_eq!(judged("a", Consistency::Strong, true), Consistency::Strong);
        assert_eq!(judged("b", Consistency::Session, false), Consistency::Session);
    }

    fn kept(share: u16, session_id: &str, chance: u64) -> bool {
        let replicas = Percentage::from_hundredths(share);
        let rules = Rules::new(vec![Rule { replicas, ..rule("*", None) }]);
        let consistency = Consistency::Eventual;
        let asked = Asked { database: "ci", operation: "x", session_id, consistency, is_stated: true };
        rules.judge(&asked, || chance).primary_only
    }

    #[test]
    fn without_a_session_each_call_draws_for_itself() {
        assert_eq!(
            [0, u64::MAX / 2 - 1, u64::MAX / 2 + (1 << 60), u64::MAX].map(|chance| kept(5000, "", chance)),
            [false, false, true, true]
        );
        assert!(kept(0, "", 0) && !kept(10_000, "", u64::MAX));
    }

    proptest! {
        #[test]
        fn a_session_keeps_to_its_draw_and_a_higher_share_takes_it_in(
            session in ".{1,40}", low in 0_u16..=10_000, high in 0_u16..=10_000, chances: [u64; 2],
        ) {
            let (low, high) = (low.min(high), low.max(high));
            prop_assert_eq!(kept(low, &session, chances[0]), kept(low, &session, chances[1]));
            prop_assert!(kept(low, &session, 0) || !kept(high, &session, 0));
        }

        #[test]
        fn a_glob_is_what_the_plain_definition_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            fn plainly(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|skipped| plainly(rest, &text[skipped..])),
                    Some((c, rest)) => text.split_first().is_some_and(|(d, text)| c == d && plainly(rest, text)),
                }
            }
            prop_assert_eq!(Glob::new(&pattern).matches(&text), plainly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
