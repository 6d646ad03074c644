//! Takes mounts away, one layer at a time (umount(2)).

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use node::{Context, Error, Kind, Result, mountinfo};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::kernel::errand;

/// How hard an unmount tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Only when nobody uses it.
    Plain,
    /// Requests to a server or daemon that does not answer are given up (`MNT_FORCE`).
    Force,
    /// Out of sight at once; the file system ends when its last user does (`MNT_DETACH`).
    Lazy,
}

/// Unmounts the topmost mount at `name` in the folder `parent`, and never what a symlink points to.
/// `Ok(false)`: nothing is mounted there, or the name is missing. [`Kind::TryAgain`]: it is in use.
///
/// The folder is reached through its descriptor; the process's working directory stays what it is, and
/// so keeps no mount busy.
pub fn detach(parent: BorrowedFd<'_>, name: &OsStr, how: How) -> Result<bool> {
    let path = path(parent, name)?;
    told(unmount(&path, flags(how)), name)
}

/// The same where it may hang: in a child, which keeps `keep` and is given up at `deadline` ([`Kind::TryAgain`]).
pub fn detach_apart(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    how: How,
    deadline: Instant,
    keep: &[BorrowedFd<'_>],
) -> Result<bool> {
    let (path, flags) = (path(parent, name)?, flags(how));
    let keep: Vec<BorrowedFd<'_>> = keep.iter().copied().chain([parent]).collect();
    // SAFETY: the path ends with a zero already, so that rustix makes the one call and no copy.
    let outcome = unsafe { errand::run(deadline, &keep, &|| unmount(path.as_c_str(), flags)) }?;
    told(outcome, name)
}

/// The way to the mount that leads through the open folder alone.
fn path(parent: BorrowedFd<'_>, name: &OsStr) -> Result<CString> {
    let shown = name.to_string_lossy();
    if name.is_empty() || name.as_bytes().contains(&b'/') || name == "." || name == ".." {
        return Err(Error::new(
            Kind::Internal,
            format!("unmount `{shown}`, which is not a name in a folder"),
        ));
    }
    let mut path = super::magic_path(parent).into_bytes();
    path.push(b'/');
    path.extend_from_slice(name.as_bytes());
    CString::new(path).doing(Kind::Internal, || format!("unmount `{shown}`"))
}

fn flags(how: How) -> UnmountFlags {
    let flags = match how {
        How::Plain => UnmountFlags::empty(),
        How::Force => UnmountFlags::FORCE,
        How::Lazy => UnmountFlags::DETACH,
    };
    flags | UnmountFlags::NOFOLLOW
}

fn told(outcome: rustix::io::Result<()>, name: &OsStr) -> Result<bool> {
    let doing = || format!("unmount `{}`", name.to_string_lossy());
    match outcome {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(e @ Errno::BUSY) => Err(io::Error::from(e)).doing(Kind::TryAgain, doing),
        Err(e) => Err(io::Error::from(e)).doing(Kind::Kernel, doing),
    }
}

/// Detaches every mount below the folder `root` from this process's mount namespace, which must be one of its
/// own. What lies below another one goes with that.
pub fn detach_all_below(root: &Path) -> Result<()> {
    let mounts = mountinfo::read()?;
    let below: Vec<_> = mountinfo::below(&mounts, root).collect();
    for mount in below.iter().filter(|m| below.iter().all(|other| other.id != m.parent)) {
        match unmount(mount.point.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // It has gone on the node meanwhile.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => {
                return Err(io::Error::from(e))
                    .doing(Kind::Kernel, || format!("let go of the mount at `{}`", mount.point.display()));
            }
        }
    }
    Ok(())
}
