//! `nodeplug-cni` under real runtimes: Debian's containerd, called as the kubelet calls it, and podman.
//!
//! `NODEPLUG_CNI=PATH` names the binary.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops at the first surprise, and the panic is its report"
)]

mod conflists;
mod crowd;
mod installs;
mod killed;
mod networks;
mod one_pod;
mod podman;

use std::process::ExitCode;

use harness::container_node::EndOfAll;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modules = [
        conflists::trials(),
        crowd::trials(),
        installs::trials(),
        killed::trials(),
        one_pod::trials(),
        podman::trials(),
    ];
    let _end = EndOfAll;
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
