//! The broker's slot table, compiled against loom's atomics: the same source files, so that what is checked is what
//! runs.

#[path = "../../../src/position"]
pub mod position {
    //! The slot table beside loom's atomics.

    mod atomic {
        //! In the place of std's.
        pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    }

    pub mod slot;
}

#[path = "../../../src/model"]
pub mod model {
    //! What the slot table names of the model.

    pub mod cluster;
    pub mod history;
    pub mod lsn;

    pub use cluster::ClusterId;
    pub use history::HistoryId;
    pub use lsn::{Lsn, Timeline};
}
