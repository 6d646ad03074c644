//! What a mount forbids, whom it shows what it contains, and to whom it belongs there
//! (mount_setattr(2)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid};
use node::{Context, Error, Kind, Result};
use rustix::io::Errno;

use super::Tree;
use crate::kernel::{crash, process};

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const IDMAP: u64 = 0x0010_0000;
const NOSYMFOLLOW: u64 = 0x0020_0000;

/// `struct mount_attr` of linux/mount.h, version 0.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// How mounts below a mount travel to and from its copies (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// From the original to the copy.
    Slave,
    /// Both ways.
    Shared,
}

/// What is added to a mount. What is `false` or `None` stays as it is: a clone keeps the restrictions of
/// its source.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "the fields are what mount(8) calls them")]
pub struct Attributes<'a> {
    pub read_only: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
    pub strictatime: bool,
    pub nodiratime: bool,
    pub nosymfollow: bool,
    /// How mounts below it travel.
    pub propagation: Option<Propagation>,
    /// The user namespace (see [`user_namespace`]) whose map says whose the files look.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// Adds `attributes` to the mount, and with `recursive` to all mounts below it, in one step. An id map
/// needs a tree that is nowhere yet.
pub fn set_attributes(tree: &Tree, attributes: &Attributes<'_>, recursive: bool) -> Result<()> {
    let attr = wanted(attributes);
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is a NUL-terminated constant, and the structure lives across the call with the
    // size that is given for it.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if code == 0 {
        return Ok(());
    }
    let cause = io::Error::last_os_error();
    let unmappable = attributes.idmap.is_some() && cause.raw_os_error() == Some(libc::EINVAL);
    let error = Error::caused(Kind::Kernel, "restrict the mount", cause);
    Err(if unmappable {
        error.hint("this file system, on this kernel, cannot show other owners: leave the id map out")
    } else {
        error
    })
}

fn wanted(attributes: &Attributes<'_>) -> MountAttr {
    let switches = [
        (attributes.read_only, RDONLY),
        (attributes.nosuid, NOSUID),
        (attributes.nodev, NODEV),
        (attributes.noexec, NOEXEC),
        (attributes.noatime, NOATIME),
        (attributes.strictatime && !attributes.noatime, STRICTATIME),
        (attributes.nodiratime, NODIRATIME),
        (attributes.nosymfollow, NOSYMFOLLOW),
        (attributes.idmap.is_some(), IDMAP),
    ];
    MountAttr {
        set: switches.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
        // The kinds of access time are one number and not bits of their own.
        clear: if attributes.noatime || attributes.strictatime { ATIME } else { 0 },
        propagation: match attributes.propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Shared) => libc::MS_SHARED,
        },
        user_namespace: attributes.idmap.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    }
}

/// A user namespace that exists for its maps alone, with the lines of user_namespaces(7): "what lies on
/// disk" "what is seen" "how many". It lives as long as its descriptor.
pub fn user_namespace(uid_map: &str, gid_map: &str) -> Result<OwnedFd> {
    let doing = || "make a user namespace for the id map".to_owned();
    let child = start_in_user_namespace().doing(Kind::Kernel, doing).map_err(|e| {
        e.hint("user namespaces must be allowed on the node: see the sysctl user.max_user_namespaces")
    })?;
    let opened = map(child.0, uid_map, gid_map);
    drop(child);
    opened.doing(Kind::Kernel, doing)
}

fn map(child: Pid, uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    fs::write(format!("/proc/{child}/uid_map"), uid_map)?;
    fs::write(format!("/proc/{child}/gid_map"), gid_map)?;
    Ok(fs::File::open(format!("/proc/{child}/ns/user"))?.into())
}

/// A stopped child, killed and reaped when it is not needed any more.
struct Child(Pid);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        while waitpid(self.0, None) == Err(nix::errno::Errno::EINTR) {}
    }
}

/// A child that has made itself a user namespace and stopped.
fn start_in_user_namespace() -> io::Result<Child> {
    let parent = getpid();
    // SAFETY: the child only makes system calls, which is what a fork of a process with threads may do.
    let child = match unsafe { fork() }? {
        ForkResult::Child => be_in_user_namespace(parent),
        ForkResult::Parent { child } => Child(child),
    };
    loop {
        match waitpid(child.0, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => return Ok(child),
            Err(nix::errno::Errno::EINTR) => {}
            ended => {
                // It is reaped: its number may be another's by now.
                std::mem::forget(child);
                return Err(match ended {
                    Ok(WaitStatus::Exited(_, errno)) => io::Error::from_raw_os_error(errno),
                    _ => Errno::CHILD.into(),
                });
            }
        }
    }
}

fn be_in_user_namespace(parent: Pid) -> ! {
    // A parent that was killed meanwhile would let it stand still for ever, with the locks of the call.
    if process::follow(parent).is_err() {
        crash::leave(0);
    }
    process::close_all_but(&[]);
    // SAFETY: system calls with plain numbers; the process ends here and runs no destructor.
    unsafe {
        if libc::unshare(libc::CLONE_NEWUSER) != 0 {
            libc::_exit(*libc::__errno_location());
        }
        // Not kill(2): a filter that answers getpid(2) with -1 would make it stop every process of the node.
        libc::raise(libc::SIGSTOP);
        libc::_exit(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_added_and_only_the_access_time_is_replaced() {
        let none = wanted(&Attributes::default());
        assert_eq!((none.set, none.clear, none.propagation), (0, 0, 0));
        let all = wanted(&Attributes {
            read_only: true,
            nosuid: true,
            nodev: true,
            noexec: true,
            noatime: true,
            strictatime: true,
            nodiratime: true,
            nosymfollow: true,
            propagation: Some(Propagation::Slave),
            idmap: None,
        });
        assert_eq!((all.set, all.clear, all.propagation), (0x0020_009f, 0x70, 1 << 19));
    }
}
