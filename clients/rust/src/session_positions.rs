//! Which of a client's position tokens a session's broker has: those are not brought again.

/// What the requests of one session have brought, and what became of it. Requests are answered in order.
#[derive(Debug, Default)]
pub(crate) struct SessionPositions {
    /// The broker has them: merged into the session's, or made of these.
    held: Vec<String>,
    /// Brought by this request each, of which nothing was heard yet: it may be refused, and its tokens with it.
    on_their_way: Vec<(u64, String)>,
}

impl SessionPositions {
    /// A request takes all these with it.
    pub(crate) fn brings(&mut self, request: u64, tokens: &[String]) {
        self.on_their_way.extend(tokens.iter().map(|token| (request, token.clone())));
    }

    /// Those of the client's tokens that the next request has to bring. Also what is on its way with another: were that one
    /// refused, those sent behind it would miss what they are to see.
    pub(crate) fn missing(&self, current: Vec<String>) -> Vec<String> {
        current.into_iter().filter(|token| !self.held.contains(token)).collect()
    }

    /// A failure without a token: none of what its request brought was taken in.
    pub(crate) fn refused(&mut self, request: u64) {
        self.on_their_way.retain(|(by, _)| *by != request);
    }

    /// An answer that is no failure, without a token.
    pub(crate) fn taken_in(&mut self, request: u64) {
        let taken = self.on_their_way.extract_if(.., |(by, _)| *by == request).map(|(_, token)| token);
        self.held.extend(taken);
    }

    /// An answer's token; returns those it covers: what the broker had, and what this request and the earlier ones brought. What
    /// later ones bring is kept.
    pub(crate) fn covered(&mut self, request: u64, token: &str) -> Vec<String> {
        let mut covered = std::mem::replace(&mut self.held, vec![token.to_owned()]);
        covered.extend(self.on_their_way.extract_if(.., |(by, _)| *by <= request).map(|(_, token)| token));
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::SessionPositions;

    fn owned(tokens: &[&str]) -> Vec<String> {
        tokens.iter().map(|&token| token.to_owned()).collect()
    }

    #[test]
    fn what_a_refused_request_brought_is_brought_again_and_covered_by_no_answer() {
        let mut positions = SessionPositions::default();
        positions.brings(2, &owned(&["a", "foreign"]));
        positions.refused(2);
        assert_eq!(positions.missing(owned(&["a", "foreign"])), ["a", "foreign"]);
        assert_eq!(positions.covered(3, "b"), [""; 0]);
        assert_eq!(positions.missing(owned(&["a", "b", "foreign"])), ["a", "foreign"]);
    }

    #[test]
    fn until_the_broker_has_a_token_each_request_brings_it() {
        let mut positions = SessionPositions::default();
        positions.brings(2, &owned(&["a"]));
        assert_eq!(positions.missing(owned(&["a"])), ["a"]);
        positions.brings(3, &owned(&["a"]));
        positions.refused(2);
        assert_eq!(positions.missing(owned(&["a"])), ["a"]);
        positions.taken_in(3);
        assert_eq!(positions.missing(owned(&["a"])), [""; 0]);
        assert_eq!(positions.covered(3, "b"), ["a"]);
        assert_eq!(positions.missing(owned(&["b"])), [""; 0]);
    }

    #[test]
    fn an_answer_covers_what_came_up_to_its_request() {
        let mut positions = SessionPositions::default();
        positions.brings(1, &owned(&["opened with"]));
        positions.taken_in(1);
        positions.brings(2, &owned(&["a"]));
        positions.brings(4, &owned(&["b"]));
        assert_eq!(positions.covered(3, "c"), ["opened with", "a"]);
        assert_eq!(positions.covered(4, "d"), ["c", "b"]);
    }
}
