//! A private mount namespace in a child process, in which a file system is made before anybody sees it;
//! and a plain child for a call that may hang.
//!
//! Whatever asks a network or FUSE server may sit in the kernel where no signal wakes it. Here a child
//! sits there, and this process answers its caller in time. The child and its helpers die with this
//! process; a child that cannot die keeps the locks that it inherited, and its mounts are in a namespace
//! that ends with it.
//!
//! The process that forks must have one thread: in a child of a process with more, another thread's
//! locks stay locked for ever (fork(2)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, setpgid};
use node::{Context, Error, Kind, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::{crash, process};

/// The folder of the workshop's own tmpfs in which the work is done.
const BENCH: &str = "mnt";
/// What the child keeps of the time, so that its error arrives before this process gives it up.
const MARGIN: Duration = Duration::from_millis(1500);
/// How long a killed child may take to end.
const DYING: Duration = Duration::from_secs(1);
/// The longest message from the child; a socket takes twice as much by default (net.core.wmem_default).
const LONGEST: usize = 64 << 10;
const DONE: u8 = b'+';
const MET: u8 = b'-';

/// What the work hands back: a descriptor, and bytes that the caller understands.
pub type Made = (OwnedFd, Vec<u8>);

/// Runs `work` in a child with a mount namespace of its own, where it may mount onto the empty folder
/// that it is given (below a tmpfs over `stage`, which only the child sees), and brings back the
/// descriptor that it made, usually a detached copy of that mount (open_tree(2)), which outlives the
/// namespace. Mounts of the node arrive in the namespace and leave it again; what is mounted there never
/// gets out.
///
/// The child keeps `keep` (locks, and what `work` uses) under the same numbers and no other descriptor.
/// `work` must not drop the owner of one that it does not keep. It gets a deadline of its own, a little
/// earlier than `deadline`. A child that runs into `deadline` is killed with its helpers, and is
/// [`Kind::TryAgain`]. A daemon that `work` starts stays; it is the caller's to end when this fails.
pub fn build<F>(stage: &Path, deadline: Instant, keep: &[BorrowedFd<'_>], work: F) -> Result<Made>
where
    F: FnOnce(&Path, Instant) -> Result<Made>,
{
    let own = own_deadline(deadline);
    let (descriptor, bytes) = in_a_child(deadline, keep, || {
        furnish(stage)?;
        let (descriptor, bytes) = work(&stage.join(BENCH), own)?;
        Ok((Some(descriptor), bytes))
    })?;
    match descriptor {
        Some(descriptor) => Ok((descriptor, bytes)),
        None => Err(Error::new(Kind::Internal, "receive the descriptor of what a child made")),
    }
}

/// The same for `work` that makes nothing but a daemon, which lives on in the namespace, and brings back its
/// bytes.
pub fn settle<F>(stage: &Path, deadline: Instant, keep: &[BorrowedFd<'_>], work: F) -> Result<Vec<u8>>
where
    F: FnOnce(&Path, Instant) -> Result<Vec<u8>>,
{
    let own = own_deadline(deadline);
    let made = in_a_child(deadline, keep, || {
        furnish(stage)?;
        Ok((None, work(&stage.join(BENCH), own)?))
    });
    made.map(|(_, bytes)| bytes)
}

/// Runs `work`, which may hang, in a child in this process's own namespaces, and brings back its bytes.
/// For the rest, see [`build`].
pub fn apart<F>(deadline: Instant, keep: &[BorrowedFd<'_>], work: F) -> Result<Vec<u8>>
where
    F: FnOnce() -> Result<Vec<u8>>,
{
    in_a_child(deadline, keep, || Ok((None, work()?))).map(|(_, bytes)| bytes)
}

type Message = (Option<OwnedFd>, Vec<u8>);

fn own_deadline(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline.checked_sub(MARGIN.min(left / 4)).unwrap_or(deadline)
}

/// Makes the mount namespace and the empty folder in it.
fn furnish(stage: &Path) -> Result<()> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .doing(Kind::Kernel, || "make a private mount namespace".to_owned())
        .map_err(|e| e.hint("run as root or grant CAP_SYS_ADMIN"))?;
    // Slave and not private: an unmount on the node must not be held up by a copy in here.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)
        .doing(Kind::Kernel, || "keep mounts inside the namespace".to_owned())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("nodeplug-stage"), stage, Some("tmpfs"), flags, Some("mode=0700,size=64k"))
        .doing(Kind::Kernel, || format!("mount a private tmpfs over `{}`", stage.display()))?;
    let bench = stage.join(BENCH);
    std::fs::create_dir(&bench).doing(Kind::Io, || format!("make the folder `{}`", bench.display()))
}

fn in_a_child<F>(deadline: Instant, keep: &[BorrowedFd<'_>], work: F) -> Result<Message>
where
    F: FnOnce() -> Result<Message>,
{
    let doing = || "start a child".to_owned();
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)
            .doing(Kind::Kernel, doing)?;
    let parent = getpid();
    // SAFETY: this process has one thread, so the child may call anything; it never returns from `serve`.
    match unsafe { fork() }.doing(Kind::Kernel, doing)? {
        ForkResult::Child => serve(parent, &theirs, keep, work),
        ForkResult::Parent { child } => {
            drop(theirs);
            let _ = setpgid(child, child);
            answer_of(child, &ours, deadline)
        }
    }
}

/// The child's life.
fn serve<F>(parent: Pid, socket: &OwnedFd, keep: &[BorrowedFd<'_>], work: F) -> !
where
    F: FnOnce() -> Result<Message>,
{
    crash::forget();
    let own = Pid::from_raw(0);
    if setpgid(own, own).is_err() || process::follow(parent).is_err() {
        crash::leave(1);
    }
    let kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).chain([socket.as_raw_fd()]).collect();
    process::close_all_but(&kept);
    // The profile of the product aborts on a panic; elsewhere it must not unwind into the parent's code.
    let sent = catch_unwind(AssertUnwindSafe(|| match work() {
        Ok((_, bytes)) if bytes.len() > LONGEST => {
            let error = Error::new(Kind::Internal, format!("send {} bytes from a child", bytes.len()));
            send(socket, MET, &error.encode(), None)
        }
        Ok((descriptor, bytes)) => send(socket, DONE, &bytes, descriptor.as_ref()),
        Err(error) => send(socket, MET, &error.encode(), None),
    }));
    crash::leave(i32::from(!matches!(sent, Ok(Ok(())))))
}

/// The parent's part: one message before the deadline, and no child left.
fn answer_of(child: Pid, socket: &OwnedFd, deadline: Instant) -> Result<Message> {
    let answer = if process::readable_by(&[socket.as_fd()], deadline) { receive(socket) } else { None };
    let answered = answer.is_some();
    // Who has answered only has to exit; who closed the socket without a word is gone already.
    let dying = if answered { Instant::now() + DYING } else { deadline };
    let status = end(child, dying);
    match (answer, status) {
        (Some((DONE, bytes, descriptor)), _) => Ok((descriptor, bytes)),
        (Some((_, bytes, _)), _) => Err(Error::decode(&bytes)),
        (None, Some(status)) if Instant::now() < deadline => Err(ended(status)),
        (None, status) => Err(late(status.is_some())),
    }
}

/// Waits for the child until `deadline`, then kills it and its group, and reaps it: no zombie stays.
/// `None` where the kernel does not let it end.
pub(super) fn end(child: Pid, deadline: Instant) -> Option<WaitStatus> {
    if !process::ends_by(child, deadline) {
        let _ = killpg(child, Signal::SIGKILL);
        let _ = kill(child, Signal::SIGKILL);
        if !process::ends_by(child, Instant::now() + DYING) {
            return None;
        }
    }
    waitpid(child, None).ok()
}

pub(super) fn ended(status: WaitStatus) -> Box<Error> {
    let how = match status {
        WaitStatus::Signaled(_, signal, _) => format!("it ended with {signal}"),
        WaitStatus::Exited(_, code) => format!("it exited with code {code}"),
        _ => "it is gone".to_owned(),
    };
    Error::caused(Kind::Internal, "wait for a child's answer", how)
}

pub(super) fn late(gone: bool) -> Box<Error> {
    let how = if gone {
        "no answer in time, so it was ended"
    } else {
        "no answer in time, and the kernel does not let it end; it keeps its lock"
    };
    Error::caused(Kind::TryAgain, "wait for a child's answer", how)
        .hint("check that the server or disk behind the volume answers")
}

fn send(socket: &OwnedFd, tag: u8, bytes: &[u8], descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = descriptor.map(|d| [d.as_fd()]);
    if let Some(rights) = &rights
        && !ancillary.push(SendAncillaryMessage::ScmRights(rights))
    {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let parts = [IoSlice::new(std::slice::from_ref(&tag)), IoSlice::new(bytes)];
    rustix::net::sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The child's one message: its tag, its bytes, its descriptor. `None` where it ended without one.
fn receive(socket: &OwnedFd) -> Option<(u8, Vec<u8>, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; LONGEST + 1];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags).ok()?.bytes;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    bytes.truncate(length);
    let (tag, rest) = bytes.split_first()?;
    Some((*tag, rest.to_vec(), descriptor))
}
