//! One exec of a driver, as the kubelet does it: one pipe for standard output and standard error, which is
//! read until every holder has closed it, and no time-out.

use std::fs;
use std::io::{PipeReader, Read, pipe};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::call::{Answer, Launch};
use crate::kernel::cgroup::{self, Cgroup};
use crate::kernel::trace::{self, End};

/// The kubelet waits for ever; a test must end, and a driver must have answered long before.
pub const LIMIT: Duration = Duration::from_mins(2);

/// One call, before it is made.
#[derive(Debug, Clone)]
pub struct DriverCall {
    /// The executable, which is also `argv[0]`.
    pub program: PathBuf,
    /// What follows.
    pub arguments: Vec<String>,
    /// The cgroup that it is born in: the kubelet's own.
    pub cgroup: Option<Cgroup>,
}

impl Launch for DriverCall {
    /// The environment and the folder of a service of systemd.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().current_dir("/");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("LANG", "C.UTF-8").env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
        command.env("JOURNAL_STREAM", "8:12345").env("SYSTEMD_EXEC_PID", "1234");
        if let Some(cgroup) = &self.cgroup {
            cgroup::join(&mut command, cgroup);
        }
        command
    }

    fn one_stream(&self) -> bool {
        true
    }
}

/// What a call came to.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Everything that was written to the pipe.
    pub output: Vec<u8>,
    /// Why it counts as failed, in Go's words: it did not start, its code is not 0, a signal ended it.
    pub error: Option<String>,
    /// From the start to the end of the pipe and of the process.
    pub elapsed: Duration,
}

impl Finished {
    /// Stops the test unless the driver exited with 0 after one JSON object on one line; the object.
    #[track_caller]
    pub fn one_object(&self) -> Value {
        let text = String::from_utf8_lossy(&self.output);
        assert_eq!(self.error, None, "{text}");
        let line = text.strip_suffix('\n').unwrap_or(&text);
        assert!(!line.contains('\n'), "more than one line: {text}");
        let json: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(json.is_object(), "not an object: {text}");
        json
    }
}

/// What is done to a call in place of letting it run.
#[derive(Debug, Clone)]
pub enum Doom {
    /// SIGKILL after this many of its system calls.
    KillAfter(usize),
    /// The n-th (from 0) of its system calls of these numbers fails with this errno.
    Fail {
        /// Numbers of system calls.
        among: Vec<i64>,
        /// Which of them.
        n: usize,
        /// What it gets for an answer.
        errno: i32,
    },
}

/// What became of a doomed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was killed after the system call of this number (0: before the first).
    Killed(u64),
    /// The system call of this number was refused.
    Refused(u64),
    /// It made fewer system calls than that, and finished by itself.
    Spared,
}

/// Runs the call to its end.
#[track_caller]
pub fn run(call: &DriverCall) -> Finished {
    let start = Instant::now();
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = call.command();
    command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a second descriptor")).stderr(writer);
    let spawned = command.spawn();
    // The command holds our ends of the pipe.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            let error = format!("fork/exec {}: {}", call.program.display(), super::disk::words(&e));
            return Finished { output: Vec::new(), error: Some(error), elapsed: start.elapsed() };
        }
    };
    let output = read_to_end(reader);
    let status = wait(&mut child, call, start);
    let left = LIMIT.saturating_sub(start.elapsed());
    let output = output.recv_timeout(left).unwrap_or_else(|e| {
        assert_ne!(e, RecvTimeoutError::Disconnected, "the reader of a pipe is gone");
        panic!("{:?} exited, but somebody holds its pipe open longer than {LIMIT:?}", call.arguments)
    });
    Finished { output, error: exit_error(status), elapsed: start.elapsed() }
}

/// Runs the call under trace, doing `doom` to it.
pub fn run_doomed(call: &DriverCall, doom: &Doom) -> (Finished, Fate) {
    let (answer, fate) = match doom {
        Doom::KillAfter(n) => match trace::kill_after(call, *n) {
            End::Killed(number) => (None, Fate::Killed(number)),
            End::Finished(answer) => (Some(answer), Fate::Spared),
        },
        Doom::Fail { among, n, errno } => {
            let (answer, failed) = fail_nth(call, among, *n, *errno);
            (Some(answer), failed.map_or(Fate::Spared, Fate::Refused))
        }
    };
    let finished = match answer {
        None => {
            Finished { output: Vec::new(), error: Some("signal: killed".to_owned()), elapsed: Duration::ZERO }
        }
        Some(answer) => Finished {
            output: answer.stdout.clone().into_bytes(),
            error: exit_error(status_of(&answer)),
            elapsed: answer.elapsed,
        },
    };
    (finished, fate)
}

#[cfg(target_arch = "x86_64")]
fn fail_nth(call: &DriverCall, among: &[i64], n: usize, errno: i32) -> (Answer, Option<u64>) {
    trace::fail_nth(call, among, n, errno)
}

#[cfg(not(target_arch = "x86_64"))]
fn fail_nth(call: &DriverCall, _among: &[i64], _n: usize, _errno: i32) -> (Answer, Option<u64>) {
    (trace::count(call).1, None)
}

fn status_of(answer: &Answer) -> ExitStatus {
    let code = answer.exit.map(|code| code << 8);
    ExitStatus::from_raw(code.or(answer.signal).unwrap_or_default())
}

fn exit_error(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(9)) => Some("signal: killed".to_owned()),
        (None, signal) => Some(format!("signal: {}", signal.unwrap_or_default())),
    }
}

fn read_to_end(mut pipe: PipeReader) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        drop(send.send(bytes));
    });
    receive
}

fn wait(child: &mut Child, call: &DriverCall, start: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().expect("wait for the driver") {
            return status;
        }
        if start.elapsed() > LIMIT {
            let sleeps = fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("wchan"));
            drop(child.kill());
            panic!("{:?} takes longer than {LIMIT:?}; it waits in {sleeps:?}", call.arguments);
        }
        thread::sleep(Duration::from_micros(200));
    }
}
