//! A shell of the FlexVolume driver, so that the workspace has its final layout; the program itself is not there yet.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let text =
        "nodeplug-flexvolume: the FlexVolume driver is not there yet; this build has nodeplug-cni only\n";
    let asked = std::env::args().nth(1).is_some_and(|a| matches!(a.as_str(), "-h" | "--help" | "help"));
    if asked {
        return if std::io::stdout().write_all(text.as_bytes()).is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    // A closed stderr leaves nobody to tell; the exit code still says it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(2)
}
