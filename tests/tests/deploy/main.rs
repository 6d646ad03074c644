//! What an operator applies to a cluster: the image, the manifests, and the containers that they describe.
//!
//! `NODEPLUG_CNI`, `NODEPLUG_FLEXVOLUME` and `NODEPLUG_DEVICE_PLUGIN` name the programs; all three lie in one folder.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops at the first surprise, and the panic is its report"
)]

mod archive;
mod container;
mod dockerfile;
mod folders;
mod image;
mod laws;
mod manifests;
mod objects;
mod restricted;
mod seccomp;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modules = [dockerfile::trials(), image::trials(), manifests::trials(), restricted::trials()];
    let code = libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code();
    archive::remove();
    code
}
