//! Compiles the interfaces with protox: no `protoc` is needed on any machine.

use std::error::Error;

const FILES: [&str; 3] =
    ["deviceplugin_v1beta1.proto", "pluginregistration_v1.proto", "podresources_v1.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=protos");
    let interfaces = protox::compile(FILES, ["protos"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(interfaces.clone())?;
    // The plugin's server once more, of the same messages but one: its lists are encoded once and sent as they are.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("encoded");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .out_dir(out)
        .extern_path(".v1beta1", "crate::deviceplugin")
        .extern_path(".v1beta1.ListAndWatchResponse", "crate::EncodedList")
        .compile_fds(interfaces)?;
    Ok(())
}
