//! Our own load generator, over the Rust client: for what takes a client that reads its answers, and for calls at a fixed
//! rate. Every answer is checked.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_client::{Client, params};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    h2load::connections,
    sample::{Call, Sample, Window},
    workload::{ACCOUNTS, COUNT, OWN_ROWS, POINT, READ_COUNT, UPDATE_ID, Workload, numbered},
};
use crate::clock;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("a call failed: {0}")]
    Call(#[from] tidegate_client::Error),
    #[error("a read of account {0} answered something else")]
    WrongRow(i64),
    #[error(
        "counter {id} was {read} after it had been raised to {written}: a session did not read its own write, or a write \
         was lost or doubled"
    )]
    NotOwnWrite { id: i64, written: i64, read: i64 },
    #[error("a caller ended early: {0}")]
    Caller(#[from] tokio::task::JoinError),
}

/// A caller, with a session of its own.
struct Caller {
    client: Client,
    /// The first of its rows in `counters`.
    first: i64,
    /// What they hold, as far as it knows.
    written: [Option<i64>; OWN_ROWS as usize],
}

/// As many callers as that, over as many connections as h2load would make.
async fn callers(url: &str, count: u32) -> Result<Vec<Caller>, LoadError> {
    let mut clients = Vec::new();
    for _ in 0..connections(count) {
        clients.push(Client::connect(url).await?);
    }
    let caller = |number: u32| Caller {
        client: clients[number as usize % clients.len()].for_session(format!("caller {number}")),
        first: 1 + i64::from(number) * OWN_ROWS as i64,
        written: [None; OWN_ROWS as usize],
    };
    Ok((0..count).map(caller).collect())
}

fn random(below: u64) -> i64 {
    (rand::random::<u64>() % below) as i64
}

impl Caller {
    async fn call(&mut self, workload: Workload) -> Result<(), LoadError> {
        match workload {
            Workload::WriteThenRead => self.write_then_read().await,
            Workload::Mixed if random(10) == 0 => {
                self.client.execute(&numbered(UPDATE_ID), params![1 + random(ACCOUNTS)]).await?;
                Ok(())
            }
            _ => read(&self.client, 1 + random(ACCOUNTS)).await,
        }
    }

    /// Nobody else writes these rows meanwhile: each read must have this caller's last write, and no more.
    async fn write_then_read(&mut self) -> Result<(), LoadError> {
        let at = random(OWN_ROWS);
        let id = self.first + at;
        self.client.execute(&numbered(COUNT), params![id]).await?;
        let rows = self.client.read(&numbered(READ_COUNT), params![id]).await?.rows().await?;
        let row = rows.iter().next().ok_or(LoadError::WrongRow(id))?;
        let (seen, read): (i64, i64) = (row.get(0)?, row.get(1)?);
        let known = &mut self.written[at as usize];
        let written = known.map_or(read, |before| before + 1);
        if seen != id || read != written || read < 1 {
            return Err(LoadError::NotOwnWrite { id, written, read });
        }
        *known = Some(read);
        Ok(())
    }
}

async fn read(client: &Client, id: i64) -> Result<(), LoadError> {
    let rows = client.read(&numbered(POINT), params![id]).await?.rows().await?;
    let row = rows.iter().next().ok_or(LoadError::WrongRow(id))?;
    let is_right = row.get::<i64>(0)? == id && row.get::<&str>(1)? == format!("owner {id}");
    if rows.len() == 1 && is_right { Ok(()) } else { Err(LoadError::WrongRow(id)) }
}

fn micros(later: Instant, earlier: Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_micros()).unwrap_or(u64::MAX)
}

fn call(began: Instant, due: Instant) -> Call {
    let took_us = u32::try_from(micros(clock::now(), due)).unwrap_or(u32::MAX);
    Call { due_us: micros(due, began), took_us }
}

/// Every caller calls again as soon as it was answered.
pub(super) async fn closed(url: &str, workload: Workload, count: u32, window: Window) -> Result<Sample, LoadError> {
    let callers = callers(url, count).await?;
    let began = clock::now();
    let end = began + Duration::from_secs(window.whole_seconds().into());
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut calls = Vec::new();
            while clock::now() < end {
                let sent = clock::now();
                caller.call(workload).await?;
                calls.push(call(began, sent));
            }
            Ok::<_, LoadError>(calls)
        });
    }
    let mut calls = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        calls.extend(ended??);
    }
    Ok(window.closed(&calls))
}

/// Point reads at a fixed rate, at times that do not depend on the answers (exponentially distributed pauses, as pgbench's
/// `--rate`); `count` at a time. A call that waits for its turn counts from when it was due.
pub(super) async fn open(url: &str, rate: f64, count: u32, window: Window) -> Result<Sample, LoadError> {
    let callers = callers(url, count).await?;
    let clients: Vec<Client> = callers.into_iter().map(|caller| caller.client).collect();
    let turns = Arc::new(Semaphore::new(count as usize));
    let began = clock::now();
    let mut due = schedule(began, rate, window);
    let mut tasks = JoinSet::new();
    let mut number = 0;
    while let Some(due) = due.recv().await {
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { break };
        let client = clients[number % clients.len()].clone();
        number += 1;
        tasks.spawn(async move {
            read(&client, 1 + random(ACCOUNTS)).await?;
            drop(turn);
            Ok::<_, LoadError>(call(began, due))
        });
    }
    let mut calls = Vec::with_capacity(number);
    while let Some(ended) = tasks.join_next().await {
        calls.push(ended??);
    }
    Ok(window.open(&calls))
}

/// The moments at which calls are due, each sent when it has come. From a thread: the runtime's timers are as coarse as the
/// latencies that are to be measured.
fn schedule(began: Instant, rate: f64, window: Window) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let end = Duration::from_secs(window.whole_seconds().into());
        let mut after = Duration::ZERO;
        while after < end {
            std::thread::sleep((began + after).saturating_duration_since(clock::now()));
            // Nobody measures any more.
            if sender.send(began + after).is_err() {
                return;
            }
            after += pause(rate, rand::random());
        }
    });
    receiver
}

/// Of an exponential distribution; `random` is in 0..1.
fn pause(rate: f64, random: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - random).ln() / rate)
}

#[cfg(test)]
mod tests {
    use super::pause;

    #[test]
    fn pauses_have_the_rate_as_their_mean() {
        let count = 100_000;
        let sum: f64 = (0..count).map(|n| pause(1000.0, f64::from(n) / f64::from(count)).as_secs_f64()).sum();
        let mean_ms = sum / f64::from(count) * 1000.0;
        assert!((0.99..1.01).contains(&mean_ms), "{mean_ms}");
        assert_eq!(pause(1000.0, 0.0).as_nanos(), 0);
    }
}
