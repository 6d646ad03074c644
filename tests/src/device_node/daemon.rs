//! The daemon's process: its log, its end, and what it costs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::device_manager::PATIENCE;
use crate::kubelet::hold;

/// A daemon that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Daemon {
    child: Mutex<Child>,
    pid: Pid,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(super) fn start(words: &[&str]) -> Self {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("start {words:?}: {e}"));
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, pipe) = (log.clone(), child.stderr.take().expect("a piped standard error"));
        let read = move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                hold(&lines).push(line);
            }
        };
        Self { child: Mutex::new(child), pid, log, reader: Some(thread::spawn(read)) }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("signal the daemon");
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        hold(&self.child).try_wait().expect("look after the daemon").is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = hold(&self.child).try_wait().expect("look after the daemon") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the daemon does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGTERM, as systemd and the kubelet stop it, and its end.
    #[track_caller]
    pub fn stop(&self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// kill -9.
    #[track_caller]
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        hold(&self.log).join("\n")
    }

    /// How many lines that is.
    pub fn log_lines(&self) -> usize {
        hold(&self.log).len()
    }

    /// Waits for a line with these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = hold(&self.log).iter().find(|line| line.contains(words)) {
                return line.clone();
            }
            assert!(start.elapsed() < PATIENCE, "no line has `{words}`:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    // --- what it costs ----------------------------------------------------------------------------------

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        self.number("status", "VmRSS:")
    }

    /// How often it gave up the processor of its own accord, over all of its threads: each is a wake-up.
    pub fn wake_ups(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the daemon's threads");
        let tasks = tasks.flatten().map(|task| task.file_name().to_string_lossy().into_owned());
        tasks.map(|task| self.number(&format!("task/{task}/status"), "voluntary_ctxt_switches:")).sum()
    }

    /// User and system time.
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/task", self.pid);
        let tasks = fs::read_dir(path).expect("the daemon's threads").flatten();
        let nanos = tasks.map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the daemon's descriptors").count()
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the daemon's threads").count()
    }

    /// The effective capabilities, as the kernel prints them.
    pub fn capabilities(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the daemon's status");
        let line = text.lines().find_map(|l| l.strip_prefix("CapEff:"));
        line.expect("a line of capabilities").trim().to_owned()
    }

    fn number(&self, file: &str, key: &str) -> u64 {
        // A thread may be gone by now.
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let mut child = hold(&self.child);
        drop(child.kill());
        drop(child.wait());
        drop(child);
        drop(self.reader.take().map(JoinHandle::join));
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the log explains what the panic does not")]
            {
                eprintln!("--- the daemon's log:\n{}\n---", self.log());
            }
        }
    }
}
