//! Compiles the runtime's interface with protox: no `protoc` is needed on any machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=protos");
    let interface = protox::compile(["runtime_v1.proto"], ["protos"])?;
    tonic_prost_build::configure().build_transport(false).build_server(false).compile_fds(interface)?;
    Ok(())
}
