//! What Rust's start-up does for a process that it is in charge of, and this one still needs.

use std::fs::OpenOptions;
use std::os::fd::{BorrowedFd, IntoRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};

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
