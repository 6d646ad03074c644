//! Putting a program where another one execs it, while it may be exec'd.
//!
//! A reader sees the old file, the new file or none, and never a part: the bytes go into a hidden file
//! beside it, which is complete and executable before it is renamed. A program that runs keeps its own
//! file, so that nothing meets ETXTBSY (execve(2)). What has a dot in front is nobody's driver or plugin.
//!
//! One install at a time works in a folder, by a flock on the folder itself. So the hidden names are
//! fixed, and whatever has one of them was left by an install that was killed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Context, Error, Kind, Result, root, store};

/// What a program has: everybody may run it, its owner may replace it.
pub const MODE: u32 = 0o755;

/// How long an install waits for another one in the same folder.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const PIECE: usize = 64 << 10;

/// How the file came to be what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Installed,
    /// It was there with other bytes or another mode.
    Replaced,
    /// It had these bytes and this mode.
    Unchanged,
}

/// Puts a copy of `from` (usually `/proc/self/exe`) into `folder` as `name`, with the permission bits
/// `mode` whatever the umask is.
///
/// Hard links of the old file keep the old bytes. Errors: [`Folder::lock`]'s, and [`Kind::Io`].
pub fn put(from: &Path, folder: &Path, name: &str, mode: u32) -> Result<Outcome> {
    let folder = Folder::lock(folder)?;
    folder.sweep(name)?;
    if is_same(from, &folder.path.join(name), mode)? {
        return Ok(Outcome::Unchanged);
    }
    let swapped = folder.stage(from, None, name, mode)?.swap()?;
    let outcome = if swapped.had { Outcome::Replaced } else { Outcome::Installed };
    swapped.finish()?;
    Ok(outcome)
}

/// A folder that no other install works in for as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    handle: File,
}

impl Folder {
    /// Waits for the folder.
    ///
    /// Errors: [`Kind::Config`] where somebody besides root and the caller may write it, because he could
    /// replace what is run as root; [`Kind::TryAgain`] where another install does not end.
    pub fn lock(path: &Path) -> Result<Self> {
        Self::lock_within(path, PATIENCE)
    }

    fn lock_within(path: &Path, patience: Duration) -> Result<Self> {
        let doing = || format!("open the folder `{}`", path.display());
        let handle = File::open(path).doing(Kind::Io, doing)?;
        let about = handle.metadata().doing(Kind::Io, doing)?;
        guard(path, &about)?;
        let end = Instant::now() + patience;
        loop {
            match handle.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), handle }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(Kind::TryAgain, format!("lock the folder `{}`", path.display()))
                        .hint("another install works in it; see who with `fuser -v`, then try again"));
                }
                Err(TryLockError::Error(e)) => {
                    return Err(Error::caused(Kind::Io, format!("lock the folder `{}`", path.display()), e));
                }
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what killed installs of `name` left.
    pub fn sweep(&self, name: &str) -> Result<()> {
        store::remove(&fresh(&self.path, name))?;
        store::remove(&former(&self.path, name))
    }

    /// Makes a renamed or removed entry survive a power loss.
    pub fn sync(&self) -> Result<()> {
        match self.handle.sync_all() {
            // A file system that knows no fsync of folders.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other.doing(Kind::Io, || format!("sync the folder `{}`", self.path.display())),
        }
    }

    /// Makes the hidden file that shall become `name`; see `write` for `from` and `twin`.
    pub fn stage(self, from: &Path, twin: Option<&Path>, name: &str, mode: u32) -> Result<Staged> {
        write(from, twin, &fresh(&self.path, name), mode)?;
        Ok(Staged { folder: Some(self), name: name.to_owned() })
    }
}

/// A complete hidden file; removed when it is dropped.
#[derive(Debug)]
pub struct Staged {
    /// `None` after the swap.
    folder: Option<Folder>,
    name: String,
}

impl Staged {
    /// The hidden file: `folder/.name.new`.
    pub fn path(&self) -> PathBuf {
        self.folder.as_ref().map_or_else(PathBuf::new, |f| fresh(&f.path, &self.name))
    }

    /// Gives the file its name. The one that had the name before is kept hidden until it is known whether
    /// the new one serves.
    pub fn swap(mut self) -> Result<Swapped> {
        let doing = || format!("replace `{}`", self.name);
        let Some(folder) = &self.folder else { return Err(Error::new(Kind::Internal, doing())) };
        let target = folder.path.join(&self.name);
        let doing = || format!("replace `{}`", target.display());
        let had = keep(&target, &former(&folder.path, &self.name))?;
        fs::rename(fresh(&folder.path, &self.name), &target)
            .inspect_err(|_| drop(fs::remove_file(former(&folder.path, &self.name))))
            .doing(Kind::Io, doing)?;
        let Some(folder) = self.folder.take() else { return Err(Error::new(Kind::Internal, doing())) };
        let swapped = Swapped { folder, name: std::mem::take(&mut self.name), had };
        swapped.folder.sync()?;
        Ok(swapped)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.folder.is_some() {
            // What stays is hidden, and the next install removes it.
            let _ = fs::remove_file(self.path());
        }
    }
}

/// A file that has its name, and beside it, hidden, the one that had it before.
#[derive(Debug)]
#[must_use = "finish it or take it back"]
pub struct Swapped {
    folder: Folder,
    name: String,
    had: bool,
}

impl Swapped {
    /// Whether a file had the name before.
    pub fn had(&self) -> bool {
        self.had
    }

    /// Drops the file that had the name before.
    pub fn finish(self) -> Result<()> {
        store::remove(&former(&self.folder.path, &self.name))?;
        self.folder.sync()
    }

    /// Gives the name back to the file that had it before; without one, nobody has it.
    pub fn take_back(self) -> Result<()> {
        let target = self.folder.path.join(&self.name);
        if self.had {
            fs::rename(former(&self.folder.path, &self.name), &target)
                .doing(Kind::Io, || format!("put the former `{}` back", target.display()))?;
        } else {
            store::remove(&target)?;
        }
        self.folder.sync()
    }
}

/// Makes `to` with the bytes of `from` and the permission bits `mode`, and syncs it; what had the name `to`
/// is removed first. Where `twin` is a file of the same content and mode on the same file system, `to`
/// becomes another name of it: several names of one program then share its pages in memory.
pub fn write(from: &Path, twin: Option<&Path>, to: &Path, mode: u32) -> Result<()> {
    store::remove(to)?;
    if twin.is_some_and(|twin| fs::hard_link(twin, to).is_ok()) {
        return Ok(());
    }
    let copy = || -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
        io::copy(&mut source, &mut target)?;
        // The umask took bits from the mode above.
        target.set_permissions(fs::Permissions::from_mode(mode))?;
        target.sync_all()
    };
    copy()
        .inspect_err(|_| drop(fs::remove_file(to)))
        .doing(Kind::Io, || format!("copy `{}` to `{}`", from.display(), to.display()))
}

/// Makes the hidden file that shall become `path`, with `content` and the permission bits `mode`, and syncs it.
/// What has the hidden name was left by a killed install: one works in a folder at a time.
pub fn draft(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf> {
    let hidden = store::beside(path);
    store::remove(&hidden)?;
    let put = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&hidden)?;
        io::Write::write_all(&mut file, content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    };
    put()
        .inspect_err(|_| drop(fs::remove_file(&hidden)))
        .doing(Kind::Io, || format!("write `{}`", hidden.display()))?;
    Ok(hidden)
}

/// Gives the draft of `path` its name, which survives a power loss.
pub fn publish(path: &Path) -> Result<()> {
    let doing = || format!("replace `{}`", path.display());
    fs::rename(store::beside(path), path).doing(Kind::Io, doing)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    match File::open(folder).doing(Kind::Io, doing)?.sync_all() {
        // A file system that knows no fsync of folders.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other.doing(Kind::Io, doing),
    }
}

/// Whether `path` is a plain file with the bytes of `from` and the permission bits `mode`.
pub fn is_same(from: &Path, path: &Path, mode: u32) -> Result<bool> {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).doing(Kind::Io, || format!("look at `{}`", path.display())),
    };
    if !about.is_file() || about.mode() & 0o7777 != mode {
        return Ok(false);
    }
    let equal = || -> io::Result<bool> {
        let (left, right) = (root::open(from)?, File::open(path)?);
        if left.metadata()?.len() != right.metadata()?.len() {
            return Ok(false);
        }
        same_bytes(left, right)
    };
    equal().doing(Kind::Io, || format!("compare `{}` with `{}`", path.display(), from.display()))
}

fn same_bytes(mut left: File, mut right: File) -> io::Result<bool> {
    let (mut a, mut b) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        a.clear();
        b.clear();
        left.by_ref().take(PIECE as u64).read_to_end(&mut a)?;
        right.by_ref().take(PIECE as u64).read_to_end(&mut b)?;
        if a != b || a.is_empty() {
            return Ok(a == b);
        }
    }
}

/// Whoever may write the folder may replace what root runs from it.
fn guard(path: &Path, about: &fs::Metadata) -> Result<()> {
    let caller = nix::unistd::geteuid().as_raw();
    let owned = about.uid() == 0 || about.uid() == caller;
    let by_group = about.mode() & 0o020 != 0 && about.gid() != 0;
    let by_others = about.mode() & 0o002 != 0;
    if owned && !by_group && !by_others {
        return Ok(());
    }
    let who = format!("owner {}, group {}, mode {:04o}", about.uid(), about.gid(), about.mode() & 0o7777);
    let shown = path.display();
    Err(Error::caused(
        Kind::Config,
        format!("install into `{shown}`"),
        format!("others may write it ({who})"),
    )
    .hint(format!("chown root:root {shown} && chmod go-w {shown}")))
}

/// Gives `target` the second name `old`; `false` where it is not there.
fn keep(target: &Path, old: &Path) -> Result<bool> {
    let doing = || format!("keep the former `{}`", target.display());
    store::remove(old)?;
    match fs::hard_link(target, old) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        // A file system without hard links.
        Err(_) => {
            let mode = fs::metadata(target).doing(Kind::Io, doing)?.mode() & 0o7777;
            write(target, None, old, mode)?;
            Ok(true)
        }
    }
}

fn fresh(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.new"))
}

fn former(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.old"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command};

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("node-install-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("bin")).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, content).unwrap();
            path
        }

        fn bin(&self) -> PathBuf {
            self.0.join("bin")
        }

        fn names(&self) -> Vec<String> {
            let mut names = store::names(&self.bin()).unwrap();
            names.sort();
            names
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_installed_then_unchanged_then_replaced() {
        let room = Room::new("outcomes");
        let (one, two) = (room.file("one", "1"), room.file("two", "2"));
        let target = room.bin().join("plugin");
        let table = [
            (&one, MODE, Outcome::Installed),
            (&one, MODE, Outcome::Unchanged),
            (&two, MODE, Outcome::Replaced),
            (&two, 0o700, Outcome::Replaced),
        ];
        for (from, mode, expect) in table {
            assert_eq!(put(from, &room.bin(), "plugin", mode).unwrap(), expect);
            assert_eq!(fs::read(&target).unwrap(), fs::read(from).unwrap());
            assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, mode);
            assert_eq!(room.names(), ["plugin"]);
        }
    }

    #[test]
    fn what_a_killed_install_left_is_removed_by_the_next() {
        let room = Room::new("stale");
        room.file("bin/.plugin.new", "half");
        room.file("bin/.plugin.old", "former");
        room.file("bin/.other.new", "not ours to touch");
        put(&room.file("one", "1"), &room.bin(), "plugin", MODE).unwrap();
        assert_eq!(room.names(), [".other.new", "plugin"]);
    }

    #[test]
    fn another_name_of_the_old_file_keeps_the_old_bytes() {
        let room = Room::new("links");
        put(&room.file("one", "1"), &room.bin(), "plugin", MODE).unwrap();
        fs::hard_link(room.bin().join("plugin"), room.bin().join("twin")).unwrap();
        put(&room.file("two", "2"), &room.bin(), "plugin", MODE).unwrap();
        assert_eq!(fs::read(room.bin().join("twin")).unwrap(), b"1");
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let room = Room::new("symlink");
        let victim = room.file("victim", "mine");
        symlink(&victim, room.bin().join("plugin")).unwrap();
        symlink(&victim, room.bin().join(".plugin.new")).unwrap();
        put(&room.file("one", "1"), &room.bin(), "plugin", MODE).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert!(fs::symlink_metadata(room.bin().join("plugin")).unwrap().is_file());
    }

    /// Another test's fork may hold the file that was just written open until its exec: ETXTBSY.
    fn sleeper(program: &Path) -> Child {
        loop {
            match Command::new(program).arg("60").spawn() {
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy => thread::yield_now(),
                spawned => return spawned.unwrap(),
            }
        }
    }

    #[test]
    fn a_running_program_is_replaced_and_runs_on() {
        let room = Room::new("running");
        put(Path::new("/bin/sleep"), &room.bin(), "plugin", MODE).unwrap();
        let target = room.bin().join("plugin");
        let mut running = sleeper(&target);
        assert_eq!(
            put(&room.file("one", "1"), &room.bin(), "plugin", MODE).unwrap(),
            Outcome::Replaced,
            "no ETXTBSY"
        );
        assert!(running.try_wait().unwrap().is_none());
        running.kill().unwrap();
        running.wait().unwrap();
    }

    #[test]
    fn a_swap_is_taken_back_to_what_was_there() {
        let room = Room::new("back");
        let (one, two) = (room.file("one", "1"), room.file("two", "2"));
        let swap = |from: &Path| {
            let folder = Folder::lock(&room.bin()).unwrap();
            folder.stage(from, None, "plugin", MODE).unwrap().swap().unwrap()
        };
        swap(&one).take_back().unwrap();
        assert!(room.names().is_empty(), "nothing was there");
        swap(&one).finish().unwrap();
        swap(&two).take_back().unwrap();
        assert_eq!(fs::read(room.bin().join("plugin")).unwrap(), b"1");
        assert_eq!(room.names(), ["plugin"]);
    }

    #[test]
    fn a_failed_install_leaves_nothing_and_says_what_it_did() {
        let room = Room::new("fails");
        let error = put(Path::new("/nonexistent"), &room.bin(), "plugin", MODE).unwrap_err();
        assert!(error.chain().starts_with("copy `/nonexistent` to"), "{}", error.chain());
        fs::create_dir(room.bin().join("plugin")).unwrap();
        put(&room.file("one", "1"), &room.bin(), "plugin", MODE).unwrap_err();
        assert_eq!(room.names(), ["plugin"]);
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused_with_the_remedy() {
        let room = Room::new("guard");
        let one = room.file("one", "1");
        for (mode, safe) in [(0o755, true), (0o700, true), (0o757, false), (0o1777, false)] {
            fs::set_permissions(room.bin(), fs::Permissions::from_mode(mode)).unwrap();
            let result = put(&one, &room.bin(), "plugin", MODE);
            assert_eq!(result.is_ok(), safe, "{mode:o}");
            if let Err(error) = result {
                assert_eq!(error.kind(), Kind::Config);
                assert!(error.advice().unwrap().contains("chmod go-w"), "{mode:o}");
            }
        }
    }

    #[test]
    fn a_second_install_waits_and_then_gives_up() {
        let room = Room::new("lock");
        let first = Folder::lock(&room.bin()).unwrap();
        let error = Folder::lock_within(&room.bin(), Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), Kind::TryAgain);
        drop(first);
        Folder::lock_within(&room.bin(), Duration::ZERO).unwrap();
    }
}
