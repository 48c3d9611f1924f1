//! How a session writes: one statement, several, with an idempotency key and as often as it takes, on a stream, in a
//! transaction that commits, rolls back or is left; and what is then known of the write.

use std::time::Duration;

use tidegate_client::{Begin, Client, Error, Outcome, Statement, StatementResult, WriteOptions, params};

use super::{
    history::{Promise, SHARED, Step, Verdict, What, Write},
    recorder::describe,
    session::Session,
    store,
};

/// How often a write with a key is tried.
const ATTEMPTS: usize = 12;
const PAUSE: Duration = Duration::from_millis(200);

/// What came of one attempt.
struct Came {
    verdict: Verdict,
    to: Option<i64>,
    says: String,
}

impl Came {
    fn nothing(says: impl Into<String>) -> Came {
        Came { verdict: Verdict::Nothing, to: None, says: says.into() }
    }

    fn done(to: Option<i64>) -> Came {
        Came { verdict: Verdict::Done, to, says: "acknowledged".into() }
    }

    /// By the outcome that was said.
    fn failed(ended: Option<&Error>) -> Came {
        let Some(error) = ended else {
            return Came { verdict: Verdict::Maybe, to: None, says: "the caller left, or had no answer".into() };
        };
        let verdict = match error.outcome() {
            Outcome::NotExecuted | Outcome::RolledBack => Verdict::Nothing,
            Outcome::Committed => Verdict::Done,
            Outcome::Unknown | Outcome::Unspecified => Verdict::Maybe,
        };
        Came { verdict, to: None, says: describe(error) }
    }
}

/// What a write consists of.
#[derive(Clone, Copy)]
enum Form {
    /// A row; commits by itself.
    Row,
    /// A row and an addition, in one statement that returns the sum.
    Addition(usize),
    /// Two rows and the session's register, in three statements.
    Several,
}

impl Form {
    fn statements(self, session: u32, number: u32) -> Vec<Statement> {
        let row = || Statement::new(store::ADD_ROW).bind_all(params![session, number]);
        match self {
            Form::Row => vec![row()],
            Form::Addition(register) => {
                vec![Statement::new(store::ADD_TO_SHARED).bind_all(params![session, number, register as i64])]
            }
            Form::Several => vec![row(), Statement::new(store::RAISE).bind_all(params![session, number]), row()],
        }
    }

    fn rows(self) -> u32 {
        if matches!(self, Form::Several) { 2 } else { 1 }
    }

    fn adds_to(self) -> Option<usize> {
        if let Form::Addition(register) = self { Some(register) } else { None }
    }
}

impl Session<'_> {
    pub(super) async fn write(&mut self) {
        self.number += 1;
        let register = self.dice.below(SHARED as u64) as usize;
        match self.dice.below(100) {
            0..25 => self.write_once(Form::Row).await,
            25..45 => self.write_once(Form::Addition(register)).await,
            45..60 => self.write_once(Form::Several).await,
            60..67 => self.write_with_key(Form::Row).await,
            67..75 => self.write_with_key(Form::Addition(register)).await,
            75..80 => self.write_with_key(Form::Several).await,
            80..88 => self.write_in_stream().await,
            _ => self.transact(register).await,
        }
    }

    fn wrote(&self, form: Form, has_key: bool, broker: usize, invoked: u64, came: Came) {
        let write = Write {
            number: self.number,
            rows: form.rows(),
            raises_register: matches!(form, Form::Several),
            adds_to: form.adds_to(),
            came_to: came.to,
            verdict: came.verdict,
            has_key,
            how: came.says,
        };
        self.record(broker, invoked, write);
    }

    fn record(&self, broker: usize, invoked: u64, write: Write) {
        let (answered, what) = (self.recorder.now(), What::Write(write));
        self.recorder.step(Step { session: self.id, broker, invoked, answered, what });
    }

    async fn write_once(&mut self, form: Form) {
        let (broker, client) = self.client();
        self.attempt(form, broker, &client, "").await;
    }

    /// With a key a write may be repeated until it is known, also by another broker.
    async fn write_with_key(&mut self, form: Form) {
        let key = format!("{} {}", self.id, self.number);
        for _ in 0..ATTEMPTS {
            let (broker, client) = self.client();
            if self.attempt(form, broker, &client, &key).await == Verdict::Done {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&mut self, form: Form, broker: usize, client: &Client, key: &str) -> Verdict {
        let invoked = self.recorder.now();
        let kind = match (form, key.is_empty()) {
            (_, false) => "write with key",
            (Form::Several, _) => "write of several",
            _ => "write",
        };
        let options = WriteOptions::new().idempotency_key(key);
        let write = client.write_with(form.statements(self.id, self.number), options);
        let ended = self.recorder.call(self.asked(broker, kind), write).await;
        self.keep(client);
        let came = match &ended {
            Some(Ok(written)) => Came::done(form.adds_to().and_then(|_| returned(&written.results[0]))),
            Some(Err(error)) => Came::failed(Some(error)),
            None => Came::failed(None),
        };
        let verdict = came.verdict;
        self.wrote(form, !key.is_empty(), broker, invoked, came);
        verdict
    }

    /// One write on a stream, with a key or without.
    async fn write_in_stream(&mut self) {
        let (broker, client) = self.client();
        let (recorder, has_key) = (self.recorder, self.dice.percent(50));
        let opened = recorder.call(self.asked(broker, "open"), client.session()).await;
        let Some(Ok(mut stream)) = opened else {
            // Nothing was sent.
            return self.wrote(Form::Row, false, broker, recorder.now(), Came::nothing("the stream did not open"));
        };
        let (invoked, params) = (recorder.now(), params![self.id, self.number]);
        let key = format!("{} {}", self.id, self.number);
        let write = async {
            if has_key {
                stream.write_once(key, store::ADD_ROW, params).await.map(drop)
            } else {
                stream.write(store::ADD_ROW, params).await.map(drop)
            }
        };
        let came = match recorder.call(self.asked(broker, "write in stream"), write).await {
            Some(Ok(())) => Came::done(None),
            Some(Err(error)) => Came::failed(Some(&error)),
            None => Came::failed(None),
        };
        self.wrote(Form::Row, has_key, broker, invoked, came);
        self.keep(&client);
    }

    /// A transaction: a read, two rows, the register, and an addition. Most commit; some roll back, some are left as they
    /// are.
    async fn transact(&mut self, register: usize) {
        let (broker, client) = self.client();
        let mut invoked = self.recorder.now();
        let came = self.transaction(broker, &client, register, &mut invoked).await;
        let write = Write {
            number: self.number,
            rows: 2,
            raises_register: true,
            adds_to: Some(register),
            came_to: came.to,
            verdict: came.verdict,
            has_key: false,
            how: format!("transaction: {}", came.says),
        };
        self.record(broker, invoked, write);
        self.keep(&client);
    }

    async fn transaction(&mut self, broker: usize, client: &Client, register: usize, invoked: &mut u64) -> Came {
        // Until the COMMIT is sent nothing can be kept, whatever fails.
        let stopped = |what: &str| Came::nothing(format!("stopped at {what}"));
        let recorder = self.recorder;
        let opened = recorder.call(self.asked(broker, "open"), client.session()).await;
        let Some(Ok(mut stream)) = opened else { return stopped("open") };
        let begun = recorder.call(self.asked(broker, "begin"), stream.begin(Begin::new())).await;
        let Some(Ok(mut open)) = begun else { return stopped("begin") };
        let (asked_at, receipt) = (recorder.now(), open.receipt().cloned().unwrap_or_default());
        let own = params![self.id];
        let read = async { open.read(store::READ, own).await?.rows().await };
        match recorder.call(self.asked(broker, "read in transaction"), read).await {
            Some(Ok(rows)) => self.record_read(broker, self.id, asked_at, &rows, &receipt, Promise::InTransaction),
            _ => return stopped("read"),
        }
        *invoked = recorder.now();
        let mut sum = None;
        for sql in [store::ADD_ROW, store::RAISE, store::ADD_TO_SHARED] {
            let mut params = params![self.id, self.number].to_vec();
            if sql == store::ADD_TO_SHARED {
                params.push((register as i64).into());
            }
            let written = recorder.call(self.asked(broker, "write in transaction"), open.write(sql, params)).await;
            let Some(Ok(result)) = written else { return stopped("a write") };
            sum = sum.or(returned(&result));
        }
        match self.dice.below(100) {
            0..12 => {
                let _ = recorder.call(self.asked(broker, "rollback"), open.rollback()).await;
                Came::nothing("rolled back")
            }
            12..20 => Came::nothing("left as it was"),
            _ => match recorder.call(self.asked(broker, "commit"), open.commit()).await {
                Some(Ok(())) => Came::done(sum),
                Some(Err(error)) => Came::failed(Some(&error)),
                None => Came::failed(None),
            },
        }
    }
}

fn returned(result: &StatementResult) -> Option<i64> {
    result.rows.row(0)?.get::<i64>(0).ok()
}
