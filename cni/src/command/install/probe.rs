//! Asks a program for VERSION as a runtime does, by the name that it is going to have.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result};
use serde_json::Value;

/// A good answer takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `program` as `name`; an error unless it answers as a plugin does.
pub(crate) fn version(program: &Path, name: &str) -> Result<()> {
    let doing = || format!("ask `{}` for its versions as `{name}`", program.display());
    let end = Instant::now() + DEADLINE;
    let answered = start(program, name, end).and_then(|child| ended(child, end));
    let output = answered.doing(Kind::Mismatch, doing).map_err(|e| match e.errno() {
        Some(libc::EACCES) => e.hint("is the file system mounted noexec? choose another folder"),
        Some(libc::ENOEXEC) => e.hint("the program is built for another kind of machine"),
        _ => e,
    })?;
    let answer: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let speaks = answer.and_then(|a| a.get("supportedVersions")?.as_array().map(|v| !v.is_empty()));
    if output.status.success() && speaks == Some(true) {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stdout).trim().chars().take(200).collect();
    Err(Error::caused(Kind::Mismatch, doing(), format!("it ended with {} and said `{said}`", output.status)))
}

fn start(program: &Path, name: &str, end: Instant) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg0(name).env("CNI_COMMAND", "VERSION").stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = loop {
        match command.spawn() {
            // Somebody forked while the file was being written and has not come to his exec yet.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                thread::sleep(PAUSE);
            }
            spawned => break spawned?,
        }
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program that answers without reading closes the pipe: its answer counts.
        let _ = stdin.write_all(br#"{"cniVersion":"1.0.0"}"#);
    }
    Ok(child)
}

/// The answer is shorter than what a pipe holds: it can be waited for before it is read.
fn ended(mut child: Child, end: Instant) -> io::Result<Output> {
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
