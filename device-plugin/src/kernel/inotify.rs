//! inotify(7): one instance for everything, since an unprivileged node has 128 of them for all its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Files that come and go. What is written into them is not told: on /dev that is every write to a terminal.
const COMINGS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The path leads to that folder no longer.
const ENDS: ReadFlags = ReadFlags::IGNORED.union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT);

/// An inotify instance and the folders that it watches.
#[derive(Debug)]
pub struct Inotify {
    descriptor: OwnedFd,
    /// By watch descriptor: the paths that lead to that folder, and whether what is written there is told.
    watched: BTreeMap<i32, BTreeSet<(PathBuf, bool)>>,
}

/// What was told since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Folders in which something came, went or was moved.
    pub folders: BTreeSet<PathBuf>,
    /// What came or went has a socket's name (`*.sock`), or no name.
    pub sockets: bool,
    /// A folder that was watched is gone, or another one has its path by now.
    pub ended: bool,
    /// Something was lost: every folder may have changed.
    pub all: bool,
}

impl Inotify {
    /// An instance that watches nothing yet.
    pub fn new() -> Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| {
            let error = Error::caused(Kind::Kernel, "start inotify", io::Error::from(e));
            match e {
                Errno::MFILE => error.hint("raise fs.inotify.max_user_instances"),
                _ => error,
            }
        })?;
        Ok(Self { descriptor, watched: BTreeMap::new() })
    }

    /// Watches exactly these folders: what is there of them. `contents` are those where a file that was written and
    /// closed is told of, too. What is watched already is left as it is, unless `anew`: a folder may have been exchanged
    /// far above, which nothing tells.
    pub fn watch(
        &mut self,
        folders: &BTreeSet<PathBuf>,
        contents: &BTreeSet<PathBuf>,
        anew: bool,
    ) -> Result<()> {
        let known: BTreeMap<&(PathBuf, bool), i32> =
            self.watched.iter().flat_map(|(watch, paths)| paths.iter().map(|path| (path, *watch))).collect();
        let mut watched: BTreeMap<i32, BTreeSet<(PathBuf, bool)>> = BTreeMap::new();
        for folder in folders.union(contents) {
            let wanted = (folder.clone(), contents.contains(folder));
            let before = known.get(&wanted).copied().filter(|_| !anew);
            let watch = match before {
                Some(watch) => Some(watch),
                None => {
                    self.add(folder, if wanted.1 { COMINGS | WatchFlags::CLOSE_WRITE } else { COMINGS })?
                }
            };
            if let Some(watch) = watch {
                watched.entry(watch).or_default().insert(wanted);
            }
        }
        for gone in self.watched.keys().filter(|watch| !watched.contains_key(watch)) {
            // The kernel has dropped it already where the folder is gone.
            let _ = inotify::remove_watch(&self.descriptor, *gone);
        }
        self.watched = watched;
        Ok(())
    }

    /// None where the folder is not there, or is none.
    fn add(&self, folder: &Path, flags: WatchFlags) -> Result<Option<i32>> {
        match inotify::add_watch(&self.descriptor, folder, flags) {
            Ok(watch) => Ok(Some(watch)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(None),
            Err(e) => {
                let failed = Err(io::Error::from(e));
                let failed = failed.doing(Kind::Kernel, || format!("watch `{}`", folder.display()));
                match e {
                    Errno::NOSPC => failed.map_err(|error| error.hint("raise fs.inotify.max_user_watches")),
                    _ => failed,
                }
            }
        }
    }

    /// Takes all that is there to be read; `WouldBlock` where there is nothing.
    pub fn read(&mut self) -> io::Result<Told> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.descriptor, &mut buffer);
        let mut told = Told::default();
        let mut gone = Vec::new();
        let outcome = loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => told.all = true,
                Ok(event) => {
                    if event.events().intersects(ENDS) {
                        gone.push(event.wd());
                        told.ended = true;
                    }
                    told.sockets |= event.file_name().is_none_or(|name| name.to_bytes().ends_with(b".sock"));
                    let folders = self.watched.get(&event.wd()).into_iter().flatten();
                    told.folders.extend(folders.map(|(folder, _)| folder.clone()));
                }
                Err(Errno::AGAIN) if told == Told::default() => break Err(Errno::AGAIN.into()),
                Err(Errno::AGAIN) => break Ok(told),
                Err(Errno::INTR) => {}
                Err(e) => break Err(e.into()),
            }
        };
        for watch in gone {
            // One that was moved is watched still; what was removed is not.
            let _ = inotify::remove_watch(&self.descriptor, watch);
            self.watched.remove(&watch);
        }
        outcome
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Inotify {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
