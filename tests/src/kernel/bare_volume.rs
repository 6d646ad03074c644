//! The driver's system calls of a tmpfs mount in the driver's order, and nothing between them: the floor of
//! the benchmark.
//!
//! Nothing is parsed, hashed or checked here. Whoever changes what the driver asks of the kernel changes it
//! here, too: `bench flexvolume` compares both.

use std::fs::{self, File, OpenOptions};
use std::hash::RandomState;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::stat::{Mode as Permissions, umask};
use nix::unistd::{dup2_stderr, dup2_stdout, getpid};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, move_mount,
};

/// Where the floor's locks and records lie, as deep as the driver's.
pub const STATE: &str = "/run/nodeplug/bare-volume";

const POLICY_FOLDER: &str = "/etc/nodeplug";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Where the kubelet keeps its pods.
pub const ROOT: &str = "/var/lib/kubelet";
const LOCK: &str = "/run/nodeplug/bare-volume/locks/t-3c950ae41019f16c94124b70146b80d3";
/// The record of the floor's one volume.
pub const RECORD: &str = "/run/nodeplug/bare-volume/volumes/3c950ae41019f16c94124b70146b80d3.json";
const NEW_RECORD: &str = "/run/nodeplug/bare-volume/volumes/.3c950ae41019f16c94124b70146b80d3.json.new";
/// As long as the driver's record of such a volume.
const CONTENT: [u8; 574] = [b' '; 574];
const PARAMETERS: [(&str, &str); 6] = [
    ("source", "tmpfs"),
    ("size", "16777216"),
    ("nr_inodes", "1000000"),
    ("mode", "770"),
    ("uid", "0"),
    ("gid", "0"),
];
const SIGNALS: [Signal; 12] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGALRM,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
];
const HANDLER_STACK: usize = 32 << 10;
/// Where the answer's descriptor goes, out of the way of the others.
const ABOVE_STANDARD: i32 = 10;

extern "C" fn handler(_: libc::c_int) {}

/// What a driver does about itself before it looks at its call; the answer's descriptor.
pub fn prepare() -> io::Result<OwnedFd> {
    let ignored = SigAction::new(SigHandler::SigIgn, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: ignoring a signal installs no handler.
    unsafe { sigaction(Signal::SIGPIPE, &ignored) }?;
    // SAFETY: a number that is not open makes poll report it.
    let standard = [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) });
    poll(&mut standard.map(|descriptor| PollFd::new(descriptor, PollFlags::empty())), PollTimeout::ZERO)?;
    nix::sys::prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    umask(Permissions::from_bits_truncate(0o077));
    let answer = rustix::io::fcntl_dupfd_cloexec(io::stdout(), ABOVE_STANDARD)?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    answer_signals();
    Ok(answer)
}

fn answer_signals() {
    getpid();
    let memory = Box::leak(vec![0_u8; HANDLER_STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory is never freed, and nobody else has a reference to it.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::Handler(handler), flags, SigSet::all());
    for signal in SIGNALS {
        // SAFETY: the handler does nothing.
        let _ = unsafe { sigaction(signal, &action) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    getpid();
}

/// A tmpfs at `folder`, a path relative to the kubelet's root.
pub fn mount(folder: &Path) -> io::Result<()> {
    let no_policy = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    drop(openat(CWD, POLICY_FOLDER, no_policy, Mode::empty()));
    // A hash map asks for randomness.
    black_box(RandomState::new());
    set_alarm();
    let lock = lock()?;
    let target = target(folder)?;
    write_record()?;
    let tree = tmpfs()?;
    restrict(&tree)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, c"", &target, c"", flags)?;
    drop(tree);
    is_named(&lock)?;
    fs::remove_file(LOCK)
}

fn lock() -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.custom_flags(libc::O_NOFOLLOW).open(LOCK)?;
    lock.try_lock()?;
    is_named(&lock)?;
    Ok(lock)
}

/// Whether the lock is still the file of its name is asked before it is used and before it is removed.
fn is_named(lock: &File) -> io::Result<()> {
    lock.metadata()?;
    fs::symlink_metadata(LOCK).map(drop)
}

fn set_alarm() {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let once = libc::itimerval { it_interval: never, it_value: libc::timeval { tv_sec: 100, tv_usec: 0 } };
    // SAFETY: the pointer is to a local value; no old value is asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, std::ptr::null_mut()) };
}

fn target(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, ROOT, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let target = openat2(&root, folder, flags, Mode::empty(), resolve)?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    statx(&target, c"", flags, StatxFlags::empty())?;
    Ok(target)
}

/// None is there yet; it is written beside its place and renamed.
fn write_record() -> io::Result<()> {
    drop(File::open(RECORD));
    read(BOOT_ID)?;
    let mut options = OpenOptions::new();
    let mut record = options.write(true).create(true).truncate(true).mode(0o600).open(NEW_RECORD)?;
    record.write_all(&CONTENT)?;
    fs::rename(NEW_RECORD, RECORD)
}

fn tmpfs() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in PARAMETERS {
        fsconfig_set_string(&context, name, value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn read(path: &str) -> io::Result<usize> {
    // With a limit, std does not ask for the file's size.
    File::open(path)?.take(1 << 20).read_to_end(&mut Vec::with_capacity(1024))
}

/// nosuid and nodev. libc has no name for mount_setattr(2)'s structure.
fn restrict(tree: &OwnedFd) -> io::Result<()> {
    const NOSUID_NODEV: u64 = 6;
    let attributes = [NOSUID_NODEV, 0, 0, 0];
    // SAFETY: the path is a NUL-terminated constant, and the four numbers, which are version 0 of the
    // structure, live across the call with the size that is given for them.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
