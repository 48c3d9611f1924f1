//! Positions that the broker keeps for its sessions, and tokens in which callers carry them. What they mean is the
//! model's.

mod atomic;
mod slot;
mod store;
mod token;

pub use slot::{SlotIndex, SlotTable, SlotView, Tick};
pub use store::{SessionMarks, SessionPositions};
pub use token::{TOKEN_CHARS_MAX, TOKEN_POSITIONS_MAX, TokenError, TokenKey, TokenPosition, merge};
