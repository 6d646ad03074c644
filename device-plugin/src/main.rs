//! `nodeplug-device-plugin`: the daemon of the DaemonSet, and commands for people.

use std::process::ExitCode;

fn main() -> ExitCode {
    device_plugin::command::main()
}
