//! Opens what lies beneath a folder, and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use node::{Context, Error, Kind, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::{magic_path, real_path};

/// A rename or mount anywhere on the node makes openat2(2) ask for another try; a name that loses this
/// often is being exchanged on purpose.
const TRIES: usize = 128;

/// What is wanted of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A folder (`O_PATH`).
    Folder,
    /// Whatever is there (`O_PATH`): it is not opened, so a device or fifo does nothing.
    Any,
    /// A regular file, to read it.
    Read,
    /// A regular file, to read and write it.
    Write,
}

/// Opens `relative` beneath `root`. [`Kind::Config`] where a symlink or `..` stands in the way, or what is
/// there is of another type; [`Kind::Io`] with ENOENT where it is missing.
pub fn beneath(root: BorrowedFd<'_>, relative: &Path, want: Want) -> Result<OwnedFd> {
    let doing = || {
        let root = real_path(root).unwrap_or_default();
        let path = if relative.as_os_str().is_empty() { root } else { root.join(relative) };
        format!("open `{}`", path.display())
    };
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(in_the_way(Error::new(Kind::Config, doing())));
    }
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if want == Want::Folder {
        flags |= OFlags::DIRECTORY;
    }
    let found = match open_at_once(root, relative, flags) {
        Err(Errno::NOSYS) => walk(root, relative, flags),
        other => other,
    };
    let found = found.map_err(|e| explain(e, doing()))?;
    match want {
        Want::Folder | Want::Any => Ok(found),
        Want::Read => regular(&found, doing).and_then(|()| reopen(found.as_fd(), false)),
        Want::Write => regular(&found, doing).and_then(|()| reopen(found.as_fd(), true)),
    }
}

/// Whether the kernel has in memory where this path leads, through no symlink, or that it leads nowhere: walking it
/// asks no disk and no server (`RESOLVE_CACHED`, Linux 5.12).
pub fn is_known(path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::CACHED | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    matches!(openat2(CWD, path, flags, Mode::empty(), resolve), Ok(_) | Err(Errno::NOENT))
}

/// Opens again, to read or to read and write, what an `O_PATH` descriptor holds. The caller has looked at
/// its type: opening a device acts on it.
pub fn reopen(fd: BorrowedFd<'_>, write: bool) -> Result<OwnedFd> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    openat(CWD, magic_path(fd), flags, Mode::empty())
        .map_err(io::Error::from)
        .doing(Kind::Io, || format!("open the file to {}", if write { "write it" } else { "read it" }))
}

fn regular(file: &OwnedFd, doing: impl Fn() -> String) -> Result<()> {
    let status = fstat(file).map_err(io::Error::from).doing(Kind::Io, &doing)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
        return Ok(());
    }
    Err(Error::new(Kind::Config, doing()).hint("it must be a regular file"))
}

/// `RESOLVE_NO_SYMLINKS` refuses a symlink at the end, too; `O_NOFOLLOW` with `O_PATH` would hand it out.
fn open_at_once(root: BorrowedFd<'_>, relative: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(root, relative, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The same without openat2(2) (before Linux 5.6): each name in the folder before it, never a symlink.
fn walk(root: BorrowedFd<'_>, relative: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let onward = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut here = openat(root, c".", onward, Mode::empty())?;
    for name in relative.components() {
        if name != Component::CurDir {
            here = openat(&here, name.as_os_str(), onward, Mode::empty())?;
        }
        // A symlink that nobody follows is not a folder to go on from; at the end it is what was asked for.
        if FileType::from_raw_mode(fstat(&here)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
    }
    if flags.contains(OFlags::DIRECTORY)
        && FileType::from_raw_mode(fstat(&here)?.st_mode) != FileType::Directory
    {
        return Err(Errno::NOTDIR);
    }
    Ok(here)
}

/// The kind of an errno of a walk.
pub(super) fn explain(errno: Errno, doing: String) -> Box<Error> {
    let cause = io::Error::from(errno);
    match errno {
        Errno::LOOP | Errno::XDEV => in_the_way(Error::caused(Kind::Config, doing, cause)),
        Errno::NOTDIR => Error::caused(Kind::Config, doing, cause),
        Errno::AGAIN => Error::caused(Kind::TryAgain, doing, cause),
        _ => Error::caused(Kind::Io, doing, cause),
    }
}

fn in_the_way(error: Box<Error>) -> Box<Error> {
    error.hint("a symlink or `..` stands in the way: name the real path, without either")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn both_ways_of_walking_agree() {
        let folder = std::env::temp_dir().join(format!("nodeplug-beneath-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/file"), "x").unwrap();
        symlink("a", folder.join("link")).unwrap();
        symlink("file", folder.join("a/last")).unwrap();
        let root = super::super::open_root(&folder).unwrap();
        let cases: [(&str, OFlags, Result<(), Errno>); 9] = [
            ("a/b", OFlags::DIRECTORY, Ok(())),
            ("./a/./b", OFlags::empty(), Ok(())),
            (".", OFlags::DIRECTORY, Ok(())),
            ("a/file", OFlags::empty(), Ok(())),
            ("a/file", OFlags::DIRECTORY, Err(Errno::NOTDIR)),
            ("a/last", OFlags::empty(), Err(Errno::LOOP)),
            ("link/b", OFlags::empty(), Err(Errno::LOOP)),
            ("link", OFlags::DIRECTORY, Err(Errno::LOOP)),
            ("a/none", OFlags::empty(), Err(Errno::NOENT)),
        ];
        for (path, extra, expect) in cases {
            let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
            let seen = walk(root.as_fd(), Path::new(path), flags).map(drop);
            assert_eq!(seen, expect, "walked: {path}");
            let seen = open_at_once(root.as_fd(), Path::new(path), flags).map(drop);
            assert_eq!(seen, expect, "at once: {path}");
        }
        for path in ["../a", "a/../../x", "/etc", "a/b/.."] {
            let error = beneath(root.as_fd(), Path::new(path), Want::Any).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{path}");
            assert!(error.advice().unwrap().contains("stands in the way"), "{path}");
        }
        assert_eq!(beneath(root.as_fd(), Path::new("a"), Want::Read).unwrap_err().kind(), Kind::Config);
        fs::remove_dir_all(&folder).unwrap();
    }
}
