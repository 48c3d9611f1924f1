//! How the connections to one host are divided: what each use of them may have, whatever else goes on.

use std::time::Duration;

/// What a connection is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// A write, for its own length.
    Write,
    /// A session's transaction on the primary, for as long as its client keeps it open.
    Transaction,
    /// A read that the host takes as the primary.
    PrimaryRead,
    /// A read that the host takes as a replica.
    ReplicaRead,
    /// Many reads that the host takes as a replica, which share the connection.
    Lane,
}

impl Use {
    /// All of them, in the order of [`Use::index`].
    pub const ALL: [Use; USES] = [Use::Write, Use::Transaction, Use::PrimaryRead, Use::ReplicaRead, Use::Lane];

    /// For metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Use::Write => "write",
            Use::Transaction => "transaction",
            Use::PrimaryRead => "primary_read",
            Use::ReplicaRead => "replica_read",
            Use::Lane => "lane",
        }
    }

    /// Whether the connection must be one that can write.
    pub fn writes(self) -> bool {
        matches!(self, Use::Write | Use::Transaction)
    }

    /// In words.
    pub(super) fn place(self) -> &'static str {
        match self {
            Use::Write => "a connection to the primary for writes",
            Use::Transaction => "a connection to the primary for transactions",
            Use::PrimaryRead => "a connection to the primary for reads",
            Use::ReplicaRead => "a connection to a replica",
            Use::Lane => "a connection to a replica for many reads",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// The uses that draw on one share with this one.
    pub(super) fn family(self) -> &'static [Use] {
        match self {
            Use::Write | Use::Transaction => &[Use::Write, Use::Transaction],
            Use::PrimaryRead => &[Use::PrimaryRead],
            Use::ReplicaRead | Use::Lane => READS,
        }
    }
}

/// How many uses there are.
pub(super) const USES: usize = 5;

pub(super) const READS: &[Use] = &[Use::PrimaryRead, Use::ReplicaRead, Use::Lane];

/// Connections to one host that are no database's: the prober's, one that forces a flush, two that look what became of
/// writes. They are made beside the calls' and kept out of their share.
pub const CONTROL_CONNECTIONS: usize = 4;

/// A listener's, one a database: kept free for it, so that no call waits for what may never end.
const LISTENERS: usize = 1;

/// The bounds on one host's connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetLimits {
    /// In all.
    pub connections: usize,
    /// The part of the calls' connections that reads may have on the primary: above 0, below 1.
    pub primary_read_share: f64,
    /// The part of the writes' that sessions' transactions may have: above 0, at most 1.
    pub transaction_share: f64,
    /// Callers that may wait in one queue.
    pub max_queue: usize,
    /// How long one may wait in it.
    pub max_queue_age: Duration,
}

impl BudgetLimits {
    /// The fewest connections that serve so many databases: for each a listener, a read and a write.
    pub fn connections_min(databases: usize) -> usize {
        CONTROL_CONNECTIONS + databases * (LISTENERS + 2)
    }
}

/// What each use may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// All calls together.
    pub(super) calls: usize,
    /// Writes and transactions.
    pub(super) writes: usize,
    /// Transactions, of the writes'.
    pub(super) transactions: usize,
    /// Reads on the primary.
    pub(super) primary_reads: usize,
    /// Reads of every kind: one is left for writes, since a replica is promoted while it is full of reads.
    pub(super) reads: usize,
    /// Of these, lanes: half at most, so that what may not share a connection has as many.
    pub(super) lanes: usize,
}

impl Shares {
    /// For so many databases. A budget too small for them is taken as one that serves a read and a write at a time:
    /// configuration refuses it.
    pub(super) fn of(limits: &BudgetLimits, databases: usize) -> Shares {
        let calls = limits.connections.saturating_sub(CONTROL_CONNECTIONS + databases * LISTENERS).max(2);
        // One for each database, if there are as many.
        let least = databases.clamp(1, calls / 2);
        let part = |whole: usize, share: f64| (whole as f64 * share) as usize;
        let primary_reads = part(calls, limits.primary_read_share).clamp(least, calls - least);
        let writes = calls - primary_reads;
        let transactions = part(writes, limits.transaction_share).clamp(1, writes.saturating_sub(1).max(1));
        let reads = calls - 1;
        Shares { calls, writes, transactions, primary_reads, reads, lanes: reads / 2 }
    }

    pub(super) fn share(&self, usage: Use) -> usize {
        match usage {
            Use::Write => self.writes,
            Use::Transaction => self.transactions,
            Use::PrimaryRead => self.primary_reads,
            Use::ReplicaRead => self.reads,
            Use::Lane => self.lanes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_use_has_its_share_and_together_they_fit() {
        let of = |connections, databases| {
            let limits = BudgetLimits {
                connections,
                primary_read_share: 0.5,
                transaction_share: 0.75,
                max_queue: 1,
                max_queue_age: Duration::ZERO,
            };
            Shares::of(&limits, databases)
        };
        let shares = |calls, writes, transactions, primary_reads, reads| Shares {
            calls,
            writes,
            transactions,
            primary_reads,
            reads,
            lanes: reads / 2,
        };
        assert_eq!(of(20, 1), shares(15, 8, 6, 7, 14));
        assert_eq!(of(20, 4), shares(12, 6, 4, 6, 11));
        assert_eq!(of(7, 1), shares(2, 1, 1, 1, 1));
        assert_eq!(of(0, 0), shares(2, 1, 1, 1, 1));
        for connections in 0..60 {
            for databases in 1..20 {
                let shares = of(connections, databases);
                assert_eq!(shares.writes + shares.primary_reads, shares.calls);
                assert!(shares.transactions <= shares.writes && shares.reads < shares.calls, "{shares:?}");
                if connections >= BudgetLimits::connections_min(databases) {
                    assert!(shares.calls + CONTROL_CONNECTIONS + databases <= connections, "{shares:?}");
                    assert!(shares.writes >= databases && shares.primary_reads >= databases, "{shares:?}");
                }
            }
        }
    }
}
