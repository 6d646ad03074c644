//! System calls that no safe wrapper has.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Whether an open file is a network namespace (ioctl_nsfs(2), `NS_GET_NSTYPE`).
pub(crate) fn is_network_namespace(file: &File) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument; of an nsfs file it only returns the namespace's type, and
    // the caller opens no device that could mean something else by the number.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}
