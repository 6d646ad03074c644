//! `nodeplug-flexvolume` as a kubelet meets it: the real binary, a real kernel, a node that is thrown away.
//!
//! `NODEPLUG_FLEXVOLUME=PATH` names the binary.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::format_collect,
    clippy::assigning_clones,
    missing_docs,
    reason = "a test stops at the first surprise, and the panic is its report"
)]

mod bind;
mod block;
mod commands;
mod crashes;
mod doctor;
mod folders;
mod fuse;
mod hostile;
mod image;
mod install;
mod kubelet_itself;
mod log;
mod media;
mod node_itself;
mod ours;
mod overlay;
mod policy;
mod protocol;
mod readme;
mod repairs;
mod scripts;
mod shares;
mod tmpfs;
mod unmounts;
mod users;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modules = [
        bind::trials(),
        block::trials(),
        commands::trials(),
        crashes::trials(),
        doctor::trials(),
        folders::trials(),
        fuse::trials(),
        hostile::trials(),
        image::trials(),
        install::trials(),
        kubelet_itself::trials(),
        log::trials(),
        node_itself::trials(),
        overlay::trials(),
        policy::trials(),
        protocol::trials(),
        readme::trials(),
        repairs::trials(),
        shares::trials(),
        tmpfs::trials(),
        unmounts::trials(),
    ];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
