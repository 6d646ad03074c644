//! Small state files: written whole or not at all, read with "not there" as a value, guarded by flock.
//!
//! Nothing is fsynced. State describes this boot's kernel objects; a power loss ends the boot, and
//! what an earlier boot wrote is dropped (see [`crate::boot`]). A `kill -9` loses no page-cache write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use crate::{Context, Kind, Result};

/// Room for every state file but a record with many addresses.
const USUAL: usize = 1024;
/// No state file is as large; whatever is, is none of ours.
const LARGEST: u64 = 1 << 20;

/// An exclusive lock for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the exclusive flock on `path`, making the file where it is missing.
    pub fn exclusive(path: &Path) -> Result<Self> {
        let doing = || format!("lock `{}`", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .doing(Kind::Io, doing)?;
        file.lock().doing(Kind::Io, doing)?;
        Ok(Self { _file: file })
    }
}

/// Makes a folder and its parents.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).doing(Kind::Io, || format!("make the folder `{}`", path.display()))
}

/// Replaces `path` by `content` with mode 0600, so that a reader and a `kill -9` see the old or the new
/// file and never a part.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let doing = || format!("write `{}`", path.display());
    let temporary = beside(path);
    let put = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        fs::rename(&temporary, path)
    };
    put().inspect_err(|_| drop(fs::remove_file(&temporary))).doing(Kind::Io, doing)
}

/// Makes `path` with `content` and mode 0600, whole or not at all; [`Kind::Conflict`] where it is there.
/// The file has no name before it is whole, so that a `kill -9` leaves nothing (open(2), `O_TMPFILE`).
pub fn create_whole(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let put = || -> io::Result<()> {
        let mut file = File::from(open(folder, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(content)?;
        // Naming a descriptor by AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
    };
    match put() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(e).doing(Kind::Conflict, || format!("make `{}`", path.display()))
        }
        // A file system that cannot make nameless files (an old overlayfs).
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            create_named(path, content)
        }
        other => other.doing(Kind::Io, || format!("make `{}`", path.display())),
    }
}

fn create_named(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = beside(path);
    let put = || -> io::Result<()> {
        fs::write(&temporary, content)?;
        fs::hard_link(&temporary, path)
    };
    let made = put();
    remove(&temporary)?;
    let kind = if matches!(&made, Err(e) if e.kind() == io::ErrorKind::AlreadyExists) {
        Kind::Conflict
    } else {
        Kind::Io
    };
    made.doing(kind, || format!("make `{}`", path.display()))
}

/// The temporary name beside `path`. One writer at a time: the holder of a lock, or the maker of the
/// file. Whoever removes the file removes what a killed writer left under this name, too.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.new"))
}

/// The content of `path`; `None` where there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    // State files fit into one read; fs::read would ask for their size first.
    let whole = || -> io::Result<Vec<u8>> {
        let mut content = Vec::with_capacity(USUAL);
        File::open(path)?.take(LARGEST).read_to_end(&mut content)?;
        Ok(content)
    };
    match whole() {
        Ok(content) => Ok(Some(content)),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(e).doing(Kind::Io, || format!("read `{}`", path.display())),
    }
}

/// Removes a file; one that is not there is removed already.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if !gone(&e) => Err(e).doing(Kind::Io, || format!("remove `{}`", path.display())),
        _ => Ok(()),
    }
}

/// The names in a folder; none where the folder is not there.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let doing = || format!("list `{}`", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e).doing(Kind::Io, doing),
    };
    entries
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()).doing(Kind::Io, doing))
        .collect()
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_removal_is_idempotent() {
        let folder = std::env::temp_dir().join(format!("node-store-{}", std::process::id()));
        make_folder(&folder).unwrap();
        let path = folder.join("a");
        assert_eq!(read(&path).unwrap(), None);
        create_whole(&path, b"one").unwrap();
        assert_eq!(create_whole(&path, b"two").unwrap_err().kind(), Kind::Conflict);
        write_whole(&path, b"2").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"2");
        assert_eq!(names(&folder).unwrap(), ["a"]);
        remove(&path).unwrap();
        remove(&path).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(names(&folder).unwrap().is_empty());
    }
}
