//! One run of a program: bounded in time, its answer kept whole.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;

/// No call of a plugin or a tool takes longer, whatever the machine does.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A program to start, as often as wanted: what the tracer needs to know of it.
pub trait Launch {
    /// The process to be; its standard streams are the starter's affair.
    fn command(&self) -> Command;

    /// The bytes on standard input; `None` is `/dev/null`.
    fn input(&self) -> Option<&[u8]> {
        None
    }

    /// Whether standard output and standard error are one stream: [`Answer::stdout`] then holds both.
    fn one_stream(&self) -> bool {
        false
    }
}

/// What a program answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code; `None` where a signal ended it.
    pub exit: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard output as JSON, where it is.
    pub json: Option<Value>,
    /// Standard error, as text.
    pub stderr: String,
    /// From the spawn to the exit and the end of both pipes.
    pub elapsed: Duration,
}

impl Answer {
    /// The parts of a finished process.
    pub fn new(status: ExitStatus, stdout: &[u8], stderr: &[u8], elapsed: Duration) -> Self {
        let stdout = String::from_utf8_lossy(stdout).into_owned();
        Self {
            exit: status.code(),
            signal: status.signal(),
            json: serde_json::from_str(&stdout).ok(),
            stdout,
            stderr: String::from_utf8_lossy(stderr).into_owned(),
            elapsed,
        }
    }

    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.exit == Some(0)
    }

    /// The error object's code; 0 where there is none.
    pub fn code(&self) -> u64 {
        self.json.as_ref().and_then(|j| j["code"].as_u64()).unwrap_or(0)
    }

    /// The error object's message and details, joined.
    pub fn message(&self) -> String {
        let part = |key: &str| {
            let json = self.json.as_ref();
            json.and_then(|j| j[key].as_str()).unwrap_or_default().to_owned()
        };
        format!("{} {}", part("msg"), part("details"))
    }

    /// Stops the test unless it exited with 0, and gives its JSON (`Null` for an empty answer).
    #[track_caller]
    pub fn success(&self) -> Value {
        assert!(self.ok(), "the call fails: {self:?}");
        if self.stdout.trim().is_empty() {
            return Value::Null;
        }
        self.json.clone().unwrap_or_else(|| panic!("the answer is not JSON: {self:?}"))
    }

    /// Stops the test unless it failed with a whole error object of this code.
    #[track_caller]
    pub fn refused(&self, code: u64) {
        assert_eq!(self.exit, Some(1), "exit 1 goes with an error object: {self:?}");
        assert_eq!(self.code(), code, "the error code: {self:?}");
        let json = self.json.as_ref().expect("an error object");
        assert!(json["cniVersion"].is_string(), "the error names its cniVersion: {self:?}");
        assert!(!self.message().trim().is_empty(), "the error has a message: {self:?}");
    }
}

/// Runs `command` with `stdin`, and waits for its exit and for the end of its pipes.
#[track_caller]
pub fn run(command: &mut Command, stdin: &[u8]) -> Answer {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("spawn {command:?}: {e}"));
    let (out, err) = readers(&mut child);
    if let Some(mut pipe) = child.stdin.take() {
        // A program that answers without reading its input closes the pipe: that is its right.
        drop(pipe.write_all(stdin));
    }
    let status = wait(&mut child, start);
    let ended = |pipe: Receiver<Vec<u8>>| {
        let left = LIMIT.saturating_sub(start.elapsed());
        pipe.recv_timeout(left).unwrap_or_else(|_| panic!("{command:?} exited but holds its pipe open"))
    };
    let (out, err) = (ended(out), ended(err));
    Answer::new(status, &out, &err, start.elapsed())
}

/// Copies a program that is going to be run, by a process of its own: where this one wrote it, a thread that forks
/// meanwhile would hold it open for writing, and nobody could run it (execve(2), ETXTBSY).
pub fn copy(from: &Path, to: &Path) {
    let [from, to] = [from, to].map(|path| path.to_str().expect("a path in UTF-8"));
    tool(&["cp", from, to]);
}

/// Writes a program that is going to be run, by a process of its own, for the same reason as [`copy`].
pub fn write_program(path: &Path, bytes: &[u8]) {
    let mut command = Command::new("sh");
    command.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path);
    let answer = run(&mut command, bytes);
    assert!(answer.ok(), "write `{}`: {answer:?}", path.display());
}

/// Runs a tool that must succeed, and gives its standard output.
#[track_caller]
pub fn tool(words: &[&str]) -> String {
    let answer = try_tool(words);
    assert!(answer.ok(), "{words:?}: {answer:?}");
    answer.stdout
}

/// Runs a tool that may fail.
#[track_caller]
pub fn try_tool(words: &[&str]) -> Answer {
    let (program, rest) = words.split_first().expect("a program's name");
    run(Command::new(program).args(rest), b"")
}

fn readers(child: &mut Child) -> (Receiver<Vec<u8>>, Receiver<Vec<u8>>) {
    let out = child.stdout.take().expect("a piped standard output");
    let err = child.stderr.take().expect("a piped standard error");
    (reader(out), reader(err))
}

fn reader(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        drop(send.send(bytes));
    });
    receive
}

/// A poll of its own, because a blocking wait has no time-out.
fn wait(child: &mut Child, start: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().expect("wait for the child") {
            return status;
        }
        if start.elapsed() > LIMIT {
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
            let _ = kill(pid, Signal::SIGKILL);
            panic!("process {pid} takes longer than {LIMIT:?}");
        }
        thread::sleep(Duration::from_micros(300));
    }
}
