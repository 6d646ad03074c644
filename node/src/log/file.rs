//! A file that many processes append to, each one line, and that becomes `NAME.1` when it is full.
//!
//! A line is one write(2) with `O_APPEND`, which keeps lines of concurrent calls whole. Nobody waits for anybody:
//! only who finds the file full takes a lock, that of the full file itself, and who does not get it appends to
//! the full one all the same. Whoever is killed between the rename and the new file leaves no file, which the
//! next one makes.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};

use super::{FOLDER, rotated};
use crate::kernel;

/// Who meets a file that was rotated away meanwhile tries again; so often in a row it does not happen.
const TRIES: usize = 8;

/// root's, and a group may be let in to read.
const FILE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP);

/// The same for the folder.
const DIRECTORY: Mode = Mode::S_IRWXU.union(Mode::S_IRGRP).union(Mode::S_IXGRP);

/// Appends `line`, which ends with its line end. An error is for nobody but a test: there is no line then.
pub(super) fn append(path: &Path, most: u64, line: &[u8]) -> io::Result<()> {
    let name = path.file_name().map(Path::new).ok_or(ErrorKind::InvalidInput)?;
    let folder = folder(path.parent().unwrap_or(Path::new("/")))?;
    // A limit of the file size would end the process, whose call went well.
    kernel::survive_full_files();
    for _ in 0..TRIES {
        let file = opened(&folder, name)?;
        let stat = fstat(&file)?;
        if stat.st_nlink == 0 {
            continue;
        }
        // A FIFO would hold the call up, a second name could be of a file that is no log.
        if !is_plain(&stat) || stat.st_nlink > 1 {
            return Err(ErrorKind::InvalidInput.into());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size > 0 && size + line.len() as u64 > most && rotate(&folder, name, &file, &stat) {
            continue;
        }
        if size > most.saturating_mul(2) {
            // Nobody can rename it: it shall not fill the disk.
            return Err(ErrorKind::FileTooLarge.into());
        }
        let mut file = File::from(file);
        file.write_all(line)?;
        // Between the opening and the writing it may have become the older of the two files that stay, and gone.
        if fstat(&file)?.st_nlink > 0 {
            return Ok(());
        }
    }
    Err(ErrorKind::ResourceBusy.into())
}

/// The folder. That of this project is made, and taken for nothing but a folder: where others than root may
/// write to `/var/log`, its name could be a symlink of theirs.
fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    if path != Path::new(FOLDER) {
        return Ok(open(path, flags, Mode::empty())?);
    }
    let flags = flags | OFlag::O_NOFOLLOW;
    match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => match nix::unistd::mkdir(path, DIRECTORY) {
            Ok(()) => {
                // The caller's umask may have taken something off.
                let readable = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let folder = open(path, readable, Mode::empty())?;
                let _ = fchmod(&folder, DIRECTORY);
                Ok(folder)
            }
            Err(Errno::EEXIST) => Ok(open(path, flags, Mode::empty())?),
            Err(errno) => Err(errno.into()),
        },
        other => Ok(other?),
    }
}

/// How a log is opened: nothing that lies in its place is followed, waited for or taken for a terminal.
pub(super) const FLAGS: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_APPEND)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// The file, made where it is missing.
fn opened(folder: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    for _ in 0..TRIES {
        match openat(folder, name, FLAGS, Mode::empty()) {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        match openat(folder, name, FLAGS | OFlag::O_CREAT | OFlag::O_EXCL, FILE) {
            Ok(file) => {
                let _ = fchmod(&file, FILE);
                return Ok(file);
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(ErrorKind::ResourceBusy.into())
}

/// Renames the full file, unless another process does so at this moment or did so already. Whether `name` is
/// another file now.
fn rotate(folder: &OwnedFd, name: &Path, file: &OwnedFd, full: &FileStat) -> bool {
    let Ok(lock) = file.try_clone().map(File::from) else { return false };
    if lock.try_lock().is_err() {
        return false;
    }
    // The lock is on the file and not on the name: who had it before has given the name away.
    let named = |stat: FileStat| (stat.st_dev, stat.st_ino) == (full.st_dev, full.st_ino);
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if named(stat) => {}
        Ok(_) | Err(Errno::ENOENT) => return true,
        Err(_) => return false,
    }
    renameat(folder.as_fd(), name, folder.as_fd(), &rotated(name)).is_ok()
}

pub(super) fn is_plain(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

pub(super) fn is_folder(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// A folder of this test's own, gone when it ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nodeplug-log-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("a.log")
        }

        fn lines(&self) -> Vec<String> {
            let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
            let text = read(rotated(&self.log())) + &read(self.log());
            assert!(text.is_empty() || text.ends_with('\n'));
            text.lines().map(str::to_owned).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_line_that_would_make_it_too_large_begins_another_file() {
        let scratch = Scratch::new("rotates");
        for n in 0..25 {
            append(&scratch.log(), 100, format!("{n:09}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::metadata(rotated(&scratch.log())).unwrap().len(), 100);
        let kept: Vec<String> = (10..25).map(|n| format!("{n:09}")).collect();
        assert_eq!(scratch.lines(), kept);
        assert_eq!(fs::metadata(scratch.log()).unwrap().permissions().mode() & 0o7777, 0o640);
        // A line that is larger than the limit has a file of its own.
        append(&scratch.log(), 100, &[b'x'; 300]).unwrap();
        assert_eq!(fs::metadata(scratch.log()).unwrap().len(), 300);
    }

    #[test]
    fn many_writers_lose_no_line_over_a_rotation_and_tear_none() {
        let scratch = Scratch::new("many");
        let (writers, each, length) = (32_usize, 50_usize, 100_usize);
        // Full after three quarters of the lines: rotated once, and nothing goes.
        let most = (writers * each * length * 3 / 4) as u64;
        thread::scope(|scope| {
            for writer in 0..writers {
                let log = scratch.log();
                scope.spawn(move || {
                    for n in 0..each {
                        let line = format!("{writer:03} {n:03} {}\n", "x".repeat(length - 9));
                        append(&log, most, line.as_bytes()).unwrap();
                    }
                });
            }
        });
        let mut lines = scratch.lines();
        assert!(rotated(&scratch.log()).exists());
        assert!(lines.iter().all(|l| l.len() == length - 1 && l.ends_with('x')), "a torn line");
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), writers * each);
    }

    #[test]
    fn who_had_the_file_open_when_it_was_rotated_appends_to_it_or_to_the_next() {
        let scratch = Scratch::new("late");
        append(&scratch.log(), 100, b"1\n").unwrap();
        let folder = folder(&scratch.0).unwrap();
        let name = Path::new("a.log");
        let late = opened(&folder, name).unwrap();
        let stat = fstat(&late).unwrap();
        assert!(rotate(&folder, name, &late, &stat), "the first one renames it");
        assert!(!scratch.log().exists(), "as a kill at this moment leaves it");
        assert!(rotate(&folder, name, &late, &stat), "and for the second it is done");
        append(&scratch.log(), 100, b"2\n").unwrap();
        let other = opened(&folder, name).unwrap();
        assert!(rotate(&folder, name, &late, &stat), "the new file is not taken for the old one");
        assert!(scratch.log().exists());
        File::from(late).write_all(b"late\n").unwrap();
        assert_eq!(scratch.lines(), ["1", "late", "2"]);
        // While somebody rotates, nobody waits.
        let held = File::from(other);
        held.lock().unwrap();
        append(&scratch.log(), 1, b"3\n").unwrap();
        assert_eq!(scratch.lines(), ["1", "late", "2", "3"]);
    }

    #[test]
    fn what_is_no_plain_file_of_one_name_is_left_alone_at_once() {
        let scratch = Scratch::new("hostile");
        let start = Instant::now();
        let refused = |path: &Path| assert!(append(path, 100, b"x\n").is_err(), "{}", path.display());
        let victim = scratch.0.join("victim");
        fs::write(&victim, "v").unwrap();
        symlink(&victim, scratch.0.join("symlink")).unwrap();
        fs::hard_link(&victim, scratch.0.join("link")).unwrap();
        fs::create_dir(scratch.0.join("folder")).unwrap();
        nix::unistd::mkfifo(&scratch.0.join("fifo"), Mode::S_IRWXU).unwrap();
        for name in ["symlink", "link", "folder", "fifo", "none/log"] {
            refused(&scratch.0.join(name));
        }
        // With a reader the FIFO can be opened, and still nothing is written.
        let reader =
            open(&scratch.0.join("fifo"), OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
        refused(&scratch.0.join("fifo"));
        drop(reader);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "v");
        assert!(!scratch.0.join("none").exists());
        assert!(start.elapsed().as_secs() < 10, "nothing waits");
    }

    #[test]
    fn a_file_that_cannot_be_renamed_stops_growing() {
        let scratch = Scratch::new("stuck");
        fs::create_dir_all(rotated(&scratch.log()).join("in the way")).unwrap();
        for _ in 0..40 {
            drop(append(&scratch.log(), 100, b"0123456789\n"));
        }
        let size = fs::metadata(scratch.log()).unwrap().size();
        assert!((100..=220).contains(&size), "{size}");
    }
}
