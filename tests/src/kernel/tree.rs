//! Runs a call under ptrace(2) with all that it forks: which programs they exec, with which words, what
//! they ask mount(2) for; or kills the call when the whole tree has made its n-th system call.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::trace::{content, scratch, trace_me};
use crate::call::{Answer, LIMIT, Launch};

/// The longest text that mount(2) takes: a page.
const PAGE: usize = 4096;

/// A program that was exec'd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its words, its own name first.
    pub arguments: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
}

/// What somebody asked mount(2) for, whatever came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The first word of who asked: its path.
    pub program: String,
    /// `source`.
    pub source: String,
    /// `target`.
    pub target: String,
    /// `filesystemtype`.
    pub kind: String,
    /// `mountflags`.
    pub flags: u64,
    /// `data`.
    pub data: String,
}

/// What was seen of a call and all that it forked.
#[derive(Debug)]
pub struct Tree {
    /// The call's answer; `None` where it was killed.
    pub answer: Option<Answer>,
    /// The programs, the call itself not among them.
    pub execs: Vec<Exec>,
    /// Every mount(2).
    pub mounts: Vec<Asked>,
    /// How many system calls they made together.
    pub count: usize,
}

/// Runs the call to its end, and to that of all that it forked.
pub fn watch(call: &impl Launch) -> Tree {
    follow(call, usize::MAX, false)
}

/// Kills the call's own process, and only it, when it and all that it forked have made `n` system calls
/// together. What it forked lives on as long as it would.
pub fn kill_after(call: &impl Launch, n: usize) -> Tree {
    follow(call, n, false)
}

/// The same, where programs that are exec'd run free: nobody waits for them, and what they do does not count.
pub fn kill_amid(call: &impl Launch, n: usize) -> Tree {
    follow(call, n, true)
}

fn follow(call: &impl Launch, most: usize, free: bool) -> Tree {
    let mut out = scratch();
    let mut command = call.command();
    let second = || Stdio::from(out.try_clone().expect("a second descriptor"));
    command.stdin(Stdio::null()).stdout(second()).stderr(second());
    trace_me(&mut command);
    let start = Instant::now();
    #[expect(clippy::zombie_processes, reason = "waited for below, as only the tracer can")]
    let child = command.spawn().expect("spawn under trace");
    let root = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    waitpid(root, None).expect("the stop after exec");
    let children = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    let calls = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(root, children | calls).expect("trace options");
    let tree = Tree { answer: None, execs: Vec::new(), mounts: Vec::new(), count: 0 };
    let mut watcher = Watcher { root, most, free, known: BTreeSet::from([root]), ended: None, tree };
    go_on(root, None);
    while let Some(status) = next(start) {
        watcher.meet(status);
    }
    let status = watcher.ended.expect("the call has ended");
    let mut tree = watcher.tree;
    if status.signal() != Some(libc::SIGKILL) {
        tree.answer = Some(Answer::new(status, &content(&mut out), &[], start.elapsed()));
    }
    tree
}

/// The next stop or end of anybody; `None` when nobody is left. Other threads have children of their own,
/// which are not to be waited for here.
fn next(start: Instant) -> Option<WaitStatus> {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
    loop {
        match waitpid(None, Some(flags)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(status) => return Some(status),
            Err(Errno::ECHILD) => return None,
            Err(e) => panic!("wait for the traced call: {e}"),
        }
        assert!(start.elapsed() < LIMIT, "the traced call takes longer than {LIMIT:?}");
        thread::yield_now();
        if start.elapsed() > Duration::from_millis(500) {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

struct Watcher {
    root: Pid,
    most: usize,
    free: bool,
    known: BTreeSet<Pid>,
    ended: Option<ExitStatus>,
    tree: Tree,
}

impl Watcher {
    fn meet(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) if pid == self.root => {
                self.ended = Some(ExitStatus::from_raw(code << 8));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == self.root => {
                self.ended = Some(ExitStatus::from_raw(signal as i32));
            }
            WaitStatus::PtraceSyscall(pid) => {
                self.system_call(pid);
                go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == libc::PTRACE_EVENT_EXEC {
                    self.tree.execs.extend(unless_gone(exec(pid)));
                    if self.free {
                        let _ = ptrace::detach(pid, None);
                        return;
                    }
                }
                go_on(pid, None);
            }
            // How a new process reports; it may do so before its parent does.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) if self.known.insert(pid) => go_on(pid, None),
            WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
            _ => {}
        }
    }

    fn system_call(&mut self, pid: Pid) {
        let Ok(info) = ptrace::syscall_info(pid) else { return };
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: the kernel fills the `entry` arm of the union when `op` says so; it holds integers.
            let (number, arguments) = unsafe { (info.u.entry.nr, info.u.entry.args) };
            if number == libc::SYS_mount.cast_unsigned() {
                self.tree.mounts.extend(unless_gone(asked(pid, arguments)));
            }
            return;
        }
        self.tree.count += 1;
        if self.tree.count == self.most && self.ended.is_none() {
            kill(self.root, Signal::SIGKILL).expect("kill the call");
        }
    }
}

/// To the next stop. One that was killed meanwhile is gone.
fn go_on(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}

/// A stopped process may be killed while it is looked at: with the call whose child it is, or by it.
fn unless_gone<T>(seen: io::Result<T>) -> Option<T> {
    match seen {
        Ok(seen) => Some(seen),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => None,
        Err(e) => panic!("look at a traced process: {e}"),
    }
}

fn exec(pid: Pid) -> io::Result<Exec> {
    Ok(Exec { arguments: words(pid, "cmdline")?, environment: words(pid, "environ")? })
}

fn words(pid: Pid, what: &str) -> io::Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/{what}"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

fn asked(pid: Pid, arguments: [u64; 6]) -> io::Result<Asked> {
    let [source, target, kind, flags, data, _] = arguments;
    Ok(Asked {
        program: words(pid, "cmdline")?.into_iter().next().unwrap_or_default(),
        source: text(pid, source)?,
        target: text(pid, target)?,
        kind: text(pid, kind)?,
        flags,
        data: text(pid, data)?,
    })
}

/// The text at an address of a stopped process.
fn text(pid: Pid, address: u64) -> io::Result<String> {
    if address == 0 {
        return Ok(String::new());
    }
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut bytes = vec![0; PAGE];
    let length = memory.read_at(&mut bytes, address)?;
    // The memory of a process that died meanwhile reads as nothing.
    if length == 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    bytes.truncate(length);
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(length);
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}
