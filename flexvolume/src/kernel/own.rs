//! Gives a volume to the pod's group, as the kubelet's fsGroup does (pkg/volume/volume_linux.go).
//!
//! Everything gets the group and `rw` (or `r`) for it; folders get `x` and the setgid bit, too, so that
//! new files keep the group. The kernel drops setuid and setgid of a file whose group changes, and they are
//! not put back. Symlinks get the group alone, device nodes nothing.
//!
//! The tree may be hostile and may change meanwhile. It is walked by descriptors: no symlink is followed,
//! no file is opened, another mount inside is not entered, and however deep it is, two folders are open at
//! a time. A folder is changed after all that is in it, so that a root that looks right
//! ([`Scope::OnRootMismatch`]) means that the whole walk once ended.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use node::{Context, Error, Kind, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, Statx, StatxFlags, chmodat, chownat, fchmod, fchown,
    openat, statx,
};
use rustix::io::Errno;
use rustix::process::Gid;

/// Names of folders that wait for their turn: more than this is no volume but an attack.
const WAITING: usize = 64 << 20;
const SETGID: u16 = 0o2000;
const SUID_SGID: u16 = 0o6000;

/// How much of the volume is given to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The root folder.
    Root,
    /// Everything, unless the root folder looks as if that were done.
    OnRootMismatch,
    /// Everything.
    Recursive,
}

/// Gives `tree` to the group `gid`, to read or to read and write it. [`Kind::TryAgain`] when `deadline`
/// passes or folders are moved meanwhile: what is done is done, and a next call goes on from there.
pub fn give(tree: BorrowedFd<'_>, gid: u32, scope: Scope, read_only: bool, deadline: Instant) -> Result<()> {
    let doing = || format!("give the volume to the group {gid}");
    let wanted = Wanted { gid, bits: if read_only { 0o440 } else { 0o660 } };
    let seen = look(tree, c"").map_err(io::Error::from).doing(Kind::Io, doing)?;
    if scope == Scope::OnRootMismatch && wanted.of_folder(&seen).is_none() {
        return Ok(());
    }
    let root = openat(tree, c".", FOLDER, Mode::empty()).map_err(io::Error::from).doing(Kind::Io, doing)?;
    if scope == Scope::Root {
        return wanted.give_folder(&root, &seen).map_err(io::Error::from).doing(Kind::Kernel, doing);
    }
    let walk = Walk { wanted, deadline, place: place(&seen), waiting: 0 };
    walk.run(root, &seen).map_err(|stopped| explain(stopped, doing()))
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// What everything in the volume should have.
#[derive(Clone, Copy)]
struct Wanted {
    gid: u32,
    bits: u16,
}

impl Wanted {
    /// The mode that a folder needs; `None` where mode and group are right.
    fn of_folder(self, seen: &Statx) -> Option<u16> {
        let mode = seen.stx_mode & 0o7777 | self.bits | 0o110 | SETGID;
        (seen.stx_gid != self.gid || seen.stx_mode & 0o7777 != mode).then_some(mode)
    }

    fn give_folder(self, folder: &OwnedFd, seen: &Statx) -> rustix::io::Result<()> {
        let Some(mode) = self.of_folder(seen) else { return Ok(()) };
        fchown(folder, None, Some(Gid::from_raw(self.gid)))?;
        fchmod(folder, Mode::from_raw_mode(u32::from(mode)))
    }

    /// Gives what is not a folder. It is held by an `O_PATH` descriptor between the look and the change.
    fn give_file(self, folder: &OwnedFd, name: &CStr, walk: &Walk) -> rustix::io::Result<()> {
        let seen = look(folder.as_fd(), name)?;
        if self.file_is_right(&seen) {
            return Ok(());
        }
        let file = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let seen = look(file.as_fd(), c"")?;
        let kind = file_type(&seen);
        if kind == FileType::Directory || place(&seen) != walk.place || self.file_is_right(&seen) {
            return Ok(());
        }
        let mut mode = seen.stx_mode & 0o7777;
        if seen.stx_gid != self.gid {
            chownat(&file, c"", None, Some(Gid::from_raw(self.gid)), AtFlags::EMPTY_PATH)?;
            mode &= !SUID_SGID;
        }
        if kind == FileType::Symlink {
            return Ok(());
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        chmodat(CWD, path, Mode::from_raw_mode(u32::from(mode | self.bits)), AtFlags::empty())
    }

    fn file_is_right(self, seen: &Statx) -> bool {
        match file_type(seen) {
            FileType::Symlink => seen.stx_gid == self.gid,
            FileType::CharacterDevice | FileType::BlockDevice => true,
            _ => seen.stx_gid == self.gid && seen.stx_mode & self.bits == self.bits,
        }
    }
}

fn file_type(seen: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(seen.stx_mode))
}

/// The file system and the mount of it: a bind mount of the same file system is another place, too.
fn place(seen: &Statx) -> (u32, u32, u64) {
    let mount = if seen.stx_mask & StatxFlags::MNT_ID.bits() == 0 { 0 } else { seen.stx_mnt_id };
    (seen.stx_dev_major, seen.stx_dev_minor, mount)
}

fn look(folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    statx(folder, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)
}

/// Why a walk ended early.
enum Stopped {
    Deadline,
    Moved,
    Flood,
    At(CString, Errno),
}

/// A folder on the way down, while one below it is open.
struct Level {
    seen: Statx,
    /// The folders in it that are still to be entered.
    left: Vec<CString>,
}

struct Walk {
    wanted: Wanted,
    deadline: Instant,
    place: (u32, u32, u64),
    waiting: usize,
}

impl Walk {
    fn run(mut self, root: OwnedFd, seen: &Statx) -> Result<(), Stopped> {
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut here = root;
        let mut levels = vec![Level { seen: *seen, left: self.list(&here, &mut buffer)? }];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.left.pop() {
                self.waiting -= name.as_bytes().len();
                if let Some((folder, seen)) = self.enter(&here, &name)? {
                    here = folder;
                    let left = self.list(&here, &mut buffer)?;
                    levels.push(Level { seen, left });
                }
                continue;
            }
            self.wanted.give_folder(&here, &level.seen).map_err(|e| Stopped::At(c".".into(), e))?;
            levels.pop();
            if let Some(above) = levels.last() {
                here = climb(&here, &above.seen)?;
            }
        }
        Ok(())
    }

    /// Gives the files of a folder, and returns its folders.
    fn list(&mut self, folder: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Result<Vec<CString>, Stopped> {
        let mut folders = Vec::new();
        let mut entries = RawDir::new(folder, buffer);
        while let Some(entry) = entries.next() {
            if Instant::now() >= self.deadline {
                return Err(Stopped::Deadline);
            }
            let entry = entry.map_err(|e| Stopped::At(c".".into(), e))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let at = |e| Stopped::At(name.to_owned(), e);
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => match look(folder.as_fd(), name) {
                    Err(Errno::NOENT) => continue,
                    other => file_type(&other.map_err(at)?) == FileType::Directory,
                },
                _ => false,
            };
            if is_folder {
                self.waiting += name.count_bytes();
                if self.waiting > WAITING {
                    return Err(Stopped::Flood);
                }
                folders.push(name.to_owned());
                continue;
            }
            match self.wanted.give_file(folder, name, self) {
                // Removed meanwhile.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(at(e)),
            }
        }
        Ok(folders)
    }

    /// Opens a folder below; `None` where it is gone, is no folder any more, or another mount.
    fn enter(&self, folder: &OwnedFd, name: &CStr) -> Result<Option<(OwnedFd, Statx)>, Stopped> {
        let at = |e| Stopped::At(name.to_owned(), e);
        let below = match openat(folder, name, FOLDER, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other.map_err(at)?,
        };
        let seen = look(below.as_fd(), c"").map_err(at)?;
        Ok((place(&seen) == self.place).then_some((below, seen)))
    }
}

/// Opens the folder above, if it is still the one that the walk came from.
fn climb(here: &OwnedFd, expected: &Statx) -> Result<OwnedFd, Stopped> {
    let at = |e| Stopped::At(c"..".into(), e);
    let above = openat(here, c"..", FOLDER, Mode::empty()).map_err(at)?;
    let seen = look(above.as_fd(), c"").map_err(at)?;
    if seen.stx_ino == expected.stx_ino && place(&seen) == place(expected) {
        return Ok(above);
    }
    Err(Stopped::Moved)
}

fn explain(stopped: Stopped, doing: String) -> Box<Error> {
    match stopped {
        Stopped::Deadline => Error::new(Kind::TryAgain, format!("{doing} in time")).hint(
            "the volume has very many files: the next try goes on; fsGroupChangePolicy OnRootMismatch or the \
             option fsGroupPolicy spare the walk",
        ),
        Stopped::Moved => Error::new(Kind::TryAgain, format!("{doing} while somebody moves its folders")),
        Stopped::Flood => Error::new(Kind::Unavailable, doing).hint(
            "it has more folders in one place than can be walked: set the option fsGroupPolicy to root",
        ),
        Stopped::At(name, errno) => {
            let shown = OsStr::from_bytes(name.as_bytes()).to_string_lossy().into_owned();
            let cause =
                Error::caused(Kind::Kernel, format!("change the group of `{shown}`"), io::Error::from(errno));
            Error::caused(Kind::Kernel, doing, cause)
        }
    }
}
