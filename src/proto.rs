//! The generated messages and service traits of `proto/tidegate/v1`; named by `grpc` and `codec` only.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

tonic::include_proto!("tidegate.v1");

/// The encoded descriptor set of the API, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate.descriptors.bin"));
