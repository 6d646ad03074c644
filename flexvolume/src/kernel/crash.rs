//! Answers the caller when the process is told to stop, crashes or runs out of time.
//!
//! The kubelet takes anything but one JSON line for a broken driver, so each way out of the process has
//! its line. A signal's handler only calls write(2) and _exit(2), which signal-safety(7) lists as safe.
//!
//! A handler does not run while the thread sits in a system call that no signal wakes (state D: a dead
//! network or FUSE server below it), and neither a second thread nor a timer could end the process then;
//! only a parent that is not stuck can answer. Forking every call for that would cost the fast backends
//! a process each. So whatever may sit in that state is done in a child that this process waits for with
//! a deadline (see [`workshop`](super::workshop) and [`helper`](super::helper)), and the alarm here is
//! the last resort for what can be interrupted.

use std::os::fd::RawFd;
use std::panic;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::{Pid, getpid};
use serde_json::json;

/// The process that answers; a forked child is another one.
static OWNER: AtomicI32 = AtomicI32::new(0);
static ANSWER: AtomicI32 = AtomicI32::new(-1);
static ANSWERING: AtomicBool = AtomicBool::new(false);
/// What was asked for is done, whatever comes now.
static DONE: AtomicBool = AtomicBool::new(false);
static LATE: OnceLock<String> = OnceLock::new();

/// Room for a handler when the stack is what overflowed; the kernel needs up to 11 KiB of it for the
/// registers (sigaltstack(2), `AT_MINSIGSTKSZ`).
const HANDLER_STACK: usize = 32 << 10;
/// What a shell gives for a process that a signal ended.
const SIGNALLED: i32 = 128;
/// What Rust gives for a process that panicked.
const PANICKED: i32 = 101;

macro_rules! failure {
    ($($text:literal),+) => {
        concat!(r#"{"status":"Failure","message":""#, $($text),+, "; the kubelet will try again\"}\n")
    };
}

macro_rules! mistake {
    ($text:literal) => {
        failure!($text, ": a mistake in nodeplug-flexvolume, please report it")
    };
}

/// The answer of a process that ends when its work is done.
const SUCCESS: &str = "{\"status\":\"Success\"}\n";

/// Each signal, and the whole answer when it comes.
const LINES: [(Signal, &str); 12] = [
    (Signal::SIGTERM, failure!("told to stop (SIGTERM) before the call was done")),
    (Signal::SIGINT, failure!("interrupted (SIGINT) before the call was done")),
    (Signal::SIGHUP, failure!("hung up on (SIGHUP) before the call was done")),
    (Signal::SIGQUIT, failure!("told to quit (SIGQUIT) before the call was done")),
    (Signal::SIGALRM, failure!("the call took longer than its time and was given up")),
    (Signal::SIGXCPU, failure!("the limit of CPU time is used up (SIGXCPU): raise the kubelet's RLIMIT_CPU")),
    (
        Signal::SIGXFSZ,
        failure!("a file grew over the size limit (SIGXFSZ): raise the kubelet's RLIMIT_FSIZE"),
    ),
    (Signal::SIGSEGV, mistake!("crashed (SIGSEGV)")),
    (Signal::SIGBUS, failure!("crashed (SIGBUS): a disk is full or has an error, see `dmesg`")),
    (Signal::SIGILL, mistake!("crashed (SIGILL)")),
    (Signal::SIGFPE, mistake!("crashed (SIGFPE)")),
    (
        Signal::SIGABRT,
        failure!("gave up (SIGABRT): the node is out of memory, or nodeplug-flexvolume has a mistake"),
    ),
];

/// From now on, a signal that ends this process first writes one Failure line to `answer`, and the exit
/// code is 0: with another one, the kubelet would log the arguments, secrets included.
pub fn install(answer: RawFd) {
    OWNER.store(getpid().as_raw(), Ordering::SeqCst);
    ANSWER.store(answer, Ordering::SeqCst);
    ANSWERING.store(false, Ordering::SeqCst);
    DONE.store(false, Ordering::SeqCst);
    use_handler_stack();
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::Handler(answer_and_exit), flags, SigSet::all());
    for (signal, _) in LINES {
        // SAFETY: the handler calls functions that are safe in a handler, and nothing else.
        let _ = unsafe { sigaction(signal, &action) };
    }
    // A caller may have blocked some of them for its children.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// The answer is being written now: a signal must not add a second one. A request to stop is passed
/// over, as the process ends right after; a crash ends it without a word.
pub fn answering() {
    ANSWERING.store(true, Ordering::SeqCst);
}

/// Does the last step of the work. From when it is done, whatever ends this process answers Success: a Failure
/// would be the last that the caller hears of a volume that is there, and no unmount would follow. A signal
/// that arrives meanwhile waits until it is known which of the two is right.
pub fn finally<T, E>(last: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let requests: SigSet =
        LINES.iter().map(|(signal, _)| *signal).filter(|s| !is_a_crash(*s as i32)).collect();
    let mut before = SigSet::empty();
    let held = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&requests), Some(&mut before));
    let outcome = last();
    if outcome.is_ok() {
        DONE.store(true, Ordering::SeqCst);
    }
    if held.is_ok() {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    }
    outcome
}

/// Writes the answer, one line. From then on no signal adds a second one. A caller that has gone reads
/// none; the next one asks again.
pub fn answer(descriptor: RawFd, line: &str) {
    answering();
    write_whole(descriptor, line.as_bytes());
}

/// In a forked child: signals have their usual effect again, and nothing of it reaches the caller.
pub fn forget() {
    ANSWER.store(-1, Ordering::SeqCst);
    let usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for (signal, _) in LINES {
        // SAFETY: the usual effect installs no handler.
        let _ = unsafe { sigaction(signal, &usual) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Answers for this process at `deadline` if it is still at work then, by setitimer(2), which a forked
/// child does not inherit. `allowed` is what the message says the call may take.
pub fn alarm_at(deadline: Instant, allowed: Duration) {
    let text = format!(
        "the call took longer than {} s and was given up; the kubelet will try again",
        allowed.as_secs()
    );
    let _ = LATE.set(failure(&text));
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(left.subsec_micros()),
    };
    let once = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: the pointer is to a local value; no old value is asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, ptr::null_mut()) };
}

/// A panic answers with one Failure line and the exit code 0. The line says where the mistake is and
/// not the panic's own words: they may quote what the code was working on, a secret even. A forked
/// child ends with code 101 and without a word.
pub fn install_panic_hook(answer: RawFd) {
    let owner = getpid();
    panic::set_hook(Box::new(move |info| {
        if getpid() != owner {
            leave(PANICKED);
        }
        if !ANSWERING.swap(true, Ordering::SeqCst) {
            let place =
                info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
            let text = format!(
                "a mistake in nodeplug-flexvolume{place}, please report it; the kubelet will try again"
            );
            let line = if DONE.load(Ordering::SeqCst) { SUCCESS.to_owned() } else { failure(&text) };
            write_whole(answer, line.as_bytes());
        }
        leave(0);
    }));
}

/// Ends this process now: no destructor, no buffer, no handler of the C library.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: the call has no other effect than the end of the process.
    unsafe { libc::_exit(code) }
}

fn failure(text: &str) -> String {
    format!("{}\n", json!({"status": "Failure", "message": text}))
}

/// A handler cannot run on the stack whose end is why it was called (sigaltstack(2)). Memory that is not even zeroed
/// has no pages before a handler needs them.
fn use_handler_stack() {
    let memory = Box::leak(Box::<[u8]>::new_uninit_slice(HANDLER_STACK));
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory is never freed, and nobody else has a reference to it.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

extern "C" fn answer_and_exit(number: libc::c_int) {
    if getpid() != Pid::from_raw(OWNER.load(Ordering::SeqCst)) {
        // A child that has not got to `forget` yet.
        leave(SIGNALLED + number);
    }
    if ANSWERING.load(Ordering::SeqCst) {
        if is_a_crash(number) {
            leave(0);
        }
        return;
    }
    let usual = LINES.iter().find(|(signal, _)| *signal as i32 == number).map_or("", |(_, line)| *line);
    let late = if number == libc::SIGALRM { LATE.get().map(String::as_str) } else { None };
    let line = if DONE.load(Ordering::SeqCst) { SUCCESS } else { late.unwrap_or(usual) };
    write_whole(ANSWER.load(Ordering::SeqCst), line.as_bytes());
    leave(0);
}

/// Returning from the handler of one of these would run the same instruction again.
fn is_a_crash(number: libc::c_int) -> bool {
    matches!(number, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGABRT)
}

fn write_whole(descriptor: RawFd, line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are of one slice; a descriptor that is not open is an error.
        let written = unsafe { libc::write(descriptor, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_json_object_with_a_status_and_a_message() {
        let late = failure("the call took longer than 100 s: \"x\"");
        for line in LINES.iter().map(|(_, line)| *line).chain([late.as_str()]) {
            assert!(line.ends_with('\n'));
            assert_eq!(line.matches('\n').count(), 1);
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["status"], "Failure");
            assert!(value["message"].as_str().unwrap().len() > 20);
            assert_eq!(value.as_object().unwrap().len(), 2);
        }
    }
}
