//! Waits for the kernel to tell of a change: of folders, and of devices.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::kernel::inotify::Inotify;
use crate::kernel::ready::readable;
use crate::kernel::uevent::Uevents;

/// What was told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Folders in which something came, went or was moved.
    pub folders: BTreeSet<PathBuf>,
    /// What came or went there may have been a socket.
    pub sockets: bool,
    /// A folder that was watched is gone, or another one has its path by now.
    pub ended: bool,
    /// Subsystems in which a device came, went or changed.
    pub subsystems: BTreeSet<String>,
    /// How many announcements of devices that were.
    pub uevents: u64,
    /// Something was lost: everything may have changed.
    pub all: bool,
}

/// Both, as far as the node lets us.
#[derive(Debug)]
pub struct Watch {
    inotify: Option<AsyncFd<Inotify>>,
    uevents: Option<AsyncFd<Uevents>>,
    /// Folders of which not all can be watched.
    blind: bool,
}

impl Watch {
    /// What can't be had is said once, and is made good by looking again and again.
    pub fn start() -> Self {
        let inotify = Inotify::new().and_then(readable);
        let uevents = Uevents::new().and_then(readable);
        for error in [inotify.as_ref().err(), uevents.as_ref().err()].into_iter().flatten() {
            warn!(hint = error.advice(), "changes are noticed late, by looking for them: {}", error.chain());
        }
        Self { inotify: inotify.ok(), uevents: uevents.ok(), blind: false }
    }

    /// Whether changes of folders come only to those who look.
    pub fn is_blind(&self) -> bool {
        self.inotify.is_none() || self.blind
    }

    /// Watches exactly these folders; see [`Inotify::watch`].
    pub fn folders(&mut self, folders: &BTreeSet<PathBuf>, contents: &BTreeSet<PathBuf>, anew: bool) {
        // What could not be had may be had by now; it was said already that it is not there.
        if anew && self.inotify.is_none() {
            self.inotify = Inotify::new().and_then(readable).ok();
        }
        let Some(inotify) = &mut self.inotify else { return };
        match inotify.get_mut().watch(folders, contents, anew) {
            Ok(()) => self.blind = false,
            Err(error) if self.blind => drop(error),
            Err(error) => {
                self.blind = true;
                warn!(
                    hint = error.advice(),
                    "changes are noticed late, by looking for them: {}",
                    error.chain()
                );
            }
        }
    }

    /// Waits for something to be told.
    pub async fn told(&mut self) -> Told {
        tokio::select! {
            told = read(self.inotify.as_mut(), Inotify::read) => match told {
                Ok(told) => Told {
                    folders: told.folders,
                    sockets: told.sockets,
                    ended: told.ended,
                    all: told.all,
                    ..Told::default()
                },
                Err(_) => Told { all: true, ..Told::default() },
            },
            told = read(self.uevents.as_mut(), |uevents| uevents.read()) => match told {
                Ok(told) => {
                    Told { subsystems: told.subsystems, uevents: told.count, all: told.all, ..Told::default() }
                }
                Err(_) => Told { all: true, ..Told::default() },
            },
        }
    }
}

/// Reads when there is something; for ever where there is nobody to read from.
async fn read<T: AsRawFd, R>(
    from: Option<&mut AsyncFd<T>>,
    read: impl Fn(&mut T) -> io::Result<R>,
) -> io::Result<R> {
    let Some(from) = from else { return std::future::pending().await };
    loop {
        let mut ready = from.readable_mut().await?;
        if let Ok(told) = ready.try_io(|inner| read(inner.get_mut())) {
            return told;
        }
    }
}
