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
mod asked;
mod commands;
mod features;
mod inotify;
mod kubelet_itself;
mod listing;
mod nonsense;
mod operating;
mod real;
mod registering;
mod reloading;
mod restarting;
mod rooted;
mod sources;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::device_manager::PATIENCE;
use harness::device_node::DeviceNode;
use libtest_mimic::Arguments;

/// The resource of most tests.
const SERIAL: &str = "example.com/serial";
/// Whatever terminals of USB there are.
const TWO: &str = "resources: [{name: example.com/serial, devices: [{path: {glob: [/dev/ttyUSB*]}}]}]\n";
/// One more, of a count.
const OTHER: &str = "example.com/other";

/// Both.
fn with_other(count: u32) -> String {
    format!(
        "resources:\n- {{name: {SERIAL}, devices: [{{path: {{glob: [/dev/ttyUSB*]}}}}]}}\n\
         - {{name: {OTHER}, devices: [{{count: {count}}}]}}\n"
    )
}

/// Asks until it is as it should be, for what nobody tells of. `ask` says how it is where it is not.
#[track_caller]
fn until(ask: impl Fn() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(how) = ask() {
        assert!(start.elapsed() < PATIENCE, "{how}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

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
        asked::trials(),
        commands::trials(),
        features::trials(),
        kubelet_itself::trials(),
        listing::trials(),
        nonsense::trials(),
        operating::trials(),
        real::trials(),
        registering::trials(),
        reloading::trials(),
        restarting::trials(),
        rooted::trials(),
        sources::trials(),
    ];
    libtest_mimic::run(&arguments, modules.into_iter().flatten().collect()).exit_code()
}
