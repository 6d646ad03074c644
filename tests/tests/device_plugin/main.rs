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

mod allocating;
mod inotify;
mod kubelet_itself;
mod listing;
mod nonsense;
mod operating;
mod real;
mod registering;

use std::process::ExitCode;

use harness::device_node::DeviceNode;
use libtest_mimic::Arguments;

/// The resource of most tests.
const SERIAL: &str = "example.com/serial";
/// Whatever terminals of USB there are.
const TWO: &str = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}]}]\n";

/// Plugs two of them in.
fn serial(node: &DeviceNode) {
    node.plug("ttyUSB0", 188, 0);
    node.plug("ttyUSB1", 188, 1);
}

fn main() -> ExitCode {
    inotify::hold();
    let arguments = Arguments::from_args();
    let modules = [
        allocating::trials(),
        kubelet_itself::trials(),
        listing::trials(),
        nonsense::trials(),
        operating::trials(),
        real::trials(),
        registering::trials(),
    ];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
