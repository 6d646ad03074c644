//! Another IPAM plugin by exec (CNI spec 1.1.0, section 4, "Plugin Delegation"): found on CNI_PATH,
//! given this call's environment and configuration, its answer handed back as bytes.
//!
//! There is no time limit of ours: the runtime sets the deadline of the whole call. When it kills this
//! process the delegate may finish by itself; the DEL that follows every failed ADD is passed on to it
//! and gives back what it took.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use node::{Context, Error, Kind, Result};
use serde_json::Value;

/// An answer is a few hundred bytes; a plugin that writes on and on is broken.
const LONGEST_ANSWER: u64 = 1 << 20;
const LONGEST_COMPLAINT: u64 = 64 << 10;
/// CNI's catch-all, for a plugin that fails without a code.
const NO_CODE: u32 = 999;

/// A plugin to ask, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Delegate<'a> {
    /// Its file name, without a folder.
    pub plugin: &'a str,
    /// CNI_PATH: folders with a colon between them.
    pub path: &'a OsStr,
    /// CNI_* variables that differ from this process's own; everything else it inherits.
    pub environment: &'a [(&'a str, &'a str)],
    /// The configuration as this process got it.
    pub stdin: &'a [u8],
}

/// What came out of a run.
struct Output {
    status: ExitStatus,
    answer: Vec<u8>,
    complaint: Vec<u8>,
}

impl Delegate<'_> {
    /// Asks for an address. A failed ADD is followed by a DEL, as the specification wants it, so that
    /// nothing half-given stays with the plugin; the ADD's error leads.
    pub fn add_or_undo(&self) -> Result<Vec<u8>> {
        self.add().map_err(|error| match self.call("DEL") {
            Ok(_) => error,
            // Without the plugin there was no ADD, and there is nothing more to say.
            Err(_) if self.find().is_err() => error,
            Err(undo) => {
                let advice = error.advice().map_or_else(String::new, |h| format!("{h}; "));
                error.hint(format!("{advice}the clean-up met: {}; DEL will try again", undo.chain()))
            }
        })
    }

    /// Runs `verb` and returns what the plugin wrote to stdout. The plugin's own error is
    /// [`Kind::Delegate`] with its code.
    pub fn call(&self, verb: &str) -> Result<Vec<u8>> {
        let path = self.find()?;
        let doing = || format!("run the IPAM plugin `{}` ({verb})", path.display());
        let output = self.run(&path, verb).map_err(|e| {
            // The binary is being replaced at this moment.
            let busy = e.kind() == ErrorKind::ExecutableFileBusy;
            Error::caused(if busy { Kind::TryAgain } else { Kind::Config }, doing(), e)
                .hint("the file must be a program for this machine")
        })?;
        if output.answer.len() as u64 > LONGEST_ANSWER {
            let why = format!("it answered with more than {LONGEST_ANSWER} bytes");
            return Err(Error::caused(Kind::Decode, doing(), why));
        }
        if output.status.success() { Ok(output.answer) } else { Err(refusal(&output, doing())) }
    }

    fn add(&self) -> Result<Vec<u8>> {
        let answer = self.call("ADD")?;
        let doing =
            || format!("read the result of the IPAM plugin `{}` (`{}`)", self.plugin, start_of(&answer));
        let value: Value = serde_json::from_slice(&answer).doing(Kind::Decode, doing)?;
        if value.is_object() { Ok(answer) } else { Err(Error::new(Kind::Decode, doing())) }
    }

    /// The program: the first regular executable file of that name.
    pub fn find(&self) -> Result<PathBuf> {
        let folders: Vec<_> = std::env::split_paths(self.path).filter(|f| f.is_absolute()).collect();
        let found = folders.iter().map(|f| f.join(self.plugin)).find(|p| executable(p));
        found.ok_or_else(|| {
            let searched: Vec<_> = folders.iter().map(|f| format!("`{}`", f.display())).collect();
            let searched = if searched.is_empty() { "no folder".to_owned() } else { searched.join(", ") };
            let doing = format!("find the IPAM plugin `{}`: searched {searched} (CNI_PATH)", self.plugin);
            Error::new(Kind::Config, doing)
                .hint("install it into one of these folders or correct `ipam.type`")
        })
    }

    fn run(&self, path: &Path, verb: &str) -> io::Result<Output> {
        let mut child = Command::new(path)
            .envs(self.environment.iter().copied())
            .env("CNI_COMMAND", verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = self.talk(&mut child);
        if output.is_err() || output.as_ref().is_ok_and(|(answer, _)| answer.len() as u64 > LONGEST_ANSWER) {
            // It may be writing still: its end of the pipe is ours to close.
            let _ = child.kill();
        }
        let status = child.wait()?;
        let (answer, complaint) = output?;
        Ok(Output { status, answer, complaint })
    }

    /// Feeds and drains all three pipes at once: a plugin may answer before it has read everything.
    fn talk(&self, child: &mut Child) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            let feed = scope.spawn(|| stdin.map_or(Ok(()), |mut pipe| pipe.write_all(self.stdin)));
            let complain = scope.spawn(|| stderr.map_or_else(|| Ok(Vec::new()), drained));
            let mut answer = Vec::new();
            if let Some(pipe) = stdout {
                pipe.take(LONGEST_ANSWER + 1).read_to_end(&mut answer)?;
            }
            if answer.len() as u64 > LONGEST_ANSWER {
                // Its stderr may stay open for ever; the threads end when it does.
                child.kill()?;
            }
            let lost = || io::Error::other("a thread died");
            let complaint = complain.join().map_err(|_| lost())??;
            match feed.join().map_err(|_| lost())? {
                // It ended without reading everything: its answer says why.
                Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e),
                _ => Ok((answer, complaint)),
            }
        })
    }
}

/// The start of a stream; the rest is read and dropped, so that the writer is not stopped.
fn drained(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    pipe.by_ref().take(LONGEST_COMPLAINT).read_to_end(&mut start)?;
    io::copy(&mut pipe, &mut io::sink())?;
    Ok(start)
}

fn executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The plugin's own error (CNI spec 1.1.0, section 5, "Error"), or what can be said without one.
fn refusal(output: &Output, doing: String) -> Box<Error> {
    let answer: Option<Value> = serde_json::from_slice(&output.answer).ok();
    let text = |key| answer.as_ref().and_then(|a| a.get(key)).and_then(Value::as_str).unwrap_or_default();
    let (msg, details) = (text("msg"), text("details"));
    if !msg.is_empty() {
        let code = answer.as_ref().and_then(|a| a.get("code")).and_then(Value::as_u64);
        let code = code.and_then(|c| u32::try_from(c).ok()).filter(|c| *c != 0).unwrap_or(NO_CODE);
        let why = if details.is_empty() { msg.to_owned() } else { format!("{msg}; {details}") };
        return Error::caused(Kind::Delegate(code), doing, why);
    }
    let complaint = String::from_utf8_lossy(&output.complaint);
    let last = complaint.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing");
    let why = format!(
        "it ended with {} and no error in CNI's format: stdout `{}`, stderr `{}`",
        output.status,
        start_of(&output.answer),
        start_of(last.as_bytes())
    );
    Error::caused(Kind::Decode, doing, why)
}

/// The first of what was written, on one line.
fn start_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[path = "delegate_tests.rs"]
mod tests;
