//! Compiles `proto/` into Rust with protox (no protoc needed) and writes the
//! descriptor set that gRPC reflection serves.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["tidegate/v1/broker.proto", "tidegate/v1/admin.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tidegate.descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::grpc::sized::SizedCodec")
        // Rows are encoded as they come from PostgreSQL, and never become one value each.
        .extern_path(".tidegate.v1.RowBatch", "crate::codec::RowBatch")
        // The same statement's columns are the same in each answer.
        .extern_path(".tidegate.v1.ReadHeader", "crate::codec::ReadHeader")
        .compile_fds(descriptors)?;
    Ok(())
}
