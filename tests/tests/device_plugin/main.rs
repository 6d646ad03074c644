//! `nodeplug-device-plugin` as a kubelet meets it: the real daemon, a node that is thrown away, and a kubelet that
//! is as unforgiving as the real one.
//!
//! `NODEPLUG_DEVICE_PLUGIN=PATH` names the daemon.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::format_collect,
    missing_docs,
    reason = "a test stops at the first surprise, and the panic is its report"
)]

mod kubelet_itself;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modules = [kubelet_itself::trials()];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
