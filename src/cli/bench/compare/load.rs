//! Our own load generator: for what takes a client that reads its answers, and for calls at a fixed rate. One thread and a
//! few connections, as h2load has; every answer is checked.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    caller::{AnswerError, Caller},
    h2load::connections,
    sample::{Call, Sample, Window},
    wire::{Connection, Part, WireError},
    workload::{Request, Workload},
};
use crate::clock;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("waiting for answers: {0}")]
    Poll(#[from] Errno),
    #[error("{0} calls were not answered within {PATIENCE:?}")]
    Silent(usize),
    #[error("the load generator ended early: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Every caller calls again as soon as it was answered.
pub(super) async fn closed(
    address: SocketAddr,
    workload: Workload,
    count: u32,
    window: Window,
) -> Result<Sample, LoadError> {
    let run = move || {
        let mut lines = Lines::connect(address, workload, count)?;
        let end = lines.began + Duration::from_secs(window.whole_seconds().into());
        for caller in 0..lines.callers.len() {
            lines.begin(caller, clock::now())?;
        }
        let mut answered = Vec::new();
        while lines.waiting > 0 {
            lines.turn(PATIENCE, &mut answered)?;
            for caller in answered.drain(..) {
                if lines.answered(caller)? && clock::now() < end {
                    lines.begin(caller, clock::now())?;
                }
            }
        }
        Ok(window.closed(&lines.calls))
    };
    tokio::task::spawn_blocking(run).await?
}

/// Point reads at a fixed rate, at moments that do not depend on the answers (exponentially distributed pauses, as pgbench's
/// `--rate`); `count` at a time. A call that waits for a caller counts from when it was due.
pub(super) async fn open(address: SocketAddr, rate: f64, count: u32, window: Window) -> Result<Sample, LoadError> {
    let run = move || {
        let mut lines = Lines::connect(address, Workload::Point, count)?;
        let length = Duration::from_secs(window.whole_seconds().into());
        let mut free: VecDeque<usize> = (0..lines.callers.len()).collect();
        let mut after = Duration::ZERO;
        let mut answered = Vec::new();
        loop {
            let now = clock::now();
            while after < length && lines.began + after <= now {
                let Some(caller) = free.pop_front() else { break };
                lines.begin(caller, lines.began + after)?;
                after += pause(rate, rand::random());
            }
            if after >= length && lines.waiting == 0 {
                return Ok(window.open(&lines.calls));
            }
            let next = (after < length && !free.is_empty()).then(|| lines.began + after);
            lines.turn(next.map_or(PATIENCE, |due| due.saturating_duration_since(now)), &mut answered)?;
            for caller in answered.drain(..) {
                lines.answered(caller)?;
                free.push_back(caller);
            }
        }
    };
    tokio::task::spawn_blocking(run).await?
}

/// Of an exponential distribution; `random` is in 0..1.
fn pause(rate: f64, random: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - random).ln() / rate)
}

/// All callers and their connections.
struct Lines {
    began: Instant,
    lines: Vec<Line>,
    callers: Vec<Slot>,
    /// How many callers wait for an answer.
    waiting: usize,
    calls: Vec<Call>,
}

struct Line {
    connection: Connection,
    /// The callers that wait for it, by the number of their stream.
    open: Vec<(u32, usize)>,
    has_more: bool,
}

struct Slot {
    caller: Caller,
    due: Instant,
    sent: Instant,
    answer: Vec<u8>,
}

impl Lines {
    fn connect(address: SocketAddr, workload: Workload, count: u32) -> Result<Lines, LoadError> {
        let line = |_| Ok(Line { connection: Connection::connect(address)?, open: Vec::new(), has_more: false });
        let lines = (0..connections(count)).map(line).collect::<Result<_, LoadError>>()?;
        let began = clock::now();
        let caller = |number| Caller::new(workload, number);
        let slot = |number| Slot { caller: caller(number), due: began, sent: began, answer: Vec::new() };
        Ok(Lines { began, lines, callers: (0..count).map(slot).collect(), waiting: 0, calls: Vec::new() })
    }

    /// A caller that waits for nothing begins its next call.
    fn begin(&mut self, caller: usize, due: Instant) -> Result<(), LoadError> {
        let slot = &mut self.callers[caller];
        slot.due = due;
        slot.sent = clock::now();
        let request = slot.caller.next();
        self.send(caller, &request)
    }

    fn send(&mut self, caller: usize, request: &Request) -> Result<(), LoadError> {
        let count = self.lines.len();
        let line = &mut self.lines[caller % count];
        let stream = line.connection.call(request.path, &request.body)?;
        line.open.push((stream, caller));
        self.waiting += 1;
        Ok(())
    }

    /// Sends what there is, waits for answers, at most so long, and says who has one.
    fn turn(&mut self, at_most: Duration, answered: &mut Vec<usize>) -> Result<(), LoadError> {
        for line in &mut self.lines {
            line.has_more = line.connection.flush()?;
        }
        let interest = |line: &Line| PollFlags::IN | if line.has_more { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds: Vec<_> = self.lines.iter().map(|line| PollFd::new(&line.connection, interest(line))).collect();
        let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
        let ready = match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => return Ok(()),
            ready => ready?,
        };
        if ready == 0 && at_most == PATIENCE {
            return Err(LoadError::Silent(self.waiting));
        }
        let readable: Vec<bool> = fds.iter().map(|fd| fd.revents().intersects(!PollFlags::OUT)).collect();
        for (line, _) in self.lines.iter_mut().zip(readable).filter(|(_, readable)| *readable) {
            let (open, callers) = (&mut line.open, &mut self.callers);
            line.connection.read(|stream, part| {
                // What nobody waits for is the end of what has ended.
                let Some(at) = open.iter().position(|(number, _)| *number == stream) else { return };
                match part {
                    Part::Data(data) => callers[open[at].1].answer.extend_from_slice(data),
                    Part::End => answered.push(open.swap_remove(at).1),
                }
            })?;
        }
        self.waiting -= answered.len();
        Ok(())
    }

    /// Checks what a caller was answered. True: its call has ended, and is noted; else it has sent what it goes on with.
    fn answered(&mut self, caller: usize) -> Result<bool, LoadError> {
        let slot = &mut self.callers[caller];
        let next = slot.caller.answered(&slot.answer)?;
        slot.answer.clear();
        if let Some(request) = next {
            self.send(caller, &request)?;
            return Ok(false);
        }
        let micros = |later: Instant, earlier| later.saturating_duration_since(earlier).as_micros();
        let short = |micros: u128| u32::try_from(micros).unwrap_or(u32::MAX);
        self.calls.push(Call {
            due_us: u64::try_from(micros(slot.due, self.began)).unwrap_or(u64::MAX),
            took_us: short(micros(clock::now(), slot.due)),
            lag_us: short(micros(slot.sent, slot.due)),
        });
        Ok(true)
    }
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
