//! A caller of our own load generator: what it asks next, and whether it was answered rightly. Pure, but for chance.

use prost::Message;
use tidegate_client::proto;

use super::workload::{ACCOUNTS, COUNT, OWN_ROWS, POINT, READ_COUNT, Request, UPDATE_ID, Workload};

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("an answer of {0} bytes is no message of the API: the call failed, and the broker's log says why")]
    Undecodable(usize),
    #[error("a read of account {0} answered something else")]
    WrongRow(i64),
    #[error("an UPDATE of one row changed {0:?}")]
    WrongCount(Option<u64>),
    #[error(
        "counter {id} was {read} after it had been raised to {written}: a session did not read its own write, or a write \
         was lost or doubled"
    )]
    NotOwnWrite { id: i64, written: i64, read: i64 },
}

/// A caller, with a session of its own where it writes.
pub(super) struct Caller {
    workload: Workload,
    session: String,
    /// The first of its rows in `counters`.
    first: i64,
    /// What they hold, as far as it knows.
    written: [Option<i64>; OWN_ROWS as usize],
    asked: Asked,
}

/// What it waits for.
#[derive(Clone, Copy)]
enum Asked {
    Account(i64),
    Update,
    Count { at: i64 },
    Counter { at: i64 },
}

fn random(below: u64) -> i64 {
    (rand::random::<u64>() % below) as i64
}

impl Caller {
    pub(super) fn new(workload: Workload, number: u32) -> Caller {
        Caller {
            workload,
            session: format!("caller {number}"),
            first: 1 + i64::from(number) * OWN_ROWS as i64,
            written: [None; OWN_ROWS as usize],
            asked: Asked::Update,
        }
    }

    /// What it does next, as its workload says.
    pub(super) fn next(&mut self) -> Request {
        match self.workload {
            Workload::WriteThenRead => {
                let at = random(OWN_ROWS);
                self.asked = Asked::Count { at };
                Request::write_in(&self.session, COUNT, &[self.first + at])
            }
            Workload::Mixed => {
                let id = 1 + random(ACCOUNTS);
                if random(10) == 0 {
                    self.asked = Asked::Update;
                    return Request::write_in(&self.session, UPDATE_ID, &[id]);
                }
                self.asked = Asked::Account(id);
                Request::read_in(&self.session, POINT, &[id])
            }
            fixed => {
                let id = fixed.variables().first().map_or(0, |(_, id)| *id);
                self.asked = Asked::Account(id);
                Request::read(POINT, &[id])
            }
        }
    }

    /// Checks an answer. None: the call is at its end; else it goes on with that.
    pub(super) fn answered(&mut self, answer: &[u8]) -> Result<Option<Request>, AnswerError> {
        match self.asked {
            Asked::Account(id) => {
                let row = row(answer)?.ok_or(AnswerError::WrongRow(id))?;
                let right = row.int64s.first() == Some(&id) && row.texts == [format!("owner {id}")];
                if right { Ok(None) } else { Err(AnswerError::WrongRow(id)) }
            }
            Asked::Update => changed_one(answer).map(|()| None),
            Asked::Count { at } => {
                changed_one(answer)?;
                self.asked = Asked::Counter { at };
                Ok(Some(Request::read_in(&self.session, READ_COUNT, &[self.first + at])))
            }
            Asked::Counter { at } => self.counted(at, answer).map(|()| None),
        }
    }

    /// Nobody else writes these rows meanwhile: each read must have this caller's last write, and no more.
    fn counted(&mut self, at: i64, answer: &[u8]) -> Result<(), AnswerError> {
        let id = self.first + at;
        let row = row(answer)?.ok_or(AnswerError::WrongRow(id))?;
        let &[seen, read] = row.int64s.as_slice() else { return Err(AnswerError::WrongRow(id)) };
        let known = &mut self.written[at as usize];
        let written = known.map_or(read, |before| before + 1);
        if seen != id || read != written || read < 1 {
            return Err(AnswerError::NotOwnWrite { id, written, read });
        }
        *known = Some(read);
        Ok(())
    }
}

/// One row: its integers and its texts, each in the order of the columns.
struct Row {
    int64s: Vec<i64>,
    texts: Vec<String>,
}

/// The only row of a read. None: there is none, or there are more.
fn row(answer: &[u8]) -> Result<Option<Row>, AnswerError> {
    let mut rows = None;
    for message in messages::<proto::ExecuteReadResponse>(answer)? {
        match (message.rows, &rows) {
            (Some(batch), None) if batch.row_count == 1 => rows = Some(batch),
            (Some(batch), _) if batch.row_count > 0 => return Ok(None),
            _ => {}
        }
    }
    Ok(rows.map(|batch| {
        let mut row = Row { int64s: Vec::new(), texts: Vec::new() };
        for column in batch.columns {
            row.int64s.extend(column.int64s);
            row.texts.extend(column.texts);
        }
        row
    }))
}

fn changed_one(answer: &[u8]) -> Result<(), AnswerError> {
    let messages = messages::<proto::ExecuteWriteResponse>(answer)?;
    let count = messages.first().and_then(|message| message.results.first()).map(|result| result.rows_affected);
    if count == Some(1) { Ok(()) } else { Err(AnswerError::WrongCount(count)) }
}

/// gRPC's messages in the body of an answer: at least one, none of them compressed.
fn messages<M: Message + Default>(answer: &[u8]) -> Result<Vec<M>, AnswerError> {
    let wrong = || AnswerError::Undecodable(answer.len());
    let (mut messages, mut rest) = (Vec::with_capacity(1), answer);
    loop {
        let ([0, length @ ..], after) = rest.split_first_chunk::<5>().ok_or_else(wrong)? else { return Err(wrong()) };
        let (message, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(wrong)?;
        messages.push(M::decode(message).map_err(|_| wrong())?);
        if after.is_empty() {
            return Ok(messages);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use tidegate_client::proto;

    use super::{AnswerError, Caller, Workload};
    use crate::cli::bench::compare::workload::framed;

    fn rows(ints: &[&[i64]], texts: &[&str]) -> Vec<u8> {
        let int = |values: &&[i64]| proto::ColumnValues { int64s: values.to_vec(), ..Default::default() };
        let text = |text: &&str| proto::ColumnValues { texts: vec![(*text).to_owned()], ..Default::default() };
        let columns = ints.iter().map(int).chain(texts.iter().map(text)).collect();
        let rows = Some(proto::RowBatch { row_count: ints.first().map_or(0, |one| one.len() as u32), columns });
        framed(&proto::ExecuteReadResponse { rows, ..Default::default() })
    }

    fn changed(rows_affected: u64) -> Vec<u8> {
        let results = vec![proto::StatementResult { rows_affected, ..Default::default() }];
        framed(&proto::ExecuteWriteResponse { results, ..Default::default() })
    }

    #[test]
    fn a_point_read_is_the_row_that_was_asked_for_and_no_other() {
        let mut caller = Caller::new(Workload::Point, 3);
        caller.next();
        assert!(caller.answered(&rows(&[&[4711], &[711]], &["owner 4711"])).expect("right").is_none());
        for wrong in [rows(&[&[4712], &[711]], &["owner 4711"]), rows(&[&[4711], &[711]], &["owner 1"]), rows(&[], &[])]
        {
            assert!(matches!(caller.answered(&wrong), Err(AnswerError::WrongRow(4711))));
        }
        assert!(matches!(caller.answered(&[]), Err(AnswerError::Undecodable(0))));
        assert!(matches!(caller.answered(&[0, 0, 0, 0, 9, 1]), Err(AnswerError::Undecodable(6))));
    }

    #[test]
    fn a_caller_counts_its_own_writes() {
        let mut caller = Caller::new(Workload::WriteThenRead, 0);
        let mut once = |at: &mut Option<(i64, i64)>| {
            // Until it chooses the same row again.
            loop {
                caller.next();
                let read = caller.answered(&changed(1)).expect("a write").expect("a read");
                let id = id(&read.body);
                match at {
                    None => *at = Some((id, 7)),
                    Some((known, _)) if *known != id => {
                        caller.answered(&rows(&[&[id], &[1]], &[])).ok();
                        continue;
                    }
                    Some((_, n)) => *n += 1,
                }
                return caller.answered(&rows(&[&[id], &[at.expect("set").1]], &[]));
            }
        };
        let mut at = None;
        assert!(once(&mut at).expect("the first counts as it is").is_none());
        assert!(once(&mut at).expect("one more").is_none());
        at = at.map(|(id, n)| (id, n - 1)); // the write before
        assert!(matches!(once(&mut at), Err(AnswerError::NotOwnWrite { written: 9, read: 8, .. })));
    }

    fn id(body: &[u8]) -> i64 {
        use prost::Message;
        let message = proto::ExecuteReadRequest::decode(&body[5..]).expect("a message");
        match message.statement.expect("a statement").params[0].kind {
            Some(proto::value::Kind::Int64Value(id)) => id,
            _ => panic!("no id"),
        }
    }

    #[test]
    fn an_update_must_have_changed_its_row() {
        let mut caller = Caller::new(Workload::WriteThenRead, 0);
        caller.next();
        assert!(matches!(caller.answered(&changed(0)), Err(AnswerError::WrongCount(Some(0)))));
    }
}
