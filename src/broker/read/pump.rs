//! What stands around a read's statement; passes its rows on, and learns what it saw (CAUSAL), also when it failed.

use super::Read;
use crate::{
    broker::{
        Receipt,
        known::Measure,
        pools::Seat,
        seen::{Hold, SeenOn},
        stream::{PartWriter, Stopped},
    },
    postgres::{Exchange, Wrap},
};

impl Read<'_> {
    /// What stands around the statement on this connection.
    pub(super) fn wrap(&self, seat: &Seat, receipt: &Receipt) -> Wrap<'_> {
        let settings = &self.request.context.settings;
        let is_clean = || self.chooser().is_clean(self.known.as_ref(), seat, receipt.host_id, receipt.role);
        match self.is_causal() {
            true => Wrap::Causal(settings),
            false if settings.is_empty() && is_clean() => Wrap::Clean,
            false => Wrap::ReadOnly(settings),
        }
    }

    pub(super) async fn pump(
        &self,
        exchange: &mut Exchange,
        writer: &mut PartWriter<'_>,
        on: SeenOn<'_>,
        hold: &Hold<'_>,
        recorded: &mut String,
    ) -> Result<(), Stopped> {
        let mut measure = Measure::begin(self.known.as_ref());
        writer.take_all(exchange, |row| measure.row(row)).await?;
        measure.end(self.broker, &self.side.database);
        let position = if self.is_causal() {
            let seen = exchange.seen().await;
            let token = self.side.reach.record_seen(self.broker, &self.side.database, on, seen);
            hold.end();
            // The caller, who may have been sent rows, is told of it also when the rest does not reach it.
            recorded.clone_from(&token);
            token
        } else {
            self.side.reach.token(self.broker)
        };
        writer.finish(position).await.map_err(Stopped::Here)
    }

    /// The token for a read that failed: of what it saw, when it is a CAUSAL one. Without an answer to that, rows that were
    /// sent make its session's next reads go to the primary.
    pub(super) async fn seen_before_failure(&self, exchange: &mut Exchange, on: SeenOn<'_>, hold: &Hold<'_>) -> String {
        if !self.is_causal() {
            return String::new();
        }
        let seen = tokio::select! {
            seen = exchange.seen() => seen,
            _ = self.caller.interrupted() => None,
        };
        if seen.is_none() && !hold.is_on() {
            return String::new();
        }
        let token = self.side.reach.record_seen(self.broker, &self.side.database, on, seen);
        hold.end();
        token
    }
}
