//! System calls that no safe wrapper has.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};

/// Whether an open file is a network namespace (ioctl_nsfs(2), `NS_GET_NSTYPE`).
pub(crate) fn is_network_namespace(file: &File) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument; of an nsfs file it only returns the namespace's type, and
    // the caller opens no device that could mean something else by the number.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// A file that grows over the limit of the process (RLIMIT_FSIZE) is an error of the write from here on, and not
/// the end of the process, unless somebody has another use for the signal.
pub(crate) fn survive_full_files() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal installs no handler.
    let Ok(before) = (unsafe { sigaction(Signal::SIGXFSZ, &ignore) }) else { return };
    if !matches!(before.handler(), SigHandler::SigDfl | SigHandler::SigIgn) {
        // SAFETY: it was this signal's handler a moment ago.
        let _ = unsafe { sigaction(Signal::SIGXFSZ, &before) };
    }
}

/// What Rust's start-up does for a process that it is in charge of, and a program with a `main` of its own
/// still needs.
///
/// Makes writing to a closed pipe an error and not a signal, and gives a caller that closed one of the
/// first three descriptors `/dev/null` in its place: a file or socket of ours must not get the number
/// that the answer is written to.
pub fn adopt() {
    // SAFETY: ignoring a signal installs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    // SAFETY: a number that is not open makes poll report it, which is the question.
    let standard = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    let mut asked = standard.map(|descriptor| PollFd::new(descriptor, PollFlags::empty()));
    if poll(&mut asked, PollTimeout::ZERO).is_err() {
        return;
    }
    let closed = |p: &PollFd<'_>| p.revents().is_some_and(|r| r.contains(PollFlags::POLLNVAL));
    for _ in asked.iter().filter(|p| closed(p)) {
        // The lowest free number is one of the three, and stays open for the life of the process.
        let _ = OpenOptions::new().read(true).write(true).open("/dev/null").map(IntoRawFd::into_raw_fd);
    }
}
