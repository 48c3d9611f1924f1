//! COPY in a session: data in and out, in the open transaction or as one of its own. Whoever is slower holds the other
//! up; whatever is cut off leaves nothing behind.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{
    Gone, Session, SessionReply,
    pin::Freshness,
    statement::{Broken, stopped, unpinned},
    transaction::Pinned,
};
use crate::{
    broker::{
        Failure, Outcome, Reason, caller::Caller, choose::needs_primary, clean::not_through_a_proxy, ready::NotReady,
        stream::Stopped,
    },
    model::{Consistency, Role},
    postgres::{Begin, CopyIn, CopyOut, Fed, PgError, Prepared},
    sql,
};

/// Pieces of a client's data under way to PostgreSQL.
const PIECES_IN_FLIGHT: usize = 2;

/// What a client sends for its COPY.
#[derive(Debug)]
pub enum CopyPiece {
    /// Some bytes.
    Data(Bytes),
    /// The data is complete.
    End,
    /// It is not, and nothing of it is to be kept, for this reason.
    Abort(String),
}

/// The way of a client's data to its COPY. When the near end is dropped before [`CopyPiece::End`], nothing is kept;
/// when the far end is gone, the COPY is over, and what is sent still is of no use.
pub fn copy_pieces() -> (mpsc::Sender<CopyPiece>, mpsc::Receiver<CopyPiece>) {
    mpsc::channel(PIECES_IN_FLIGHT)
}

/// What a COPY came to.
enum Copied {
    Rows(u64),
    /// It failed; `idle`: the client sent nothing for so long that its transaction is lost.
    Broken {
        broken: Broken,
        idle: bool,
    },
}

impl From<Broken> for Copied {
    fn from(broken: Broken) -> Copied {
        Copied::Broken { broken, idle: false }
    }
}

/// Why a COPY out has ended early.
enum CopyOutFailed {
    Broken(Broken),
    /// The client is gone, or does not read.
    Gone,
}

/// Why no more data goes in.
enum Fell {
    /// The server says why.
    Refused,
    Lost(PgError),
    /// From the client's side.
    Here(Failure),
    Idle,
}

impl Session {
    /// Copies a client's data into a table.
    pub(super) async fn copy_in(
        &mut self,
        id: u64,
        named: u64,
        sql: &str,
        pieces: mpsc::Receiver<CopyPiece>,
        caller: &Caller,
    ) -> Result<(), Gone> {
        if let Err(failure) = check(sql, sql::Copy::In, named).and_then(|()| self.may_copy(sql::Copy::In)) {
            return self.fail(id, failure).await;
        }
        let begin = self.begin_copy(false);
        let pinned = if named == 0 { self.pin_primary(&begin, caller).await } else { self.pinned_copy(named) };
        let mut pinned = match pinned {
            Ok(pinned) => pinned,
            Err(failure) => return self.fail(id, failure).await,
        };
        let copied = self.run_copy_in(&mut pinned, sql, pieces, caller).await;
        match copied {
            Copied::Rows(rows) if named != 0 => {
                let receipt = pinned.receipt.clone();
                self.pinned = Some(pinned);
                self.answer(id, Some(receipt), SessionReply::Copied(rows)).await
            }
            Copied::Rows(rows) => self.commit_pinned(id, pinned, SessionReply::Copied(rows), caller).await,
            Copied::Broken { broken, idle } => self.fail_copy(id, named, pinned, broken, idle).await,
        }
    }

    /// Copies a table or a result out to the client. Outside of a transaction it is routed as a read is.
    pub(super) async fn copy_out(&mut self, id: u64, named: u64, sql: &str, caller: &Caller) -> Result<(), Gone> {
        if let Err(failure) = check(sql, sql::Copy::Out, named).and_then(|()| self.may_copy(sql::Copy::Out)) {
            return self.fail(id, failure).await;
        }
        let mut consistency = Consistency::Session;
        loop {
            let pinned = if named == 0 {
                let is_stated = consistency != Consistency::Session;
                let freshness = Freshness { consistency, is_stated, max_wait: None };
                self.pin_for_reading(&self.begin_copy(true), freshness, caller).await
            } else {
                self.pinned_copy(named)
            };
            let mut pinned = match pinned {
                Ok(pinned) => pinned,
                Err(failure) => return self.fail(id, failure).await,
            };
            let mut sent = false;
            let broker = std::sync::Arc::clone(&self.broker);
            let _held = self.held(&pinned, &broker);
            match self.run_copy_out(id, &mut pinned, sql, caller, &mut sent).await {
                Ok(rows) => {
                    self.copied_out(&mut pinned, caller).await;
                    let receipt = pinned.receipt.clone();
                    if named != 0 {
                        self.pinned = Some(pinned);
                    } else {
                        // It has only read.
                        pinned.seat.rollback().await;
                        drop(pinned);
                    }
                    return self.answer(id, Some(receipt), SessionReply::Copied(rows)).await;
                }
                Err(CopyOutFailed::Broken(mut broken)) => {
                    if sent {
                        self.cut_short(&pinned, &mut broken.failure);
                    }
                    let again = named == 0 && !sent && pinned.receipt.role == Role::Replica;
                    if again && (not_on_a_standby(&broken.failure) || broken.failure.is_of_the_host()) {
                        self.broker.metrics.retried("read");
                        pinned.seat.rollback().await;
                        consistency = Consistency::Strong;
                        continue;
                    }
                    return self.fail_copy(id, named, pinned, broken, false).await;
                }
                Err(CopyOutFailed::Gone) => {
                    self.cut_short(&pinned, &mut Failure::caller_left());
                    // The session ends, and so does what it runs.
                    self.broker.metrics.cancelled("stream_idle");
                    pinned.seat.cancel();
                    pinned.seat.rollback().await;
                    return Err(Gone);
                }
            }
        }
    }

    /// What COPY does to tables is not judged.
    fn may_copy(&self, direction: sql::Copy) -> Result<(), Failure> {
        let field = match direction {
            sql::Copy::In => "copy_in.sql",
            sql::Copy::Out => "copy_out.sql",
        };
        if self.database.is_pooled() { Err(not_through_a_proxy(field, "COPY")) } else { Ok(()) }
    }

    /// How a COPY outside of any transaction begins.
    fn begin_copy(&self, read_only: bool) -> Begin {
        Begin { read_only, settings: self.context.settings.clone(), ..Begin::default() }
    }

    /// The connection of the transaction that a COPY names.
    fn pinned_copy(&mut self, named: u64) -> Result<Pinned, Failure> {
        self.state.check(named)?;
        self.pinned.take().ok_or_else(unpinned)
    }

    async fn fail_copy(
        &mut self,
        id: u64,
        named: u64,
        mut pinned: Pinned,
        broken: Broken,
        idle: bool,
    ) -> Result<(), Gone> {
        if named != 0 {
            self.break_off(id, pinned, broken).await?;
            return if idle && self.pinned.is_some() { self.lose_idle_transaction().await } else { Ok(()) };
        }
        let failure = broken.failure.with_receipt(&pinned.receipt);
        if !broken.connection_lost {
            pinned.seat.rollback().await;
        }
        // Free again before the client is told, who may read slowly.
        drop(pinned);
        self.fail(id, failure).await
    }

    async fn run_copy_in(
        &self,
        pinned: &mut Pinned,
        sql: &str,
        mut pieces: mpsc::Receiver<CopyPiece>,
        caller: &Caller,
    ) -> Copied {
        let prepared = match prepare(pinned, sql, caller).await {
            Ok(prepared) => prepared,
            Err(broken) => return broken.into(),
        };
        let started = tokio::select! {
            started = CopyIn::start(&mut pinned.seat, &prepared) => started.map_err(Stopped::Server),
            interrupted = caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        let mut copy = match started {
            Ok(copy) => copy,
            Err(stopped) => return break_copy(pinned, stopped, &prepared, sql).await.into(),
        };
        let fed = tokio::select! {
            fed = self.feed(&mut copy, &mut pieces) => fed,
            interrupted = caller.interrupted() => Err(Fell::Here(interrupted.failure())),
        };
        // What comes now is passed over, and holds nobody up.
        pieces.close();
        let ended = match fed {
            // After an error the server passes everything over up to the end, and then is ready again.
            Ok(()) | Err(Fell::Refused) => tokio::select! {
                rows = copy.finish() => rows.map_err(Stopped::Server),
                interrupted = caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
            },
            Err(Fell::Lost(error)) => Err(Stopped::Server(error)),
            Err(Fell::Here(failure)) => Err(Stopped::Here(failure)),
            Err(Fell::Idle) => {
                drop(copy);
                let limit = self.broker.settings().transaction_idle_timeout.as_secs_f64();
                let failure = Failure::new(Reason::StreamIdle, format!("no data came for {limit} s, and no copy_end"));
                let broken = break_copy(pinned, Stopped::Here(failure), &prepared, sql).await;
                return Copied::Broken { broken, idle: true };
            }
        };
        // Without its end a COPY is failed by this; nobody can be waiting for more of it.
        drop(copy);
        match ended {
            Ok(rows) => Copied::Rows(rows),
            Err(stopped) => break_copy(pinned, stopped, &prepared, sql).await.into(),
        }
    }

    /// Passes on what the client sends until it says that this was all.
    async fn feed(&self, copy: &mut CopyIn, pieces: &mut mpsc::Receiver<CopyPiece>) -> Result<(), Fell> {
        let idle_timeout = self.broker.settings().transaction_idle_timeout;
        let taken = |fed: Result<Fed, _>| match fed {
            Ok(Fed::Taken) => Ok(()),
            Ok(Fed::Refused) => Err(Fell::Refused),
            Err(error) => Err(Fell::Lost(error)),
        };
        loop {
            let piece = match pieces.try_recv() {
                Ok(piece) => Some(piece),
                Err(_) => {
                    // Nothing more for now: what is there shall be looked at.
                    taken(copy.flush().await)?;
                    tokio::select! {
                        biased;
                        () = copy.refused() => return Err(Fell::Refused),
                        piece = tokio::time::timeout(idle_timeout, pieces.recv()) => {
                            piece.map_err(|_| Fell::Idle)?
                        }
                    }
                }
            };
            let aborted = |why: String| Err(Fell::Here(Failure::new(Reason::CopyAborted, why)));
            match piece {
                Some(CopyPiece::Data(data)) => taken(copy.feed(data).await)?,
                Some(CopyPiece::End) => return Ok(()),
                Some(CopyPiece::Abort(reason)) => return aborted(format!("the client aborted its COPY: {reason}")),
                None => return aborted("the client's requests ended before its copy_end".into()),
            }
        }
    }

    async fn run_copy_out(
        &self,
        id: u64,
        pinned: &mut Pinned,
        sql: &str,
        caller: &Caller,
        sent: &mut bool,
    ) -> Result<u64, CopyOutFailed> {
        let prepared = prepare(pinned, sql, caller).await.map_err(CopyOutFailed::Broken)?;
        let copying = async {
            let mut copy = CopyOut::start(&mut pinned.seat, &prepared).await.map_err(Stopped::Server)?;
            let most = self.broker.settings().batch_bytes;
            let mut piece = BytesMut::new();
            while let Some(data) = copy.next().await.map_err(Stopped::Server)? {
                piece.extend_from_slice(&data);
                while piece.len() >= most {
                    *sent = true;
                    if self.send_piece(id, piece.split_to(most)).await.is_err() {
                        return Ok(Err(Gone));
                    }
                }
            }
            if !piece.is_empty() && self.send_piece(id, piece).await.is_err() {
                return Ok(Err(Gone));
            }
            Ok(Ok(copy.rows()))
        };
        let ended = tokio::select! {
            ended = copying => ended,
            interrupted = caller.interrupted() => Err(Stopped::Here(interrupted.failure())),
        };
        match ended {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(Gone)) => Err(CopyOutFailed::Gone),
            Err(stopped) => Err(CopyOutFailed::Broken(break_copy(pinned, stopped, &prepared, sql).await)),
        }
    }

    async fn send_piece(&self, id: u64, piece: BytesMut) -> Result<(), Gone> {
        self.send(super::SessionAnswer {
            id,
            last: false,
            position: String::new(),
            receipt: None,
            reply: SessionReply::CopyData(piece.freeze()),
        })
        .await
    }
}

/// What a standby cannot copy, and its primary can. It does not even look whether a table is unlogged: it misses its file.
fn not_on_a_standby(failure: &Failure) -> bool {
    const UNDEFINED_FILE: &str = "58P01";
    needs_primary(failure) || failure.server.as_ref().is_some_and(|error| error.sqlstate == UNDEFINED_FILE)
}

/// Whether the text is a COPY that goes this way.
fn check(sql: &str, direction: sql::Copy, named: u64) -> Result<(), Failure> {
    let (field, instead) = match direction {
        sql::Copy::In => ("copy_in.sql", "COPY … TO STDOUT goes with copy_out"),
        sql::Copy::Out => ("copy_out.sql", "COPY … FROM STDIN goes with copy_in"),
    };
    let place = match direction {
        _ if named != 0 => sql::Place::Transaction,
        sql::Copy::In => sql::Place::Write,
        sql::Copy::Out => sql::Place::Read,
    };
    match sql::copy(sql, place) {
        Ok(found) if found == direction => Ok(()),
        Ok(_) => Err(Failure::field(Reason::SqlRefused, field, instead)),
        Err(error) => Err(Failure { field: field.into(), ..error.into() }),
    }
}

/// The statement, prepared or found so.
async fn prepare(pinned: &mut Pinned, sql: &str, caller: &Caller) -> Result<Prepared, Broken> {
    let prepared = tokio::select! {
        prepared = pinned.seat.prepare(sql) => prepared.map_err(NotReady::Server),
        interrupted = caller.interrupted() => {
            return Err(Broken::failed(interrupted.failure(), !stopped(&mut pinned.seat).await));
        }
    };
    prepared.map_err(Broken::not_ready)
}

/// Brings a COPY that was broken off to its end, so that the rollback behind it is not hit by a late cancel.
async fn break_copy(pinned: &mut Pinned, why: Stopped, prepared: &Prepared, sql: &str) -> Broken {
    match why {
        Stopped::Server(error) => {
            if prepared.is_reused() {
                pinned.seat.forget(sql);
            }
            let lost = error.ends_connection();
            Broken::failed(Failure::from_exchange(error, Outcome::RolledBack), lost)
        }
        Stopped::Here(failure) => Broken::failed(failure, !stopped(&mut pinned.seat).await),
    }
}
