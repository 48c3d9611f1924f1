//! Compiles the API into client stubs with protox (no protoc needed); for the tests of this crate, server stubs too.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../proto");
    let descriptors = protox::compile(["tidegate/v1/broker.proto", "tidegate/v1/admin.proto"], ["../../proto"])?; // and what they import
    tonic_prost_build::configure()
        .build_server(true)
        .server_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(descriptors)?;
    Ok(())
}
