//! Paths that nobody can exchange while they are walked (openat2(2)).
//!
//! A root is the operator's word and may lead through symlinks; everything beneath it may be a pod's, and
//! is walked without following one.

mod beneath;
mod change;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use node::{Context, Error, Kind, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2, stat};

pub use beneath::{Want, beneath, is_known, reopen};
pub use change::{create_file, make_folders, make_folders_as_they_come, remove_file_beneath, rename_beneath};

/// Opens a folder that the operator named (`O_PATH`).
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("open the folder `{}`", path.display());
    if !path.is_absolute() {
        return Err(Error::new(Kind::Config, doing()).hint("write the path from the root: /srv/volumes"));
    }
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .doing(Kind::Io, doing)
}

/// The same where no symlink and no `..` is on the way (`O_PATH`); `None` where one is, and for whatever else keeps the
/// folder from being opened.
pub fn open_straight(path: &Path) -> Option<OwnedFd> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if !plain || !path.is_absolute() {
        return None;
    }
    openat2(CWD, path, flags, Mode::empty(), resolve).ok()
}

/// Where an open file is now, seen from this process's root. [`Kind::Mismatch`] when it has no path any
/// more. In a detached mount the path starts at that mount's root.
pub fn real_path(fd: BorrowedFd<'_>) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = fs::read_link(&link)
        .doing(Kind::Io, || format!("read `{link}`"))
        .map_err(|e| e.hint("/proc must be mounted"))?;
    let gone = || {
        path.as_os_str().as_bytes().ends_with(b" (deleted)") && fstat(fd).is_ok_and(|file| file.st_nlink == 0)
    };
    if !path.is_absolute() || gone() {
        return Err(Error::new(Kind::Mismatch, format!("find the path of `{}`", path.display()))
            .hint("it was deleted, or is not a file of this mount namespace"));
    }
    Ok(path)
}

/// File systems whose files are the kernel's own (linux/magic.h): the word for what a volume must not
/// show.
const KERNELS: [(u64, &str); 23] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x1cd1, "devpts"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x5a3c_69f0, "apparmorfs"),
    (0xcafe_4a11, "bpf"),
    (0x6165_676c, "pstore"),
    (0x6265_6570, "configfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x1980_0202, "mqueue"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6e73_6673, "nsfs"),
    (0x6573_5543, "fusectl"),
    (0x6e66_7364, "nfsd"),
    (0x6759_6969, "rpc_pipefs"),
    (0x0765_5821, "resctrl"),
    (0x5049_5045, "pipefs"),
];
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// The name of the kernel's own file system that `fd` lies on; `None` for one that holds data.
/// devtmpfs looks like a tmpfs, so what has the device number of `/dev` is taken for it.
pub fn is_kernel_filesystem(fd: BorrowedFd<'_>) -> Result<Option<&'static str>> {
    let doing = || "ask for the file system of the source".to_owned();
    let magic = magic(fd)?;
    if magic == TMPFS || magic == RAMFS {
        let own = fstat(fd).map_err(io::Error::from).doing(Kind::Kernel, doing)?;
        let devices = stat("/dev").map_err(io::Error::from).doing(Kind::Kernel, doing)?;
        return Ok((own.st_dev == devices.st_dev).then_some("devtmpfs"));
    }
    Ok(KERNELS.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name))
}

/// File systems whose data is on a disk of the node or in its memory: their numbers (linux/magic.h), and what
/// mountinfo calls them.
const LOCAL: [(u64, &[&str]); 10] = [
    (TMPFS, &["tmpfs"]),
    (RAMFS, &["ramfs"]),
    (0xef53, &["ext4", "ext3", "ext2"]),
    (0x5846_5342, &["xfs"]),
    (0x9123_683e, &["btrfs"]),
    (0xf2f5_2010, &["f2fs"]),
    (0x2fc1_2fc1, &["zfs"]),
    (0xca45_1a4e, &["bcachefs"]),
    (0xe0f5_e1e2, &["erofs"]),
    (0x7371_7368, &["squashfs"]),
];

/// Whether `fd` lies on a file system that needs nobody else to answer: no share, no FUSE, and nothing unknown.
pub fn is_local(fd: BorrowedFd<'_>) -> Result<bool> {
    magic(fd).map(|number| LOCAL.iter().any(|(local, _)| *local == number))
}

/// The same of a file system by mountinfo's name for it.
pub fn is_local_kind(kind: &str) -> bool {
    LOCAL.iter().any(|(_, names)| names.contains(&kind))
}

/// The kind of file system that `fd` lies on, as a number (statfs(2)).
fn magic(fd: BorrowedFd<'_>) -> Result<u64> {
    let answer = fstatfs(fd).map_err(io::Error::from);
    let answer = answer.doing(Kind::Kernel, || "ask for the file system of the source".to_owned())?;
    // Magic numbers have 32 bits, which some architectures sign-extend.
    Ok(u64::from(u32::try_from(answer.f_type & 0xffff_ffff).unwrap_or_default()))
}

/// Whether mountinfo's name of a file system is one of the kernel's own.
pub fn is_kernels(kind: &str) -> bool {
    kind == "devtmpfs" || KERNELS.iter().any(|(_, name)| *name == kind)
}

/// A relative path as its folder and its last name.
fn split(relative: &Path) -> Result<(&Path, &OsStr)> {
    match (relative.parent(), relative.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(Error::new(Kind::Config, format!("find the name in `{}`", relative.display()))),
    }
}

/// The path by which this process reaches an open file whatever its name is now.
fn magic_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
