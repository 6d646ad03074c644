//! One system call that may hang, in a child that shares this process's memory.
//!
//! A `workshop` is a copy of this process, and every page that either of the two writes to while
//! it lives is copied as well: a third of a millisecond, which is more than most unmounts take. Sharing the memory
//! costs a tenth of that, and leaves room for nothing but system calls.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, getpid};
use node::{Context, Kind, Result};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::{process, workshop};

/// Enough for a few calls without a handler's frame.
const STACK: usize = 32 << 10;
/// What the stack's end is a multiple of, on every processor.
const ALIGNMENT: usize = 16;
/// The exit code of a child whose parent is gone; no errno is as large.
const ORPHAN: c_int = 255;

/// What the child goes by.
struct Errand<'a> {
    parent: Pid,
    foreign: Vec<(RawFd, RawFd)>,
    call: &'a dyn Fn() -> rustix::io::Result<()>,
}

/// Makes `call` in a child, and waits for it until `deadline`; a child that is still at it then is killed, and is
/// [`Kind::TryAgain`]. The child keeps `keep` (locks, and what `call` uses) under the same numbers, and no other
/// descriptor but the standard three. It dies with this process, and hears no other signal.
///
/// # Safety
///
/// `call` makes system calls by rustix, which leaves the C library's errno alone, and nothing else: it takes no
/// memory, gives none back, and does not panic.
pub(super) unsafe fn run(
    deadline: Instant,
    keep: &[BorrowedFd<'_>],
    call: &dyn Fn() -> rustix::io::Result<()>,
) -> Result<rustix::io::Result<()>> {
    let kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    let errand = Box::new(Errand { parent: getpid(), foreign: process::all_but(&kept), call });
    let mut stack = Box::<[u8]>::new_uninit_slice(STACK);
    let child = start(&errand, &mut stack).doing(Kind::Kernel, || "start a child".to_owned())?;
    match workshop::end(child, deadline) {
        Some(WaitStatus::Exited(_, 0)) => Ok(Ok(())),
        Some(WaitStatus::Exited(_, code)) if code != ORPHAN => Ok(Err(Errno::from_raw_os_error(code))),
        Some(status) if Instant::now() < deadline => Err(workshop::ended(status)),
        Some(_) => Err(workshop::late(true)),
        None => {
            // It is in the kernel, and killed: it will not come back to its stack. Still, that is not given to others.
            std::mem::forget((errand, stack));
            Err(workshop::late(false))
        }
    }
}

/// The child's signals are blocked: a handler of this process's would answer in its place.
fn start(errand: &Errand<'_>, stack: &mut [MaybeUninit<u8>]) -> nix::Result<Pid> {
    let end = stack.as_mut_ptr_range().end;
    let top = end.wrapping_sub(end.addr() % ALIGNMENT);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let pinned = stay();
    let argument = std::ptr::from_ref(errand).cast_mut().cast::<c_void>();
    // SAFETY: the stack and the errand outlive the child, or are never given back; `live` takes an `Errand`, and
    // writes to nothing but its stack.
    let child = unsafe { libc::clone(live, top.cast(), libc::CLONE_VM | libc::SIGCHLD, argument) };
    let started = nix::errno::Errno::result(child);
    if let Some(before) = pinned {
        let _ = sched_setaffinity(None, &before);
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    started.map(Pid::from_raw)
}

/// Keeps what is started now on this processor, which is about to be free, since this process waits. Another one would
/// have to be woken first, or be at work: on a busy node that is most of what a child takes. Gives where this
/// process may run otherwise.
fn stay() -> Option<CpuSet> {
    let before = sched_getaffinity(None).ok()?;
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).ok().map(|()| before)
}

/// The child's life; what it returns is its exit code.
extern "C" fn live(errand: *mut c_void) -> c_int {
    // SAFETY: `start` has passed an `Errand`, to which nobody writes.
    let errand = unsafe { &*errand.cast_const().cast::<Errand<'_>>() };
    if process::follow(errand.parent).is_err() {
        return ORPHAN;
    }
    process::close_all(&errand.foreign);
    match (errand.call)() {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn the_kernels_answer_comes_back() {
        let file = File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        // SAFETY: the calls are rustix's, and the descriptor is open as long as they are made.
        let look = || rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) }).map(drop);
        let later = Instant::now() + LONG;
        let processors = sched_getaffinity(None).unwrap();
        // SAFETY: fstat(2) alone.
        let kept = unsafe { run(later, &[file.as_fd()], &look) }.unwrap();
        assert_eq!(kept, Ok(()));
        // SAFETY: the same.
        let closed = unsafe { run(later, &[], &look) }.unwrap();
        assert_eq!(closed, Err(Errno::BADF));
        assert_eq!(look(), Ok(()), "the child has descriptors of its own");
        assert_eq!(sched_getaffinity(None).unwrap(), processors);
    }

    #[test]
    fn one_that_hangs_is_given_up() {
        let begun = Instant::now();
        let hang = || rustix::event::poll(&mut [], None).map(drop);
        // SAFETY: poll(2) alone.
        let error = unsafe { run(begun + Duration::from_millis(50), &[], &hang) }.unwrap_err();
        assert_eq!(error.kind(), Kind::TryAgain);
        assert!(begun.elapsed() < LONG);
    }
}
