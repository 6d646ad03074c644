//! Deleting links without waiting for the kernel to bury them.
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
use super::socket::{self, Request, RouteSocket, refused};

/// More children than this queue up behind the kernel's own lock; the next caller waits itself.
const AT_ONCE: i64 = 16;
/// `RTNLGRP_LINK` in linux/rtnetlink.h.
const LINK_EVENTS: u32 = 1;
/// How long the kernel's announcement may take before the link is looked for again.
const PATIENCE: Duration = Duration::from_millis(PATIENCE_MS.unsigned_abs());
const PATIENCE_MS: i64 = 200;
/// After this long a link that is still in sight is reported; the runtime tries again.
const LIMIT: Duration = Duration::from_secs(10);

/// A link that shall go: its name and its index.
type Doomed<'a> = (&'a str, u32);

/// Deletes the links `names` of this thread's namespace, in which `socket` was opened, and returns when
/// they are gone from sight. `slots` is the file whose bytes count the children that are at work; without a
/// free one, or without a child, this call waits for the kernel itself. A link that is not there is deleted
/// already.
pub fn delete_links(socket: &mut RouteSocket, names: &[String], slots: &Path) -> Result<()> {
    let mut doomed = Vec::with_capacity(names.len());
    for name in names {
        doomed.extend(link::index(name)?.map(|index| (name.as_str(), index)));
    }
    if doomed.is_empty() {
        return Ok(());
    }
    let mut events = RouteSocket::bare(TimeVal::milliseconds(PATIENCE_MS))?;
    let ready = events.listen(LINK_EVENTS).is_ok();
    let slot = if ready { free_slot(slots) } else { None };
    match slot.and_then(|slot| start(&doomed, slot)) {
        Some(child) => wait_until_gone(socket, &mut events, doomed, child),
        None => delete_and_wait(socket, &doomed),
    }
}

/// `ip link del`, with the kernel's wait.
fn delete_and_wait(socket: &mut RouteSocket, doomed: &[Doomed]) -> Result<()> {
    let names: Vec<String> = doomed.iter().map(|(name, _)| format!("`{name}`")).collect();
    let doing = || format!("delete the link {}", names.join(" and "));
    let answers = socket.batch(requests(doomed))?;
    match answers.into_iter().flatten().find(|refusal| refusal.errno() != libc::ENODEV) {
        Some(refusal) => Err(refused(doing(), refusal)),
        None => Ok(()),
    }
}

/// One link goes by its index. Several are put into a group and go by that: the kernel then waits once for
/// all of them.
fn requests(doomed: &[Doomed]) -> Vec<Request> {
    if let [(_, index)] = doomed {
        return vec![link::delete(*index)];
    }
    let group = group(doomed);
    let mut requests: Vec<Request> =
        doomed.iter().map(|(_, index)| link::set_group_index(*index, group)).collect();
    requests.push(link::delete_group(group));
    requests
}

/// A group of this call's own (FNV-1a of the names, which are hashes of the owner). With the top bit it is
/// none that a person or a distribution numbers; what another call puts there at the same time goes anyway.
fn group(doomed: &[Doomed]) -> u32 {
    let bytes = doomed.iter().flat_map(|(name, _)| name.bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) | 1 << 31
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
fn start(doomed: &[Doomed], slot: File) -> Option<Pid> {
    // SAFETY: this process has one thread, so the child may use the allocator and every lock in it.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            // The child's descriptor now holds the slot alone.
            drop(slot);
            Some(child)
        }
        Ok(ForkResult::Child) => {
            let code = i32::from(reap(doomed).is_err());
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
fn reap(doomed: &[Doomed]) -> Result<()> {
    let _ = setsid();
    for descriptor in 0..=2 {
        // SAFETY: the child uses none of the three again; a descriptor that is closed already is EBADF.
        unsafe { libc::close(descriptor) };
    }
    delete_and_wait(&mut RouteSocket::bare(socket::PATIENCE)?, doomed)
}

/// Goes on until every link was announced as gone, or is not found any more.
fn wait_until_gone(
    socket: &mut RouteSocket,
    events: &mut RouteSocket,
    mut doomed: Vec<Doomed>,
    child: Pid,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if !announced(events, &mut doomed)? {
            let mut left = Vec::new();
            for (name, index) in doomed {
                if link::index(name)? == Some(index) {
                    left.push((name, index));
                }
            }
            doomed = left;
        }
        if doomed.is_empty() {
            return Ok(());
        }
        // A child that ended with a link still in sight was killed, or met an error that this
        // process can report.
        if !matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
            break;
        }
    }
    delete_and_wait(socket, &doomed)
}

/// Waits a little for the announcements, past every other event, and takes each announced link off: looking
/// for the links themselves would queue up behind the deletion. Whether none is left.
fn announced(events: &mut RouteSocket, doomed: &mut Vec<Doomed>) -> Result<bool> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let Some(messages) = events.heard()? else { return Ok(false) };
        let gone = messages.iter().filter(|m| matches!(m, RouteNetlinkMessage::DelLink(_)));
        for link in gone.filter_map(link::described) {
            doomed.retain(|(_, index)| *index != link.index);
        }
        if doomed.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_link_goes_by_its_index_and_several_by_a_group_of_their_own() {
        assert_eq!(requests(&[("a", 7)]).len(), 1);
        assert_eq!(requests(&[("a", 7), ("b", 8)]).len(), 3);
        let (one, other) = (group(&[("a", 7), ("b", 8)]), group(&[("a", 7), ("c", 9)]));
        assert_ne!(one, other);
        assert_eq!((one >> 31, other >> 31), (1, 1));
    }
}
