//! Thin adapters between the wire and the broker: messages to typed requests and back, deadlines, the one mapping of
//! failures to gRPC statuses, and the server.

mod accept;
mod admin;
#[cfg(test)]
mod allocation_tests;
mod copying;
mod deadline;
mod front;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod limit;
mod listen;
mod reply;
mod request;
mod server;
mod service;
mod session;
pub(crate) mod sized;
mod sqlstate;
mod status;

pub use admin::{AdminToken, ReloadOffer};
pub use server::{ServerSettings, serve};
