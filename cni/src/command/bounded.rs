//! A program that is run to its end, and killed where it does not end in time.

use std::io::{self, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use node::root;

const PAUSE: Duration = Duration::from_millis(5);

/// What `command` answers to `stdin`. The answer has to be shorter than what a pipe holds, because it is waited for
/// before it is read; stderr is dropped.
pub fn output(command: &mut Command, stdin: &[u8], within: Duration) -> io::Result<Output> {
    let end = Instant::now() + within;
    let mut child = start(command, end)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that answers without reading closes the pipe: its answer counts.
        let _ = pipe.write_all(stdin);
    }
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
        }
        thread::sleep(PAUSE);
    }
    child.wait_with_output()
}

fn start(command: &mut Command, end: Instant) -> io::Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(root::nothing());
    loop {
        match command.spawn() {
            // Somebody forked while the file was being written and has not come to his exec yet.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                thread::sleep(PAUSE);
            }
            spawned => return spawned,
        }
    }
}
