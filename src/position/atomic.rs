//! Owns where the slot table's atomics come from. The model checker includes `slot.rs` beside a module of this name
//! with its own.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
