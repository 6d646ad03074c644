//! The driver's system calls in the driver's order, and nothing between them: the floor of the benchmark.
//!
//! Nothing is parsed, hashed or checked here. Whoever changes what the driver asks of the kernel changes it
//! here, too: `bench flexvolume` counts both.

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
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

/// Where the floor's locks and records lie, as deep as the driver's.
pub const STATE: &str = "/run/nodeplug/bare-volume";

const POLICY_FOLDER: &str = "/etc/nodeplug";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ROOT: &str = "/var/lib/kubelet";
const LOCK: &str = "/run/nodeplug/bare-volume/locks/t-3c950ae41019f16c94124b70146b80d3";
const RECORD: &str = "/run/nodeplug/bare-volume/volumes/3c950ae41019f16c94124b70146b80d3.json";
const NEW_RECORD: &str = "/run/nodeplug/bare-volume/volumes/.3c950ae41019f16c94124b70146b80d3.json.new";
/// As long as the driver's record of such a volume.
const CONTENT: [u8; 588] = [b' '; 588];
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
    let answer = rustix::io::fcntl_dupfd_cloexec(io::stdout(), ABOVE_STANDARD)?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    answer_signals();
    nix::sys::prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    umask(Permissions::from_bits_truncate(0o077));
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
    let lock = begin()?;
    let root = open_root()?;
    let target = beneath(&root, folder)?;
    statx(
        &target,
        c"",
        AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC,
        StatxFlags::empty(),
    )?;
    drop(root);
    drop(File::open(RECORD));
    read(BOOT_ID)?;
    let mut record =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(NEW_RECORD)?;
    record.write_all(&CONTENT)?;
    fs::rename(NEW_RECORD, RECORD)?;
    drop(record);
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in PARAMETERS {
        fsconfig_set_string(&context, name, value)?;
    }
    fsconfig_create(&context)?;
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    drop(context);
    restrict(&tree)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, c"", &target, c"", flags)?;
    drop((tree, target, lock));
    Ok(())
}

/// Takes the mount at `folder` away.
pub fn umount(folder: &Path) -> io::Result<()> {
    let lock = begin()?;
    read(RECORD)?;
    read(BOOT_ID)?;
    let root = open_root()?;
    let (parent, name) = (folder.parent().unwrap_or(folder), folder.file_name().unwrap_or_default());
    let parent = beneath(&root, parent)?;
    let path = format!("/proc/self/fd/{}/{}", parent.as_raw_fd(), name.display());
    unmount(path.as_str(), UnmountFlags::NOFOLLOW)?;
    let _ = unmount(path.as_str(), UnmountFlags::NOFOLLOW);
    drop((parent, root));
    drop(fs::remove_file(NEW_RECORD));
    fs::remove_file(RECORD)?;
    fs::read_dir(Path::new(ROOT).join(folder))?.for_each(drop);
    lock.metadata()?;
    fs::symlink_metadata(LOCK)?;
    fs::remove_file(LOCK)
}

/// Up to the lock, which both calls begin with.
fn begin() -> io::Result<File> {
    let folder = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    drop(openat(CWD, POLICY_FOLDER, folder, Mode::empty()));
    // A hash map asks for randomness.
    black_box(RandomState::new());
    set_alarm();
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.custom_flags(libc::O_NOFOLLOW).open(LOCK)?;
    lock.try_lock()?;
    lock.metadata()?;
    fs::symlink_metadata(LOCK)?;
    Ok(lock)
}

fn set_alarm() {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let once = libc::itimerval { it_interval: never, it_value: libc::timeval { tv_sec: 100, tv_usec: 0 } };
    // SAFETY: the pointer is to a local value; no old value is asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const once, std::ptr::null_mut()) };
}

fn open_root() -> io::Result<OwnedFd> {
    Ok(openat(CWD, ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    Ok(openat2(root, path, flags, Mode::empty(), resolve)?)
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
