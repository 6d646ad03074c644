//! Small state files: written whole or not at all, read with "not there" as a value, guarded by flock.
//!
//! Nothing is fsynced. State describes this boot's kernel objects; a power loss ends the boot, and
//! what an earlier boot wrote is dropped (see [`crate::boot`]). A `kill -9` loses no page-cache write.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use crate::{Context, Error, Kind, Result};

/// Room for every state file but a record with many addresses.
const USUAL: usize = 1024;
/// No state file is as large; whatever is, is none of ours.
pub const LARGEST: u64 = 1 << 20;

/// How long [`Lock::within`] sleeps between two tries: from the first to the longest.
const NAPS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// An exclusive flock(2) for as long as it lives, and for as long as a child lives that inherited its
/// descriptor.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the exclusive flock on `path`, making the file where it is missing. For a file that
    /// nobody removes.
    pub fn exclusive(path: &Path) -> Result<Self> {
        let doing = || format!("lock `{}`", path.display());
        let file = Self::file(path, 0).doing(Kind::Io, doing)?;
        file.lock().doing(Kind::Io, doing)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Waits for a shared flock on `path`, making the file where it is missing: many may have it at once,
    /// and none beside an exclusive one.
    pub fn shared(path: &Path) -> Result<Self> {
        let doing = || format!("lock `{}`", path.display());
        let file = Self::file(path, 0).doing(Kind::Io, doing)?;
        file.lock_shared().doing(Kind::Io, doing)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Takes the exclusive flock on `path`, making the file where it is missing. One that somebody else
    /// still holds after `wait` is [`Kind::TryAgain`]. The file may be one that its holder removes (see
    /// [`Lock::remove`]).
    pub fn within(path: &Path, wait: Duration) -> Result<Self> {
        let doing = || format!("lock `{}`", path.display());
        let deadline = Instant::now() + wait;
        let mut nap = NAPS.0;
        loop {
            let lock = Self {
                file: Self::file(path, libc::O_NOFOLLOW).doing(Kind::Io, doing)?,
                path: path.to_owned(),
            };
            match lock.file.try_lock() {
                Ok(()) if lock.is_named() => return Ok(lock),
                // The holder before us took the name away, and somebody may have made it anew.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(taken(path));
                    }
                    thread::sleep(nap.min(left));
                    nap = (nap * 2).min(NAPS.1);
                }
                Err(TryLockError::Error(e)) => return Err(e).doing(Kind::Io, doing),
            }
        }
    }

    /// Takes the file's name away while the lock is held; who waits for it in [`Lock::within`] notices.
    /// A name that is another file's by now stays.
    pub fn remove(self) -> Result<()> {
        if self.is_named() { remove(&self.path) } else { Ok(()) }
    }

    /// Gives the lock up, and takes the file's name away unless a child that inherited the lock lives on
    /// for longer than `dying` (or somebody else has it by now).
    pub fn remove_if_last(self, dying: Duration) -> Result<()> {
        let path = self.path.clone();
        drop(self);
        match Self::within(&path, dying) {
            Ok(lock) => lock.remove(),
            Err(error) if error.kind() == Kind::TryAgain => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether its file has this name.
    pub fn is_called(&self, name: &str) -> bool {
        self.path.file_name().is_some_and(|own| own == name)
    }

    fn file(path: &Path, flags: i32) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(flags).open(path)
    }

    /// Whether the path still names the locked file.
    fn is_named(&self) -> bool {
        let identity = |m: fs::Metadata| (m.dev(), m.ino());
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(held), Ok(named)) => identity(held) == identity(named),
            _ => false,
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn taken(path: &Path) -> Box<Error> {
    Error::caused(
        Kind::TryAgain,
        format!("lock `{}`", path.display()),
        "an earlier call is still in progress",
    )
    .hint(format!("try again when it has ended; `fuser -v {}` names the process", path.display()))
}

/// Makes a folder and its parents.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).doing(Kind::Io, || format!("make the folder `{}`", path.display()))
}

/// Replaces `path` by `content` with mode 0600, so that a reader and a `kill -9` see the old or the new
/// file and never a part. Two writers at the same moment would have one temporary file: the caller holds a lock, or is
/// the only one.
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

/// Makes an empty file at `path`, where there is none. Any number of callers may do so at the same moment.
pub fn touch(path: &Path) -> Result<()> {
    let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    made.map(drop).doing(Kind::Io, || format!("make `{}`", path.display()))
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

/// The content of a file that anybody may have put there: what is no plain file could keep the reader waiting (a
/// FIFO), and is an error at once, as is one of more than `most` bytes.
pub fn read_plain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let mut content = Vec::with_capacity(USUAL);
    file.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(content)
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
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder that is gone when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("node-store-{}-{next}", std::process::id()));
            make_folder(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn many_touch_a_file_at_once_and_none_fails() {
        let scratch = Scratch::new();
        let path = scratch.0.join("note");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..200).for_each(|_| touch(&path).unwrap()));
            }
        });
        assert_eq!(read(&path).unwrap().unwrap(), b"");
        assert_eq!(names(&scratch.0).unwrap(), ["note"]);
    }

    #[test]
    fn a_write_replaces_the_whole_file_and_removal_is_idempotent() {
        let scratch = Scratch::new();
        let folder = scratch.0.join("sub");
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

    #[test]
    fn what_is_no_plain_file_or_too_large_is_an_error_at_once() {
        let scratch = Scratch::new();
        let path = |name: &str| scratch.0.join(name);
        fs::write(path("plain"), "12345").unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(read_plain(&path("plain"), 5).unwrap(), b"12345");
        let why = |name: &str| read_plain(&path(name), 4).unwrap_err().to_string();
        assert_eq!(why("plain"), "it is larger than 4 bytes");
        // Nobody writes to it: a reader that waits would wait here.
        assert_eq!(why("fifo"), "it is no plain file");
        assert_eq!(why("."), "it is no plain file");
        assert_eq!(read_plain(&path("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_lock_that_stays_taken_is_in_progress() {
        let scratch = Scratch::new();
        let path = scratch.0.join("t");
        let held = Lock::within(&path, Duration::ZERO).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        for wait in [Duration::ZERO, Duration::from_millis(20)] {
            let error = Lock::within(&path, wait).unwrap_err();
            assert_eq!(error.kind(), Kind::TryAgain);
            assert!(error.chain().ends_with("an earlier call is still in progress"), "{}", error.chain());
            assert!(error.advice().unwrap().contains("fuser -v"));
        }
        drop(held);
        Lock::within(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_lock_is_not_taken_through_a_symlink() {
        let scratch = Scratch::new();
        std::os::unix::fs::symlink(scratch.0.join("elsewhere"), scratch.0.join("t")).unwrap();
        let error = Lock::within(&scratch.0.join("t"), Duration::ZERO).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (Kind::Io, Some(libc::ELOOP)));
        assert!(!scratch.0.join("elsewhere").exists());
    }

    #[test]
    fn a_child_that_inherited_the_lock_keeps_it() {
        let scratch = Scratch::new();
        let path = scratch.0.join("t");
        let lock = Lock::within(&path, Duration::ZERO).unwrap();
        let inherited = Stdio::from(lock.as_fd().try_clone_to_owned().unwrap());
        let mut child = Command::new("sleep").arg("60").stdin(inherited).spawn().unwrap();
        drop(lock);
        assert_eq!(Lock::within(&path, Duration::from_millis(5)).unwrap_err().kind(), Kind::TryAgain);
        child.kill().unwrap();
        child.wait().unwrap();
        Lock::within(&path, LONG).unwrap();
    }

    #[test]
    fn a_lock_outlives_its_holder_in_a_child_unless_it_is_removed() {
        let scratch = Scratch::new();
        let path = scratch.0.join("t");
        let lock = Lock::within(&path, Duration::ZERO).unwrap();
        let inherited = Stdio::from(lock.as_fd().try_clone_to_owned().unwrap());
        let mut child = Command::new("sleep").arg("60").stdin(inherited).spawn().unwrap();
        lock.remove_if_last(Duration::from_millis(5)).unwrap();
        assert_eq!(Lock::within(&path, Duration::ZERO).unwrap_err().kind(), Kind::TryAgain);
        child.kill().unwrap();
        child.wait().unwrap();
        Lock::within(&path, LONG).unwrap().remove_if_last(Duration::ZERO).unwrap();
        assert!(names(&scratch.0).unwrap().is_empty());
    }

    #[test]
    fn one_holder_at_a_time_even_when_each_removes_the_file() {
        let scratch = Scratch::new();
        let (path, inside) = (scratch.0.join("t"), AtomicU32::new(0));
        thread::scope(|scope| {
            for number in 0..8 {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || {
                    for round in 0..50 {
                        let lock = Lock::within(path, LONG).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        if (number + round) % 3 == 0 {
                            drop(lock);
                        } else {
                            lock.remove().unwrap();
                        }
                    }
                });
            }
        });
        Lock::within(&path, LONG).unwrap().remove().unwrap();
        assert!(names(&scratch.0).unwrap().is_empty());
    }

    #[test]
    fn removal_leaves_a_name_that_is_another_files() {
        let scratch = Scratch::new();
        let path = scratch.0.join("t");
        let lock = Lock::within(&path, Duration::ZERO).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"another").unwrap();
        lock.remove().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"another");
    }
}
