//! One session: reads and writes with time to think between them, through one broker or through whichever comes, and tells
//! the recorder what it did and saw. How it writes is in `writing`.

use std::time::Duration;

use tidegate_client::{Begin, Client, Consistency, Error, ReadOptions, Receipt, Rows, params};

use super::{
    brokers::{Broker, DEFAULT_TIMEOUT, STICK_TIMEOUT},
    dice::Dice,
    history::{Promise, Read, Step, What},
    recorder::{Asked, Recorder},
    store,
};

/// The time that calls have whose client sets one.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a hundred steps, those that write.
const WRITES_PCT: u64 = 10;
/// Of a hundred steps, those after which the next one follows at once.
const HASTE_PCT: u64 = 5;
/// Of a hundred steps, those after which the session is quiet for longer than its positions bind.
const LONG_THOUGHT_PCT: u64 = 2;
/// Of a hundred calls, those whose callers go away soon, without waiting for an answer.
const LEAVE_PCT: u64 = 2;

/// Connections to one broker: with a time limit or without, with a memory of tokens or without.
pub struct Link {
    clients: [Client; 4],
}

impl Link {
    pub fn to(broker: &Broker) -> Link {
        let client = |has_timeout, remembers| {
            let builder = Client::builder().database(tidegate::dev::DATABASE).remember_positions(remembers);
            let builder = if has_timeout { builder.timeout(CLIENT_TIMEOUT) } else { builder };
            builder.connect_lazy(broker.url()).expect("its URL makes sense")
        };
        Link { clients: [client(false, false), client(false, true), client(true, false), client(true, true)] }
    }

    fn client(&self, has_timeout: bool, remembers: bool) -> &Client {
        &self.clients[usize::from(has_timeout) * 2 + usize::from(remembers)]
    }
}

/// What a session is.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its reads never go back.
    pub is_causal: bool,
    /// Any broker, with its tokens; else always the same, which remembers for it.
    pub roams: bool,
    /// Whether it has a session id; one that roams may have tokens alone.
    pub has_id: bool,
    /// Whether its calls carry a time limit; else the broker's default counts, and is checked.
    pub has_timeout: bool,
}

pub struct Session<'a> {
    pub(super) id: u32,
    pub(super) kind: Kind,
    pub(super) dice: Dice,
    pub(super) recorder: &'a Recorder,
    pub(super) sessions: u32,
    /// The number of its last write.
    pub(super) number: u32,
    links: &'a [Link],
    /// What it carries to the next broker.
    tokens: Vec<String>,
}

impl<'a> Session<'a> {
    pub fn new(
        id: u32,
        sessions: u32,
        kind: Kind,
        seed: u64,
        links: &'a [Link],
        recorder: &'a Recorder,
    ) -> Session<'a> {
        let dice = Dice::of(seed, 1 + u64::from(id));
        Session { id, kind, dice, recorder, sessions, number: 0, links, tokens: vec![] }
    }

    /// Until the run is over.
    pub async fn run(mut self) {
        self.think(1000).await;
        while !self.recorder.is_over() {
            if self.dice.percent(WRITES_PCT) {
                self.write().await;
                // What was written is asked for at once, often.
                if self.dice.percent(40) {
                    self.read().await;
                }
            } else {
                self.read().await;
            }
            if self.dice.percent(LONG_THOUGHT_PCT) {
                self.think(STICK_TIMEOUT.as_millis() as u64 * 3 / 2).await;
            } else if !self.dice.percent(HASTE_PCT) {
                self.think(1200).await;
            }
        }
    }

    /// For so many milliseconds at most; ends early with the run.
    pub(super) async fn think(&mut self, most: u64) {
        let mut left = self.dice.between(most / 10, most);
        while left > 0 && !self.recorder.is_over() {
            let part = left.min(500);
            tokio::time::sleep(Duration::from_millis(part)).await;
            left -= part;
        }
    }

    /// A client for the next call, and its broker.
    pub(super) fn client(&mut self) -> (usize, Client) {
        let count = self.links.len();
        let broker = if self.kind.roams { self.dice.below(count as u64) as usize } else { self.id as usize % count };
        let client = self.links[broker].client(self.kind.has_timeout, self.kind.roams);
        let id = if self.kind.has_id { format!("session {}", self.id) } else { String::new() };
        let fresh = client.for_session(id);
        (broker, self.tokens.iter().fold(fresh, |client, token| client.with_position(token)))
    }

    /// What the client learnt is carried on.
    pub(super) fn keep(&mut self, client: &Client) {
        if self.kind.roams {
            self.tokens = client.positions();
        }
    }

    pub(super) fn asked(&mut self, broker: usize, kind: &'static str) -> Asked {
        let limit = if self.kind.has_timeout { CLIENT_TIMEOUT } else { DEFAULT_TIMEOUT };
        let leaves = self.dice.percent(LEAVE_PCT);
        let leaves_after = leaves.then(|| Duration::from_millis(self.dice.between(0, 20)));
        Asked { session: self.id, broker, kind, limit, leaves_after }
    }

    fn options(&self) -> ReadOptions {
        let causal = if self.kind.is_causal { Consistency::Causal } else { Consistency::Session };
        ReadOptions::new().consistency(causal)
    }

    /// Its own rows mostly, or somebody else's.
    fn whose(&mut self) -> u32 {
        if self.dice.percent(70) { self.id } else { self.dice.below(u64::from(self.sessions)) as u32 }
    }

    async fn read(&mut self) {
        match self.dice.below(100) {
            0..92 => self.read_once().await,
            92..96 => self.read_in_stream(false).await,
            _ => self.read_in_stream(true).await,
        }
    }

    async fn read_once(&mut self) {
        let (broker, client) = self.client();
        let (of, options) = (self.whose(), self.options());
        let (invoked, was_calm) = (self.recorder.now(), self.recorder.is_calm());
        let read = async { client.read_with(store::READ, params![of], options).await?.rows().await };
        let read = self.recorder.call(self.asked(broker, "read"), read).await;
        self.keep(&client);
        if let Some(Ok(rows)) = read {
            self.saw(broker, of, invoked, &rows, rows.receipt(), was_calm);
        }
    }

    /// Two reads on a stream: each routed by itself, or both in a transaction on one host.
    async fn read_in_stream(&mut self, in_transaction: bool) {
        let (broker, client) = self.client();
        // Its failure is counted; there is nothing to record.
        let _ = self.read_twice(broker, &client, in_transaction).await;
        self.keep(&client);
    }

    async fn read_twice(&mut self, broker: usize, client: &Client, in_transaction: bool) -> Option<()> {
        let (options, recorder) = (self.options(), self.recorder);
        let mut stream = recorder.call(self.asked(broker, "open"), client.session()).await?.ok()?;
        let whose = [self.whose(), self.id];
        if in_transaction {
            let begin = stream.begin(Begin::new().on_replica(&options));
            let mut transaction = recorder.call(self.asked(broker, "begin"), begin).await?.ok()?;
            for of in whose {
                let (invoked, was_calm) = (recorder.now(), recorder.is_calm());
                let receipt = transaction.receipt().cloned().unwrap_or_default();
                let read = async { transaction.read(store::READ, params![of]).await?.rows().await };
                let rows = recorder.call(self.asked(broker, "read in transaction"), read).await?.ok()?;
                self.saw(broker, of, invoked, &rows, &receipt, was_calm);
            }
            recorder.call(self.asked(broker, "rollback"), transaction.rollback()).await?.ok()?;
        } else {
            for of in whose {
                let (invoked, was_calm) = (recorder.now(), recorder.is_calm());
                let read = async {
                    let read = stream.read(store::READ, params![of], options.clone()).await?;
                    let receipt = read.receipt().cloned().unwrap_or_default();
                    Ok((read.rows().await?, receipt))
                };
                let (rows, receipt) = recorder.call(self.asked(broker, "read in stream"), read).await?.ok()?;
                self.saw(broker, of, invoked, &rows, &receipt, was_calm);
            }
        }
        recorder.call(self.asked(broker, "close"), stream.close()).await?.ok()
    }

    fn saw(&self, broker: usize, of: u32, invoked: u64, rows: &Rows, receipt: &Receipt, was_calm: bool) {
        self.recorder.route(receipt, was_calm);
        let promise = if self.kind.is_causal { Promise::Causal } else { Promise::Session };
        self.record_read(broker, of, invoked, rows, receipt, promise);
    }

    pub(super) fn record_read(
        &self,
        broker: usize,
        of: u32,
        invoked: u64,
        rows: &Rows,
        receipt: &Receipt,
        promise: Promise,
    ) {
        let saw = store::state(rows).expect("a read answers what was asked for");
        let route = format!(
            "{} {} timeline {} required {} replayed {} attempts {}",
            receipt.host,
            receipt.reason().as_str_name(),
            receipt.timeline,
            receipt.required_lsn,
            receipt.replayed_lsn,
            receipt.attempts
        );
        let what = What::Read(Read { of, promise, saw, route });
        let answered = self.recorder.now();
        self.recorder.step(Step { session: self.id, broker, invoked, answered, what });
    }
}

/// Whether the brokers keep the promise of causal reads: asked, not assumed.
pub async fn honours_causal(link: &Link) -> Result<bool, Error> {
    let client = link.client(true, true).for_session("a question");
    let options = ReadOptions::new().consistency(Consistency::Causal);
    match client.read_with("SELECT 1", [], options).await {
        Ok(read) => read.rows().await.map(|_| true),
        Err(error) if error.code() == tonic::Code::Unimplemented => Ok(false),
        Err(error) => Err(error),
    }
}
