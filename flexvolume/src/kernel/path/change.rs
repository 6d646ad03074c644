//! Makes, renames and removes what lies beneath a folder, and nothing else.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use node::{Context, Error, Kind, Result};
use rustix::fs::{
    AtFlags, Mode, OFlags, RawMode, RenameFlags, fchmod, fchown, fstat, linkat, mkdirat, openat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid, geteuid};

use super::beneath::{Want, beneath, explain};
use super::split;

/// Makes the folder `relative` beneath `root` with the folders that lead to it, and opens it (`O_PATH`).
/// Those that were missing get `mode` and `owner` (uid, gid); those that were there stay as they are. A
/// symlink on the way is [`Kind::Config`].
pub fn make_folders(
    root: BorrowedFd<'_>,
    relative: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd> {
    descend(root, relative, |parent, name| enter(parent, name, mode, owner))
}

/// The same on a share, whose server says whose a new folder is, and may not let a client change it. The
/// folders get `mode` less the umask.
pub fn make_folders_as_they_come(root: BorrowedFd<'_>, relative: &Path, mode: u32) -> Result<OwnedFd> {
    descend(root, relative, |parent, name| {
        match open_folder(parent, name, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        match mkdirat(parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => open_folder(parent, name, OFlags::PATH),
            Err(errno) => Err(errno),
        }
    })
}

/// Goes down name by name.
fn descend(
    root: BorrowedFd<'_>,
    relative: &Path,
    enter: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<OwnedFd>,
) -> Result<OwnedFd> {
    let doing = || format!("make the folder `{}`", relative.display());
    let mut here = beneath(root, Path::new("."), Want::Folder)?;
    for component in relative.components() {
        here = match component {
            Component::CurDir => continue,
            Component::Normal(name) => enter(&here, name),
            _ => Err(Errno::XDEV),
        }
        .map_err(|e| explain(e, doing()))?;
    }
    Ok(here)
}

/// The folder `name`, made where it is missing.
fn enter(
    parent: &OwnedFd,
    name: &OsStr,
    mode: RawMode,
    owner: Option<(u32, u32)>,
) -> rustix::io::Result<OwnedFd> {
    match open_folder(parent, name, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    // Closed to everybody else until it is the owner's.
    match mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => return open_folder(parent, name, OFlags::PATH),
        other => other?,
    }
    let new = open_folder(parent, name, OFlags::RDONLY)?;
    // Who can write to the parent can put a folder of their own here meanwhile; that one stays theirs.
    if fstat(&new)?.st_uid != geteuid().as_raw() {
        return Err(Errno::XDEV);
    }
    if let Some((uid, gid)) = owner {
        fchown(&new, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    fchmod(&new, Mode::from_raw_mode(mode))?;
    openat(&new, c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn open_folder(parent: &OwnedFd, name: &OsStr, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        // With O_DIRECTORY a symlink is "not a directory"; which it is decides what the operator reads.
        Err(Errno::NOTDIR) => Err(openat(parent, name, OFlags::NOFOLLOW | OFlags::PATH, Mode::empty())
            .and_then(|found| fstat(&found))
            .map_or(Errno::NOTDIR, |found| {
                let symlink = rustix::fs::FileType::from_raw_mode(found.st_mode).is_symlink();
                if symlink { Errno::LOOP } else { Errno::NOTDIR }
            })),
        other => other,
    }
}

/// Makes the file `relative` beneath `root` with exactly `mode`, open to read and write.
/// [`Kind::Conflict`] where something of that name is there, be it a symlink.
pub fn create_file(root: BorrowedFd<'_>, relative: &Path, mode: u32) -> Result<File> {
    let doing = || format!("make the file `{}`", relative.display());
    let (folder, name) = split(relative)?;
    let parent = beneath(root, folder, Want::Folder)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| match e {
        Errno::EXIST => Error::caused(Kind::Conflict, doing(), io::Error::from(e)),
        _ => explain(e, doing()),
    })?;
    fchmod(&file, Mode::from_raw_mode(mode)).map_err(io::Error::from).doing(Kind::Io, doing)?;
    Ok(File::from(file))
}

/// Renames `from` to `to`, both beneath `root`, and never over something: [`Kind::Conflict`].
pub fn rename_beneath(root: BorrowedFd<'_>, from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("rename `{}` to `{}`", from.display(), to.display());
    let ((old_folder, old), (new_folder, new)) = (split(from)?, split(to)?);
    let old_parent = beneath(root, old_folder, Want::Folder)?;
    let new_parent = beneath(root, new_folder, Want::Folder)?;
    let moved = match renameat_with(&old_parent, old, &new_parent, new, RenameFlags::NOREPLACE) {
        // File systems that cannot promise it; a hard link never replaces anything.
        Err(Errno::INVAL | Errno::NOSYS) => linkat(&old_parent, old, &new_parent, new, AtFlags::empty())
            .and_then(|()| unlinkat(&old_parent, old, AtFlags::empty())),
        other => other,
    };
    moved.map_err(|e| match e {
        Errno::EXIST => Error::caused(Kind::Conflict, doing(), io::Error::from(e)),
        _ => explain(e, doing()),
    })
}

/// Removes the file `relative` beneath `root`; one that is missing is removed already. A symlink at the
/// end is removed itself; a folder is never removed.
pub fn remove_file_beneath(root: BorrowedFd<'_>, relative: &Path) -> Result<()> {
    let (folder, name) = split(relative)?;
    let parent = match beneath(root, folder, Want::Folder) {
        Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(()),
        other => other?,
    };
    match unlinkat(parent.as_fd(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(explain(e, format!("remove the file `{}`", relative.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn folders_and_files_are_made_renamed_and_removed_without_following_a_symlink() {
        let folder = std::env::temp_dir().join(format!("nodeplug-change-{}", std::process::id()));
        fs::create_dir_all(folder.join("there")).unwrap();
        fs::write(folder.join("plain"), "").unwrap();
        symlink("there", folder.join("link")).unwrap();
        let before = fs::metadata(folder.join("there")).unwrap().mode();
        let root = super::super::open_root(&folder).unwrap();
        let root = root.as_fd();

        make_folders(root, Path::new("there/new/deep"), 0o2771, None).unwrap();
        make_folders(root, Path::new("there/new/deep"), 0o700, None).unwrap();
        for (path, mode) in [("there", before & 0o7777), ("there/new", 0o2771), ("there/new/deep", 0o2771)] {
            assert_eq!(fs::metadata(folder.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
        }
        for path in ["link/x", "link", "plain", "there/../x", "/x"] {
            let error = make_folders(root, Path::new(path), 0o700, None).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{path}: {}", error.chain());
        }
        assert_eq!(make_folders(root, Path::new("link"), 0, None).unwrap_err().errno(), Some(libc::ELOOP));

        for path in ["there/own/deep", "there/own"] {
            make_folders_as_they_come(root, Path::new(path), 0o700).unwrap();
            assert_eq!(fs::metadata(folder.join(path)).unwrap().mode() & 0o7777, 0o700, "{path}");
        }
        for path in ["link/x", "link", "plain", "there/../x", "/x"] {
            assert_eq!(
                make_folders_as_they_come(root, Path::new(path), 0o700).unwrap_err().kind(),
                Kind::Config
            );
        }

        let file = create_file(root, Path::new("there/a"), 0o666).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o666);
        for path in ["there/a", "link"] {
            assert_eq!(create_file(root, Path::new(path), 0).unwrap_err().kind(), Kind::Conflict, "{path}");
        }
        let (a, b) = (Path::new("there/a"), Path::new("there/new/b"));
        rename_beneath(root, a, b).unwrap();
        create_file(root, a, 0o600).unwrap();
        assert_eq!(rename_beneath(root, a, b).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(rename_beneath(root, a, Path::new("link/a")).unwrap_err().kind(), Kind::Config);
        for path in ["there/a", "there/a", "none/a", "link"] {
            remove_file_beneath(root, Path::new(path)).unwrap();
        }
        assert!(folder.join("there").is_dir());
        assert!(remove_file_beneath(root, Path::new("there")).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
