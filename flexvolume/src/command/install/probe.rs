//! Asks a driver for `init` as the kubelet does: stdin is /dev/null, stdout and stderr are one pipe, and
//! its whole content has to be one JSON object.

use std::io::{self, PipeReader, Read};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use node::{Context, Error, Kind, Result, root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

/// The kubelet sets none, and every volume of the node waits meanwhile. A good answer takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
/// More than this is no answer.
const LONGEST: usize = 64 << 10;
/// What the kubelet knows of. It takes an absent `attach` for true, and crashes on `null`.
const CAPABILITIES: [&str; 5] =
    ["attach", "selinuxRelabel", "supportsMetrics", "fsGroup", "requiresFSResize"];

/// Runs `program init`; an error unless the kubelet could take the answer.
pub(crate) fn init(program: &Path) -> Result<()> {
    let doing = || format!("ask `{}` for `init`", program.display());
    let end = Instant::now() + DEADLINE;
    let (pipe, mut child) =
        start(program, end).doing(Kind::Mismatch, doing).map_err(|e| match e.errno() {
            Some(libc::EACCES) => {
                e.hint("is the file system mounted noexec? choose another folder with --dir")
            }
            Some(libc::ENOEXEC) => e.hint("the program is built for another kind of machine"),
            _ => e,
        })?;
    let answered = read(pipe, end).and_then(|said| Ok((ended(&mut child, end)?, said)));
    if answered.is_err() {
        // It has ended by itself, or this ends it; the answer does not count either way.
        let _ = child.kill();
        let _ = child.wait();
    }
    let (code, said) = answered.doing(Kind::Mismatch, doing)?;
    judge(code, &said).map_err(|why| Error::caused(Kind::Mismatch, doing(), why))
}

fn start(program: &Path, end: Instant) -> io::Result<(PipeReader, Child)> {
    loop {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command.arg("init").stdin(root::nothing()).stdout(writer.try_clone()?).stderr(writer);
        match command.spawn() {
            // Somebody forked while the file was being written and has not come to his exec yet.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                thread::sleep(PAUSE);
            }
            spawned => return Ok((reader, spawned?)),
        }
    }
}

/// All that is said until every holder of the pipe has closed it.
fn read(mut pipe: PipeReader, end: Instant) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(late("the pipe is still open")),
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let count = pipe.read(&mut piece)?;
        said.extend_from_slice(piece.get(..count).unwrap_or_default());
        if count == 0 || said.len() > LONGEST {
            return Ok(said);
        }
    }
}

fn ended(child: &mut Child, end: Instant) -> io::Result<Option<i32>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= end {
            return Err(late("it still runs"));
        }
        thread::sleep(PAUSE / 10);
    }
}

fn late(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{why} after {} s", DEADLINE.as_secs()))
}

/// The kubelet's own rules, and the house's: exit code 0, and all capabilities named.
fn judge(code: Option<i32>, said: &[u8]) -> Result<(), String> {
    let shown = || {
        format!("it said `{}`", String::from_utf8_lossy(said).trim().chars().take(200).collect::<String>())
    };
    if code != Some(0) {
        let how = code.map_or("was killed".to_owned(), |code| format!("ended with code {code}"));
        return Err(format!("it {how}; {}", shown()));
    }
    let answer: Value =
        serde_json::from_slice(said).map_err(|e| format!("no JSON object: {e}; {}", shown()))?;
    if answer.get("status").and_then(Value::as_str) != Some("Success") {
        return Err(format!("the status is not `Success`; {}", shown()));
    }
    let named =
        |name: &&str| answer.get("capabilities").and_then(|c| c.get(*name)).is_some_and(Value::is_boolean);
    let missing: Vec<&str> = CAPABILITIES.into_iter().filter(|name| !named(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the capabilities lack {}; {}", missing.join(", "), shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":true,"supportsMetrics":true,"fsGroup":false,"requiresFSResize":false}}"#;

    #[test]
    fn only_what_the_kubelet_can_take_is_an_answer() {
        let table = [
            (Some(0), GOOD.to_owned(), None),
            (Some(0), format!("\n{GOOD}\n"), None),
            (Some(1), GOOD.to_owned(), Some("ended with code 1")),
            (None, GOOD.to_owned(), Some("was killed")),
            (Some(0), String::new(), Some("no JSON object")),
            (Some(0), format!("warning: x\n{GOOD}"), Some("no JSON object")),
            (Some(0), format!("{GOOD}\n{GOOD}"), Some("trailing characters")),
            (Some(0), GOOD.replace("Success", "success"), Some("not `Success`")),
            (Some(0), r#"{"status":"Success"}"#.to_owned(), Some("lack attach, selinuxRelabel")),
            (Some(0), r#"{"status":"Success","capabilities":null}"#.to_owned(), Some("lack attach")),
            (Some(0), GOOD.replace(r#""fsGroup":false,"#, ""), Some("lack fsGroup;")),
            (Some(0), GOOD.replace("\"attach\":false", "\"attach\":\"false\""), Some("lack attach;")),
            (Some(0), "[]".to_owned(), Some("not `Success`")),
        ];
        for (code, said, expect) in table {
            let found = judge(code, said.as_bytes());
            match expect {
                None => assert_eq!(found, Ok(()), "{said}"),
                Some(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{said}: {found:?}"),
            }
        }
    }
}
