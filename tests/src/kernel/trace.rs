//! Runs a call under ptrace(2): counts its system calls, looks at each, kills it after the n-th, sends it a
//! signal there, or makes the n-th of some fail. A call is whatever can be launched: a plugin's or a
//! driver's.
//!
//! Only the process itself is traced. A child that it forks runs free, as it does in real life.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::{Answer, LIMIT, Launch};

/// How a traced call ended.
#[derive(Debug)]
pub enum End {
    /// It was killed after this system call, of this number.
    Killed(u64),
    /// It finished by itself.
    Finished(Answer),
}

/// Kills the call after its `n`-th system call (0: before the first).
pub fn kill_after(call: &impl Launch, n: usize) -> End {
    let mut seen = 0;
    let mut last = 0;
    follow(call, &mut |stop| match stop {
        Stop::Start => n == 0,
        Stop::Entry(_, number) => {
            last = number;
            false
        }
        Stop::Exit(_) => {
            seen += 1;
            seen >= n
        }
    })
    .map_or(End::Killed(last), End::Finished)
}

/// Kills the call after the `n`-th (from 0) of its system calls `among`: those that change something. What a
/// kill after any other one leaves is what it left after the last of these.
pub fn kill_after_nth(call: &impl Launch, among: &[i64], n: usize) -> End {
    let (mut seen, mut last, mut due) = (0, 0, false);
    follow(call, &mut |stop| match stop {
        Stop::Start => false,
        Stop::Entry(_, number) => {
            if among.iter().any(|a| u64::try_from(*a) == Ok(number)) {
                (last, due) = (number, seen == n);
                seen += 1;
            }
            false
        }
        Stop::Exit(_) => due,
    })
    .map_or(End::Killed(last), End::Finished)
}

/// The numbers of the call's system calls, in order.
pub fn system_calls(call: &impl Launch) -> (Vec<u64>, Answer) {
    let mut seen = Vec::new();
    let answer = follow(call, &mut |stop| {
        if let Stop::Entry(_, number) = stop {
            seen.push(number);
        }
        false
    });
    (seen, answer.expect("nothing kills a call that is looked at"))
}

/// How many system calls the call makes.
pub fn count(call: &impl Launch) -> (usize, Answer) {
    let (seen, answer) = system_calls(call);
    (seen.len(), answer)
}

/// A system call that a call is about to make, and the call's process, which stands still meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The process.
    pub pid: Pid,
    /// The system call's number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Entry {
    /// The text that an argument points to, up to its zero; empty where there is none.
    pub fn text(&self, argument: usize) -> String {
        let bytes = self.bytes(argument, 4096);
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// What an argument points to; shorter where no more can be read.
    pub fn bytes(&self, argument: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let memory = File::open(format!("/proc/{}/mem", self.pid)).expect("the call's memory");
        let length = memory.read_at(&mut bytes, self.arguments[argument]).unwrap_or(0);
        bytes.truncate(length);
        bytes
    }
}

/// Shows `look` every system call before it is made.
pub fn watch(call: &impl Launch, mut look: impl FnMut(&Entry)) -> Answer {
    let answer = follow(call, &mut |stop| {
        if let Stop::Entry(pid, _) = stop {
            let info = ptrace::syscall_info(pid).expect("which system call");
            // SAFETY: at this stop the kernel has filled the `entry` arm of the union, plain integers.
            let (number, arguments) = unsafe { (info.u.entry.nr, info.u.entry.args) };
            look(&Entry { pid, number: number.cast_signed(), arguments });
        }
        false
    });
    answer.expect("nothing kills a watched call")
}

/// Sends the call `signal` when it has made `n` system calls (0: before the first). The answer, and
/// whether it came so far.
pub fn signal_after(call: &impl Launch, n: usize, signal: Signal) -> (Answer, bool) {
    let (mut seen, mut sent) = (0, false);
    let answer = follow(call, &mut |stop| {
        let pid = match stop {
            Stop::Exit(pid) => {
                seen += 1;
                pid
            }
            Stop::Entry(pid, _) if n == 0 => pid,
            _ => return false,
        };
        if seen >= n && !sent {
            sent = true;
            kill(pid, signal).expect("send a signal");
        }
        false
    });
    (answer.expect("nothing kills this call"), sent)
}

/// The largest resident set that the call's own process had, in KiB.
///
/// Not wait4's: that one counts the memory of whoever spawned the call, up to its exec.
pub fn peak_memory(call: &impl Launch) -> (u64, Answer) {
    let mut peak = 0;
    let answer = follow(call, &mut |stop| {
        if let Stop::Entry(pid, number) = stop
            && number == libc::SYS_exit_group.cast_unsigned()
        {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the call's status");
            let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
            peak = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        }
        false
    });
    (peak, answer.expect("nothing kills a measured call"))
}

/// The programs that the call and its children exec, the call itself not counted.
pub fn execs(call: &impl Launch) -> usize {
    let mut command = call.command();
    command.stdin(input(call)).stdout(Stdio::null()).stderr(Stdio::null());
    trace_me(&mut command);
    #[expect(clippy::zombie_processes, reason = "waited for below, as only the tracer can")]
    let child = command.spawn().expect("spawn under trace");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    waitpid(pid, None).expect("the stop after exec");
    let children = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::setoptions(pid, children | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)
        .expect("trace options");
    ptrace::cont(pid, None).expect("go on");
    let mut count = 0;
    // Children inherit the options; the loop ends when none is left. Other threads have children of
    // their own, which are not to be waited for here.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        match status {
            WaitStatus::PtraceEvent(pid, _, event) => {
                count += usize::from(event == libc::PTRACE_EVENT_EXEC);
                let _ = ptrace::cont(pid, None);
            }
            WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGTRAP) => {
                let _ = ptrace::cont(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                let _ = ptrace::cont(pid, signal);
            }
            _ => {}
        }
    }
    count
}

/// Makes the `n`-th (from 0) of the call's system calls `among` fail with `errno`, without letting the
/// kernel do it. The answer, and the number of the system call that failed; `None` where the call made
/// fewer of them.
#[cfg(target_arch = "x86_64")]
pub fn fail_nth(call: &impl Launch, among: &[i64], n: usize, errno: i32) -> (Answer, Option<u64>) {
    let mut seen = 0;
    let mut failing = None;
    let mut failed = None;
    let answer = follow(call, &mut |stop| {
        match stop {
            Stop::Entry(pid, number) if among.iter().any(|a| u64::try_from(*a) == Ok(number)) => {
                if seen == n {
                    // A system call of no number: the kernel does nothing.
                    change(pid, |registers| registers.orig_rax = u64::MAX);
                    failing = Some(number);
                }
                seen += 1;
            }
            Stop::Exit(pid) if failing.is_some() => {
                change(pid, |registers| registers.rax = i64::from(-errno).cast_unsigned());
                failed = failing.take();
            }
            _ => {}
        }
        false
    });
    (answer.expect("nothing kills this call"), failed)
}

/// Makes every one of the call's system calls `among` fail with `errno`, as on a kernel that lacks them.
#[cfg(target_arch = "x86_64")]
pub fn fail_all(call: &impl Launch, among: &[i64], errno: i32) -> Answer {
    let mut failing = false;
    let answer = follow(call, &mut |stop| {
        match stop {
            Stop::Entry(pid, number) if among.iter().any(|a| u64::try_from(*a) == Ok(number)) => {
                change(pid, |registers| registers.orig_rax = u64::MAX);
                failing = true;
            }
            Stop::Exit(pid) if std::mem::take(&mut failing) => {
                change(pid, |registers| registers.rax = i64::from(-errno).cast_unsigned());
            }
            _ => {}
        }
        false
    });
    answer.expect("nothing kills this call")
}

#[cfg(target_arch = "x86_64")]
fn change(pid: Pid, edit: impl FnOnce(&mut libc::user_regs_struct)) {
    let mut registers = ptrace::getregs(pid).expect("read registers");
    edit(&mut registers);
    ptrace::setregs(pid, registers).expect("write registers");
}

/// What the watcher is told.
enum Stop {
    /// Before the first system call.
    Start,
    /// About to make the system call of this number.
    Entry(Pid, u64),
    /// Back from a system call.
    Exit(Pid),
}

/// Runs the call, telling `watch` of every stop. Killed, and `None`, as soon as `watch` says so.
fn follow(call: &impl Launch, watch: &mut dyn FnMut(Stop) -> bool) -> Option<Answer> {
    let (mut out, mut err) = (scratch(), scratch());
    let start = Instant::now();
    let mut command = call.command();
    // Files, not pipes: a child that outlives the call must not make us wait here.
    command.stdin(input(call));
    command.stdout(out.try_clone().expect("a second descriptor"));
    // A second descriptor of one file shares its offset, as two of one pipe do.
    let second = if call.one_stream() { &out } else { &err };
    command.stderr(second.try_clone().expect("a second descriptor"));
    trace_me(&mut command);
    #[expect(clippy::zombie_processes, reason = "`drive` waits for it, as only the tracer can")]
    let child = command.spawn().expect("spawn under trace");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    waitpid(pid, None).expect("the stop after exec");
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)
        .expect("trace options");
    let status = if watch(Stop::Start) { None } else { drive(pid, start, watch) };
    let Some(status) = status else {
        kill(pid, Signal::SIGKILL).expect("kill the call");
        while !matches!(waitpid(pid, None), Ok(WaitStatus::Signaled(..)) | Err(_)) {}
        return None;
    };
    Some(Answer::new(status, &content(&mut out), &content(&mut err), start.elapsed()))
}

/// From stop to stop until the process ends (its status) or `watch` wants it dead (`None`).
fn drive(pid: Pid, start: Instant, watch: &mut dyn FnMut(Stop) -> bool) -> Option<ExitStatus> {
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take()).expect("go on");
        match wait(pid, start) {
            WaitStatus::Exited(_, code) => return Some(ExitStatus::from_raw(code << 8)),
            WaitStatus::Signaled(_, by, _) => return Some(ExitStatus::from_raw(by as i32)),
            WaitStatus::PtraceSyscall(_) => {
                let info = ptrace::syscall_info(pid).expect("which system call");
                let stop = if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                    Stop::Entry(pid, entry_number(&info))
                } else {
                    Stop::Exit(pid)
                };
                if watch(stop) {
                    return None;
                }
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            _ => {}
        }
    }
}

fn wait(pid: Pid, start: Instant) -> WaitStatus {
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("wait for the traced call") {
            WaitStatus::StillAlive => {
                assert!(
                    start.elapsed() < LIMIT,
                    "the traced call {pid} takes longer than {LIMIT:?}, in system call {}",
                    std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default()
                );
                // Most system calls return within microseconds: look again before sleeping.
                std::thread::yield_now();
                if start.elapsed() > Duration::from_millis(200) {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
            status => return status,
        }
    }
}

fn entry_number(info: &libc::ptrace_syscall_info) -> u64 {
    // SAFETY: the kernel fills the `entry` arm of the union when `op` is PTRACE_SYSCALL_INFO_ENTRY,
    // which the caller has seen; the arm holds plain integers.
    unsafe { info.u.entry.nr }
}

pub(super) fn trace_me(command: &mut Command) {
    let ask = || ptrace::traceme().map_err(std::io::Error::from);
    // SAFETY: the closure makes one system call, which is safe between fork and exec, and allocates
    // nothing.
    unsafe { command.pre_exec(ask) };
}

fn input(call: &impl Launch) -> Stdio {
    let Some(bytes) = call.input() else { return Stdio::null() };
    let mut file = scratch();
    file.write_all(bytes).expect("write the input");
    file.rewind().expect("rewind the input");
    file.into()
}

/// A nameless file in memory.
pub(super) fn scratch() -> File {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    nix::sys::memfd::memfd_create("scratch", flags).expect("a file in memory").into()
}

pub(super) fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read the answer");
    bytes
}
