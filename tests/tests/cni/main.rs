//! `nodeplug-cni` as a runtime meets it: the real binary, a real kernel, a node that is thrown away.
//!
//! `NODEPLUG_CNI=PATH` names the binary; `NODEPLUG_TEST_FLAVOUR=reference` drives Debian's reference
//! plugins in its place, to show that a failure is not the harness's.
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

mod addresses;
mod bandwidth;
mod containerd;
mod crashes;
mod delegation;
mod deletion;
mod doctor;
mod errors;
mod firewall;
mod harness_itself;
mod install;
mod install_network;
mod install_script;
mod install_stays;
mod ipam_roles;
mod log;
mod losses;
mod mending;
mod networks;
mod noise;
mod ports;
mod reference_chain;
mod repair;
mod roles;
mod source_routing;
mod strangers;
mod traffic;
mod tuning;
mod upkeep;
mod wishes;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let modules = [
        addresses::trials(),
        bandwidth::trials(),
        containerd::trials(),
        crashes::trials(),
        delegation::trials(),
        deletion::trials(),
        doctor::trials(),
        errors::trials(),
        firewall::trials(),
        harness_itself::trials(),
        install::trials(),
        install_network::trials(),
        install_script::trials(),
        install_stays::trials(),
        ipam_roles::trials(),
        log::trials(),
        losses::trials(),
        mending::trials(),
        noise::trials(),
        ports::trials(),
        roles::trials(),
        source_routing::trials(),
        reference_chain::trials(),
        repair::trials(),
        strangers::trials(),
        traffic::trials(),
        tuning::trials(),
        upkeep::trials(),
        wishes::trials(),
    ];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
