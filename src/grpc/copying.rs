//! The data of a session's COPY on the wire: which messages it is in, and whose it is.

use tokio::sync::mpsc;

use crate::{
    broker::{CopyPiece, Failure, Reason, copy_pieces},
    proto::session_request::Request,
};

/// The COPY whose data is awaited, if any is.
#[derive(Debug, Default)]
pub(super) struct Copying(Option<(u64, mpsc::Sender<CopyPiece>)>);

impl Copying {
    /// A `copy_in` has come; the far end of its data's way.
    pub(super) fn begin(&mut self, id: u64) -> Result<mpsc::Receiver<CopyPiece>, Failure> {
        if let Some((open, _)) = &self.0 {
            let message = format!("copy_in {open} has had no copy_end yet; send that before another copy_in");
            return Err(Failure::field(Reason::FieldInvalid, "copy_in", message));
        }
        let (sender, pieces) = copy_pieces();
        self.0 = Some((id, sender));
        Ok(pieces)
    }

    /// Passes data on; waits while the COPY does not take it, and with that the client does. What comes when the COPY
    /// is over is passed over up to its end: the client cannot know yet.
    pub(super) async fn take(&mut self, id: u64, piece: CopyPiece) -> Result<(), Failure> {
        let Some((_, sender)) = self.0.as_ref().filter(|(open, _)| *open == id) else {
            let message = format!(
                "{id} is not a copy_in without a copy_end; copy_data and copy_end carry the request_id of their copy_in"
            );
            return Err(Failure::field(Reason::FieldInvalid, "request_id", message));
        };
        let ends = !matches!(piece, CopyPiece::Data(_));
        let _ = sender.send(piece).await;
        if ends {
            self.0 = None;
        }
        Ok(())
    }
}

/// The piece in a message; any other request is given back.
pub(super) fn piece(request: Option<Request>) -> Result<CopyPiece, Option<Request>> {
    match request {
        Some(Request::CopyData(piece)) => Ok(CopyPiece::Data(piece.data.into())),
        Some(Request::CopyEnd(end)) if end.abort_reason.is_empty() => Ok(CopyPiece::End),
        Some(Request::CopyEnd(end)) => Ok(CopyPiece::Abort(end.abort_reason)),
        other => Err(other),
    }
}
