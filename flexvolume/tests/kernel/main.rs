//! The kernel verbs against the kernel: each test on a thread in a mount namespace of its own, with a
//! tmpfs to write into, so that nothing of it is seen on the host or left there.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    missing_docs,
    reason = "a test stops at the first surprise, and the panic is its report"
)]

mod classic;
mod filesystems;
mod loops;
mod mounts;
mod own;
mod paths;
mod scratch;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modules = [
        classic::trials(),
        filesystems::trials(),
        loops::trials(),
        mounts::trials(),
        own::trials(),
        paths::trials(),
    ];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
