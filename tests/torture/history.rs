//! What a run records: each write and each read of each session with its times and what came of it, how long every answer
//! took, and what was there at the end. Plain data: the checker needs no more, and tests write it by hand.

use std::collections::BTreeMap;

/// How many registers all sessions share.
pub const SHARED: usize = 8;

/// A version of each shared register.
pub type Versions = [i64; SHARED];

/// What one statement saw of a session's rows and of the shared registers: one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// How many rows each of the session's writes has there, by the write's number.
    pub rows: BTreeMap<u32, u32>,
    /// The number of the newest write that its own register has taken.
    pub register: i64,
    pub shared: Versions,
}

/// What is known of a write by what was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was acknowledged.
    Done,
    /// It was said, or can only be, that nothing was kept.
    Nothing,
    /// Nobody knows: it may be there, or not, or come later.
    Maybe,
}

/// One attempt at a write. Attempts with the same number are one write, repeated with one idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Within its session, from 1, rising.
    pub number: u32,
    /// How many rows it inserts.
    pub rows: u32,
    /// Whether it raises the session's own register to its number.
    pub raises_register: bool,
    /// The shared register that it adds 1 to.
    pub adds_to: Option<usize>,
    /// What that register came to, as it was answered.
    pub came_to: Option<i64>,
    pub verdict: Verdict,
    pub has_key: bool,
    /// How it was made, and what was said, for people.
    pub how: String,
}

/// What a read was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The session's own writes.
    Session,
    /// These, and what its earlier reads saw.
    Causal,
    /// As [`Promise::Session`]; it ran in a transaction on the primary.
    InTransaction,
}

/// A read that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Whose rows.
    pub of: u32,
    pub promise: Promise,
    pub saw: State,
    /// Where it ran and why, for people.
    pub route: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Write(Write),
    Read(Read),
}

/// One step of a session. Times are microseconds since the start of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub session: u32,
    /// Which broker.
    pub broker: usize,
    pub invoked: u64,
    pub answered: u64,
    pub what: What,
}

/// How long one call, or one request of a stream, took to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub session: u32,
    pub broker: usize,
    pub kind: &'static str,
    pub invoked: u64,
    /// None: it was given up.
    pub answered: Option<u64>,
    /// When it was due at the latest.
    pub deadline: u64,
    /// How much later than it should the recorder itself ran meanwhile.
    pub starved: u64,
}

/// Everything that was recorded.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In each session's order; sessions are mixed as they were answered.
    pub steps: Vec<Step>,
    /// Answers that were late even by the clock alone: nobody needs the others.
    pub late: Vec<Answer>,
    /// The end: the rows of each session and the registers, read from the primary itself; none while it runs.
    pub end: Option<End>,
}

/// What was there when all was over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Rows of each write, by session and number.
    pub rows: BTreeMap<(u32, u32), u32>,
    /// Each session's own register.
    pub registers: BTreeMap<u32, i64>,
    pub shared: Versions,
    /// What was still held, a line each: connections, transactions.
    pub left_behind: Vec<String>,
    /// What did not come back by itself after a fault had ended, a line each.
    pub unhealed: Vec<String>,
}
