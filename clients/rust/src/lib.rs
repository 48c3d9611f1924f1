//! The Rust client of the Tidegate broker.

/// The generated messages and client stubs of `proto/tidegate/v1`.
pub mod proto {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    tonic::include_proto!("tidegate.v1");
}
