//! Finds drivers: all of them once, then those in whose folder something happened.
//!
//! The kubelet takes events as they come; here they wait in the kernel's queue until the next lookup, so
//! that a test sees the same each time.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::plugin::{Caller, Plugin, Unloaded, executable};

/// What fsnotify asks the kernel for.
const WATCHED: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF);

/// The drivers that are loaded, and the watch over their folder.
#[derive(Debug)]
pub(crate) struct Plugins {
    folder: PathBuf,
    caller: Caller,
    loaded: BTreeMap<String, Arc<Plugin>>,
    inotify: OwnedFd,
    watches: BTreeMap<i32, PathBuf>,
    all_needed: bool,
    /// Driver folders to look at, and whether they are gone. One whose `init` fails stays here.
    pending: BTreeMap<PathBuf, Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    AddOrUpdate,
    Remove,
}

/// Why a driver is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// Nobody answers to that name.
    Unmatched,
    /// The kubelet died while it looked.
    Crash(String),
}

impl Plugins {
    /// Watches `folder`, which is made where it is missing. Nothing is loaded before the first lookup.
    pub(crate) fn new(folder: &Path, caller: Caller) -> Self {
        if !folder.exists() {
            caller.journal.log(format!(
                "W Flexvolume plugin directory at {} does not exist. Recreating.",
                folder.display()
            ));
            fs::create_dir_all(folder).expect("make the folder of drivers");
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        let mut plugins = Self {
            folder: folder.to_owned(),
            caller,
            loaded: BTreeMap::new(),
            inotify,
            watches: BTreeMap::new(),
            all_needed: true,
            pending: BTreeMap::new(),
        };
        plugins.watch(folder);
        plugins
    }

    /// The driver of this name. Whatever has to be loaded or loaded again is loaded first, one after the
    /// other, and the caller holds the lock that every operation of the node needs.
    pub(crate) fn find(&mut self, driver: &str) -> Result<Arc<Plugin>, NotFound> {
        self.take_events();
        if self.all_needed {
            self.load_all()?;
        } else {
            self.load_pending()?;
        }
        self.loaded.get(driver).cloned().ok_or(NotFound::Unmatched)
    }

    fn load_all(&mut self) -> Result<(), NotFound> {
        let read = fs::read_dir(&self.folder).expect("read the folder of drivers");
        // A link to a folder is no folder here.
        let folders = read.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut folders: Vec<PathBuf> = folders.map(|e| e.path()).filter(|p| !hidden(p)).collect();
        folders.sort();
        for folder in folders {
            // One that fails is not tried again before something happens in its folder.
            self.load(&folder)?;
        }
        self.all_needed = false;
        Ok(())
    }

    fn load_pending(&mut self) -> Result<(), NotFound> {
        for (folder, change) in self.pending.clone() {
            let done = match change {
                Change::AddOrUpdate => self.load(&folder)?,
                Change::Remove => {
                    let name = folder.file_name().unwrap_or_default().to_string_lossy().replace('~', "/");
                    self.loaded.remove(&name);
                    true
                }
            };
            if done {
                self.pending.remove(&folder);
            }
        }
        Ok(())
    }

    fn load(&mut self, folder: &Path) -> Result<bool, NotFound> {
        match Plugin::load(&self.caller, folder) {
            Ok(plugin) => {
                self.loaded.insert(plugin.driver.clone(), Arc::new(plugin));
                Ok(true)
            }
            Err(Unloaded::Failed(why)) => {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                self.caller.journal.log(format!(
                    "E Error dynamically probing plugins: error creating Flexvolume plugin from directory {name}, \
                     skipping. Error: {why}"
                ));
                Ok(false)
            }
            Err(Unloaded::Crash(why)) => Err(NotFound::Crash(why)),
        }
    }

    /// Watches a folder and those below it; links are not followed.
    fn watch(&mut self, path: &Path) {
        if !fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            return;
        }
        // The folder may be gone again, and then there is nothing to watch.
        if let Ok(id) = inotify::add_watch(&self.inotify, path, WATCHED) {
            self.watches.insert(id, path.to_owned());
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            self.watch(&entry.path());
        }
    }

    fn take_events(&mut self) {
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|n| n.to_string_lossy().into_owned());
            events.push((event.wd(), event.events(), name));
        }
        for (watch, what, name) in events {
            let Some(folder) = self.watches.get(&watch).cloned() else { continue };
            if what.intersects(ReadFlags::IGNORED) {
                self.watches.remove(&watch);
                continue;
            }
            if what.intersects(ReadFlags::MOVE_SELF) {
                let _ = inotify::remove_watch(&self.inotify, watch);
            }
            let path = name.map_or_else(|| folder.clone(), |name| folder.join(name));
            self.take_event(&path, what);
        }
    }

    fn take_event(&mut self, path: &Path, what: ReadFlags) {
        let removed = what.intersects(ReadFlags::DELETE | ReadFlags::DELETE_SELF);
        if hidden(path) {
            return;
        }
        if path == self.folder {
            if removed {
                drop(fs::create_dir_all(path));
                self.watch(path);
            }
            return;
        }
        if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.watch(path);
        }
        let below = path.strip_prefix(&self.folder).ok();
        let Some(first) = below.and_then(|p| p.components().next()) else { return };
        let driver = self.folder.join(first);
        let gone = removed && (path == driver || path == executable(&driver));
        if !self.all_needed {
            self.pending.insert(driver, if gone { Change::Remove } else { Change::AddOrUpdate });
        }
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'))
}
