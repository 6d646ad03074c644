//! File systems that a program serves (Documentation/filesystems/fuse/fuse.rst).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use node::{Context, Kind, Result};
use rustix::fs::{CWD, Mode, OFlags, fstatvfs, openat};

use super::workshop;

/// What is opened for each connection.
pub const DEVICE: &str = "/dev/fuse";

/// How long a child waits for one answer before its caller looks whether the program still runs.
const WAIT: Duration = Duration::from_millis(100);
/// What the kernel says where the program has closed the connection or never agreed on a protocol.
const CLOSED: [i32; 3] = [libc::ENOTCONN, libc::ECONNABORTED, libc::ECONNREFUSED];

/// A connection of its own: what a program reads the kernel's questions from. The mount that it is given to
/// is dead as soon as every copy of the descriptor is closed.
pub fn device() -> Result<OwnedFd> {
    openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing(Kind::Kernel, || format!("open `{DEVICE}`"))
        .map_err(|e| e.hint("load the module (modprobe fuse) and let the driver see the node's own /dev"))
}

/// Whether the program answers for the mount that `root` lies on. The kernel holds all questions back until the
/// program has agreed on a protocol (`FUSE_INIT`), so a child asks, for a moment at most.
pub fn answers(root: BorrowedFd<'_>, until: Instant) -> Result<bool> {
    let root = root.as_fd();
    let asked = workshop::apart(until.min(Instant::now() + WAIT), &[root], || {
        // Any other answer, be it an error, is the program's.
        let closed = fstatvfs(root).is_err_and(|e| CLOSED.contains(&e.raw_os_error()));
        Ok(vec![u8::from(!closed)])
    });
    match asked {
        Ok(answer) => Ok(answer == [1]),
        Err(error) if error.kind() == Kind::TryAgain => Ok(false),
        Err(error) => Err(error),
    }
}
