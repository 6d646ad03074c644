//! Deleting a link without waiting for the kernel to bury it.
//!
//! RTM_DELLINK takes the link out of sight within a millisecond, then waits tens of milliseconds for an
//! RCU barrier before it acknowledges. A child process sends the request and does the waiting; this
//! process returns when the kernel announces that the link is gone.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use node::Result;

use super::link;
use super::socket::{self, RouteSocket, refused};

/// More children than this queue up behind the kernel's own lock; the next caller waits itself.
const AT_ONCE: i64 = 16;
/// `RTNLGRP_LINK` in linux/rtnetlink.h.
const LINK_EVENTS: u32 = 1;
/// How long the kernel's announcement may take before the link is looked for again.
const PATIENCE: Duration = Duration::from_millis(PATIENCE_MS.unsigned_abs());
const PATIENCE_MS: i64 = 200;
/// After this long a link that is still in sight is reported; the runtime tries again.
const LIMIT: Duration = Duration::from_secs(10);

/// Deletes the link `name` of this thread's namespace, in which `socket` was opened, and returns when it is
/// gone from sight. `slots` is the file whose bytes
/// count the children that are at work; without a free one, or without a child, this call waits for
/// the kernel itself. A link that is not there is deleted already.
pub fn delete_link(socket: &mut RouteSocket, name: &str, slots: &Path) -> Result<()> {
    let Some(index) = link::index(name)? else { return Ok(()) };
    let mut events = RouteSocket::bare(TimeVal::milliseconds(PATIENCE_MS))?;
    let ready = events.listen(LINK_EVENTS).is_ok();
    let slot = if ready { free_slot(slots) } else { None };
    match slot.and_then(|slot| start(index, slot)) {
        Some(child) => wait_until_gone(socket, &mut events, name, index, child),
        None => delete_and_wait(socket, name, index),
    }
}

/// `ip link del`, with the kernel's wait.
fn delete_and_wait(socket: &mut RouteSocket, name: &str, index: u32) -> Result<()> {
    let doing = || format!("delete the link `{name}`");
    match socket.batch(vec![link::delete(index)])?.pop().flatten() {
        Some(refusal) if refusal.errno() != libc::ENODEV => Err(refused(doing(), refusal)),
        _ => Ok(()),
    }
}

/// Takes one byte of the slots file for as long as the descriptor lives. Open file description locks
/// stay with the child that inherits the descriptor and end with it, however it ends (fcntl(2)).
fn free_slot(slots: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(slots)
        .ok()?;
    let free = (0..AT_ONCE).any(|byte| {
        let lock = libc::flock {
            l_type: libc::c_short::try_from(libc::F_WRLCK).unwrap_or_default(),
            l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).is_ok()
    });
    free.then_some(file)
}

/// Starts the child that deletes and waits.
fn start(index: u32, slot: File) -> Option<Pid> {
    // SAFETY: this process has one thread, so the child may use the allocator and every lock in it.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            // The child's descriptor now holds the slot alone.
            drop(slot);
            Some(child)
        }
        Ok(ForkResult::Child) => {
            let code = i32::from(reap(index).is_err());
            drop(slot);
            // SAFETY: _exit ends the child at once and runs nothing of the parent's.
            unsafe { libc::_exit(code) }
        }
        Err(_) => None,
    }
}

/// The child's work. The runtime reads our pipes to their end: the child must not hold them. Its own
/// session keeps it alive when the runtime kills the caller's process group. Descriptors other than
/// the pipes stay open on purpose: closing the nfnetlink socket is one of the waits it takes over.
fn reap(index: u32) -> Result<()> {
    let _ = setsid();
    for descriptor in 0..=2 {
        // SAFETY: the child uses none of the three again; a descriptor that is closed already is EBADF.
        unsafe { libc::close(descriptor) };
    }
    delete_and_wait(&mut RouteSocket::bare(socket::PATIENCE)?, "", index)
}

fn wait_until_gone(
    socket: &mut RouteSocket,
    events: &mut RouteSocket,
    name: &str,
    index: u32,
    child: Pid,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if announced(events, index)? || link::index(name)? != Some(index) {
            return Ok(());
        }
        // A child that ended with the link still in sight was killed, or met an error that this
        // process can report.
        if !matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
            break;
        }
    }
    delete_and_wait(socket, name, index)
}

/// Waits a little for the announcement, past every other event: looking for the link itself would queue
/// up behind the deletion.
fn announced(events: &mut RouteSocket, index: u32) -> Result<bool> {
    let gone = |m: &RouteNetlinkMessage| {
        matches!(m, RouteNetlinkMessage::DelLink(_)) && link::described(m).is_some_and(|l| l.index == index)
    };
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match events.heard()? {
            Some(messages) if messages.iter().any(gone) => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
    }
    Ok(false)
}
