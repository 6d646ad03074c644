//! Whether a line would be written, without writing one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, access};

use super::file::{FLAGS, is_folder, is_plain};
use super::journal::SOCKET;
use super::{FOLDER, LEAST, Log, Place, rotated};
use crate::finding::typed;
use crate::{Error, Kind, Result};

const ELSEWHERE: &str = "let `logFile` name a file in a folder that may be written";

/// What keeps the next line from being written, and what to do about it.
pub fn check(log: &Log) -> Result<()> {
    match &log.place {
        Place::File(path) => {
            file(path, log.most).map_err(|(why, remedy)| failed(&path.display().to_string(), why, remedy))
        }
        Place::Journal => journal(Path::new(SOCKET)),
        Place::Nowhere => Ok(()),
    }
}

fn failed(place: &str, why: String, remedy: String) -> Box<Error> {
    Error::caused(Kind::Io, format!("write to the log `{place}`"), why).hint(remedy)
}

fn journal(socket: &Path) -> Result<()> {
    let reached = UnixDatagram::unbound().and_then(|asker| asker.connect(socket));
    reached.map_err(|e| {
        let why = format!("nobody listens at `{}` ({e})", socket.display());
        failed("journal", why, "start systemd-journald, or let `logFile` name a file".to_owned())
    })
}

/// Why not, and what to do.
type Refusal = (String, String);

fn file(path: &Path, most: u64) -> Result<(), Refusal> {
    let folder_path = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().map_or(path, Path::new);
    let away = |path: &Path| format!("mv {0} {0}.off", typed(path));
    let Some(folder) = folder(folder_path)? else { return Ok(()) };
    match openat(&folder, name, FLAGS, Mode::empty()) {
        Err(Errno::ENOENT) => writable(folder_path)?,
        Err(Errno::ELOOP) => return Err(("it is a symlink".to_owned(), away(path))),
        Err(Errno::EISDIR) => return Err(("it is a folder".to_owned(), away(path))),
        Err(Errno::ENXIO) => return Err(("it is no plain file".to_owned(), away(path))),
        Err(errno) => return Err((io::Error::from(errno).to_string(), ELSEWHERE.to_owned())),
        Ok(file) => {
            let stat = fstat(&file).map_err(|e| (e.desc().to_owned(), ELSEWHERE.to_owned()))?;
            opened(&stat, most).map_err(|why| (why.to_owned(), away(path)))?;
        }
    }
    let older = rotated(name);
    let stat = fstatat(&folder, &older, AtFlags::AT_SYMLINK_NOFOLLOW);
    if stat.is_ok_and(|stat| is_folder(&stat)) {
        let older = rotated(path);
        let why = format!("`{}` is a folder: a full log can't get that name", older.display());
        return Err((why, away(&older)));
    }
    room(&folder, folder_path)
}

fn opened(stat: &FileStat, most: u64) -> Result<(), &'static str> {
    if !is_plain(stat) {
        return Err("it is no plain file");
    }
    if stat.st_nlink > 1 {
        return Err("the file has a second name");
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > most.saturating_mul(2) {
        return Err("it is more than twice as large as it may become, and was not renamed");
    }
    Ok(())
}

/// The folder; `None` where the first line makes it.
fn folder(path: &Path) -> Result<Option<OwnedFd>, Refusal> {
    let usual = path == Path::new(FOLDER);
    let mut flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    flags.set(OFlag::O_NOFOLLOW, usual);
    match open(path, flags, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::ENOENT) if usual => {
            let above: PathBuf = path.parent().unwrap_or(Path::new("/")).to_owned();
            if above.is_dir() {
                return writable(&above).map(|()| None);
            }
            Err(("its folder is not there".to_owned(), format!("mkdir -p {}", typed(&above))))
        }
        Err(Errno::ENOENT) => {
            Err(("its folder is not there".to_owned(), format!("mkdir -p {}", typed(path))))
        }
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            let why = format!("`{}` is no folder", path.display());
            Err((why, format!("mv {0} {0}.off; mkdir {0}", typed(path))))
        }
        Err(errno) => Err((errno.desc().to_owned(), ELSEWHERE.to_owned())),
    }
}

fn writable(folder: &Path) -> Result<(), Refusal> {
    access(folder, AccessFlags::W_OK)
        .map_err(|e| (format!("`{}`: {}", folder.display(), e.desc()), ELSEWHERE.to_owned()))
}

fn room(folder: &OwnedFd, path: &Path) -> Result<(), Refusal> {
    // A descriptor of O_PATH will do since Linux 3.12.
    let Ok(system) = fstatvfs(folder) else { return Ok(()) };
    let left = system.blocks_available().saturating_mul(system.fragment_size());
    if left < LEAST {
        return Err((
            "its file system has hardly any space left".to_owned(),
            format!("make room: df -h {}", typed(path)),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::log::Line;

    /// What check says, and whether a line is written after it: the two have to agree.
    #[track_caller]
    fn told(log: &Log) -> String {
        let said = check(log).map_or_else(|e| e.chain(), |()| "fine".to_owned());
        let Place::File(path) = &log.place else { unreachable!() };
        let written = super::super::file::append(path, log.most, &Line::new("TEST").bytes()).is_ok();
        assert_eq!(said == "fine", written, "{said}");
        said
    }

    #[test]
    fn what_is_said_is_what_becomes_of_the_next_line() {
        let folder = std::env::temp_dir().join(format!("nodeplug-log-check-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let log = |name: &str| Log { place: Place::File(folder.join(name)), most: 1000 };
        let says = |name: &str, why: &str| {
            let said = told(&log(name));
            assert!(said.contains(why), "{name}: {said}");
        };
        assert!(check(&log("new")).is_ok() && !folder.join("new").exists(), "the question makes nothing");
        says("new", "fine");
        says("new", "fine");
        says("none/x", "its folder is not there");
        says("new/x", "is no folder");
        fs::write(folder.join("victim"), "").unwrap();
        symlink("victim", folder.join("symlink")).unwrap();
        says("symlink", "is a symlink");
        fs::hard_link(folder.join("victim"), folder.join("link")).unwrap();
        says("link", "a second name");
        fs::create_dir(folder.join("folder")).unwrap();
        says("folder", "is a folder");
        nix::unistd::mkfifo(&folder.join("fifo"), Mode::S_IRWXU).unwrap();
        says("fifo", "no plain file");
        fs::create_dir_all(folder.join("full.1/x")).unwrap();
        fs::write(folder.join("full"), vec![b'\n'; 3000]).unwrap();
        says("full", "more than twice as large");
        fs::write(folder.join("full"), "").unwrap();
        // Lines are written until it is full.
        let early = check(&log("full")).unwrap_err();
        assert!(early.chain().contains("is a folder: a full log"), "{}", early.chain());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_journal_that_nobody_keeps_is_told_of() {
        let socket = std::env::temp_dir().join(format!("nodeplug-journal-{}", std::process::id()));
        assert!(journal(&socket).unwrap_err().chain().contains("nobody listens"));
        let listener = UnixDatagram::bind(&socket).unwrap();
        journal(&socket).unwrap();
        drop(listener);
        assert!(journal(&socket).is_err());
        fs::remove_file(&socket).unwrap();
    }
}
