//! A read's result on its way to the caller: rows are collected into parts that are cut by bytes, and sent through a
//! short channel, so that a slow caller holds the whole way up, back to PostgreSQL's socket.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::{Failure, ReadHeader, ReadPart, ReadSummary, Reason, ready::column_specs, seen::Hold};
use crate::{
    codec::{BatchBuilder, CodecError, Columns, batch_within},
    postgres::{Exchange, PgError, Prepared, RawRow},
};

/// Parts under way between the connection and the caller.
const PARTS_IN_FLIGHT: usize = 2;
/// Room in a message for what is neither rows nor columns: receipt, summary with its token.
pub(super) const MESSAGE_SLACK: usize = 16 << 10;

/// The caller's end. Dropping it stops the read.
pub struct ReadStream {
    /// None: it was over before it began.
    parts: Option<mpsc::Receiver<ReadPart>>,
    verdict: Arc<OnceLock<Failure>>,
    ended: bool,
    _left: Option<DropGuard>,
}

impl ReadStream {
    /// What is left of a result of one part.
    pub(super) fn over() -> ReadStream {
        ReadStream { parts: None, verdict: Arc::default(), ended: true, _left: None }
    }

    /// The next part; None behind the one with the summary. An error is the last item.
    pub async fn next(&mut self) -> Option<Result<ReadPart, Failure>> {
        if self.ended {
            return None;
        }
        let part = match &mut self.parts {
            Some(parts) => parts.recv().await,
            None => None,
        };
        self.ended = part.as_ref().is_none_or(|part| part.summary.is_some());
        Some(part.ok_or_else(|| {
            let cut = || Failure::new(Reason::Internal, "the result was cut");
            self.verdict.get().cloned().unwrap_or_else(cut)
        }))
    }
}

/// The working task's end.
pub(crate) struct PartSender {
    parts: mpsc::Sender<ReadPart>,
    verdict: Arc<OnceLock<Failure>>,
    idle_timeout: Duration,
}

/// Both ends of a result's way. `left` is cancelled when the caller's end is dropped.
pub(crate) fn channel(idle_timeout: Duration, left: Option<DropGuard>) -> (PartSender, ReadStream) {
    let (sender, parts) = mpsc::channel(PARTS_IN_FLIGHT);
    let verdict = Arc::new(OnceLock::new());
    let stream = ReadStream { parts: Some(parts), verdict: Arc::clone(&verdict), ended: false, _left: left };
    (PartSender { parts: sender, verdict, idle_timeout }, stream)
}

impl PartSender {
    async fn send(&self, part: ReadPart) -> Result<(), Failure> {
        match tokio::time::timeout(self.idle_timeout, self.parts.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failure::caller_left()),
            Err(_) => {
                let seconds = self.idle_timeout.as_secs_f64();
                Err(Failure::new(Reason::StreamIdle, format!("nobody read the result for {seconds} s")))
            }
        }
    }

    /// Ends the stream with a failure; behind the parts sent so far. The first verdict holds.
    pub(crate) fn fail(self, failure: Failure) {
        // Set before the channel closes, by the drop of `self`.
        let _ = self.verdict.set(failure);
    }
}

/// How large parts become, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartLimits {
    /// Rows are sent once they take so much.
    pub(crate) batch: usize,
    /// No part takes more, as a message.
    pub(crate) message: usize,
}

impl PartLimits {
    /// Batches as configured, but two of them at least in a message.
    pub(crate) fn new(batch_bytes: usize, message_bytes: usize) -> PartLimits {
        PartLimits { batch: batch_bytes.min(message_bytes / 2), message: message_bytes }
    }
}

/// Why a statement stopped before its end.
pub(crate) enum Stopped {
    Server(PgError),
    /// Not by the server: the caller left, the deadline passed, a row does not fit.
    Here(Failure),
}

/// What a row leaves to be done.
enum Left {
    /// It is in the part that is being made, and that is full.
    Full,
    /// It is not in it.
    Out(CodecError),
}

/// Collects one result's rows and sends them on.
pub(crate) struct PartWriter<'a> {
    out: &'a PartSender,
    builder: BatchBuilder,
    header: Option<ReadHeader>,
    limits: PartLimits,
    /// Rows may take so much in the message with the header.
    room_with_header: usize,
    /// And so much in one without.
    room_alone: usize,
    rows: u64,
    sent: bool,
    /// For rows that are shown before it is known what they saw.
    hold: Option<&'a Hold<'a>>,
}

impl<'a> PartWriter<'a> {
    /// A writer for a result with these columns.
    pub(crate) fn new(
        out: &'a PartSender,
        prepared: &Prepared,
        receipt: super::Receipt,
        limits: PartLimits,
    ) -> Result<PartWriter<'a>, Failure> {
        let columns = Columns::of(column_specs(prepared))?;
        let builder = BatchBuilder::new(column_specs(prepared))?;
        let header_bytes = columns.size() + MESSAGE_SLACK;
        let Some(room_with_header) = limits.message.checked_sub(header_bytes) else {
            let message = format!(
                "to describe the {} columns of the result takes {header_bytes} bytes, and a message may take {} \
                 (options.max_message_bytes, results.max_message_bytes); ask for fewer columns",
                column_specs(prepared).count(),
                limits.message
            );
            return Err(Failure::new(Reason::RowTooLarge, message));
        };
        let header = Some(ReadHeader { columns, receipt });
        let room_alone = batch_within(limits.message);
        let room_with_header = room_with_header.min(room_alone);
        Ok(PartWriter { out, builder, header, limits, room_with_header, room_alone, rows: 0, sent: false, hold: None })
    }

    /// Holds the caller's session from the first rows on that are sent before the summary.
    pub(crate) fn hold(&mut self, hold: &'a Hold<'a>) {
        self.hold = Some(hold);
    }

    /// True once something was sent: from then on the read cannot be tried again.
    pub(crate) fn has_sent(&self) -> bool {
        self.sent
    }

    /// Takes the rows of a statement to their end, and shows each to `look`; waits for the caller when a part is full. A row
    /// that fits into a message by itself is sent.
    pub(crate) async fn take_all(
        &mut self,
        exchange: &mut Exchange,
        mut look: impl FnMut(&RawRow),
    ) -> Result<(), Stopped> {
        loop {
            let mut left = None;
            let stopped = exchange.rows_while(|row| {
                look(row);
                left = self.take(row);
                left.is_none()
            });
            let (Some(row), Some(left)) = (stopped.await.map_err(Stopped::Server)?, left) else { return Ok(()) };
            self.settle(left, &row).await.map_err(Stopped::Here)?;
        }
    }

    /// Takes a row if there is room for it.
    fn take(&mut self, row: &RawRow) -> Option<Left> {
        self.rows += 1;
        let room = if self.header.is_some() { self.room_with_header } else { self.room_alone };
        match self.builder.push_row(row.cells(), room) {
            Ok(()) if self.builder.encoded_size() < self.limits.batch => None,
            Ok(()) => Some(Left::Full),
            Err(error) => Some(Left::Out(error)),
        }
    }

    /// Does what a row left to be done.
    async fn settle(&mut self, left: Left, row: &RawRow) -> Result<(), Failure> {
        match left {
            Left::Full => {}
            Left::Out(CodecError::RowTooLarge { .. }) => {
                if self.builder.row_count() > 0 {
                    self.send(None).await?;
                }
                self.builder.push_row(row.cells(), self.room_alone).map_err(|error| self.refused(error))?;
                // It fits, though not beside the header.
                if let Some(header) = self.header.take() {
                    self.send_part(ReadPart { header: Some(header), rows: None, summary: None }).await?;
                }
            }
            Left::Out(error) => return Err(error.into()),
        }
        if self.builder.encoded_size() >= self.limits.batch { self.send(None).await } else { Ok(()) }
    }

    fn refused(&self, error: CodecError) -> Failure {
        let CodecError::RowTooLarge { bytes, at_least, room } = error else { return error.into() };
        let at_least = if at_least { "at least " } else { "" };
        let message = format!(
            "row {} takes {at_least}{bytes} bytes, and a message may hold {room} bytes of rows, being {} at most \
             (options.max_message_bytes, results.max_message_bytes); ask for fewer or shorter columns",
            self.rows, self.limits.message
        );
        Failure::new(Reason::RowTooLarge, message)
    }

    /// Sends what is left, with the summary. A small result is one message with all of header, rows and summary.
    pub(crate) async fn finish(&mut self, position: String) -> Result<(), Failure> {
        if self.header.is_none() && self.builder.encoded_size() + MESSAGE_SLACK > self.limits.message {
            self.send(None).await?;
        }
        let summary = ReadSummary { row_count: self.rows, position };
        self.send(Some(summary)).await
    }

    async fn send(&mut self, summary: Option<ReadSummary>) -> Result<(), Failure> {
        let rows = (self.builder.row_count() > 0).then(|| self.builder.take());
        let part = ReadPart { header: self.header.take(), rows, summary };
        self.send_part(part).await
    }

    async fn send_part(&mut self, part: ReadPart) -> Result<(), Failure> {
        if let Some(hold) = self.hold.filter(|_| part.summary.is_none()) {
            hold.begin();
        }
        self.sent = true;
        self.out.send(part).await
    }
}
