//! Processes of the node that use a volume, and waiting for what they do.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A process that is ended with the test.
pub struct User(Child);

impl User {
    /// Starts a line of shell on the node.
    pub fn start(line: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir("/").stdin(Stdio::null());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `ready` is; a test that waits in vain is stopped.
#[track_caller]
pub fn until(what: &str, ready: impl Fn() -> bool) {
    for _ in 0..3000 {
        if ready() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 30 s");
}
