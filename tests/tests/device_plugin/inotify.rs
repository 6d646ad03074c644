//! Takes a user's inotify instances.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use harness::call::tool;

/// Holds all inotify instances that the user may have, until it is dropped.
pub struct Taken(Vec<Child>);

impl Drop for Taken {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Takes them by this very program, as that user: see [`hold`].
pub fn exhaust(user: &str) -> Taken {
    // A copy that any user may run, from wherever it is.
    let (own, program) = (format!("/proc/{}/exe", std::process::id()), "/run/harness/holder");
    tool(&["install", "-m", "755", &own, program]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
    command.env(HOLD, "1").stdout(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().expect("start whoever takes them");
    let mut said = [0];
    let read = child.stdout.as_mut().expect("a pipe").read_exact(&mut said);
    let taken = Taken(vec![child]);
    read.expect("all are taken");
    taken
}

const HOLD: &str = "NODEPLUG_TESTS_HOLD_INOTIFY";

/// Whether this process is one that is to hold instances; then it never returns.
pub fn hold() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let mut held = Vec::new();
    while let Ok(instance) = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
        held.push(instance);
    }
    let mut out = std::io::stdout();
    let _ = out.write_all(b".").and_then(|()| out.flush());
    loop {
        std::thread::park();
    }
}
