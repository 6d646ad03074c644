//! Network namespaces by path: opened, told apart, entered and left again.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::{Context, Error, Kind, Result, kernel};

/// Whether the process of this folder of /proc has the network of this process; `None` where that can't be told.
///
/// Its `ns/net` is for those who may trace it. `net/dev` is for all, and each network's own file, too.
pub fn is_shared_with(process: &Path) -> Option<bool> {
    let of = |process: &Path| {
        let about = std::fs::metadata(process.join("net/dev")).ok()?;
        Some((about.dev(), about.ino()))
    };
    Some(of(Path::new("/proc/self"))? == of(process)?)
}

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    identity: (u64, u64),
}

impl Namespace {
    /// Opens the namespace at `path`. A path that is not there is [`Kind::UnknownContainer`]; anything
    /// that is not a namespace file is [`Kind::Namespace`].
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("open the network namespace `{}`", path.display());
        // Opening a FIFO or a device could block or act: look first.
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(e).doing(Kind::UnknownContainer, doing);
            }
            Err(e) => return Err(e).doing(Kind::Namespace, doing),
        };
        if metadata.file_type().is_fifo() || metadata.file_type().is_char_device() || metadata.is_dir() {
            return Err(not_one(path));
        }
        let file = File::open(path).doing(Kind::Namespace, doing)?;
        if !kernel::is_network_namespace(&file) {
            return Err(not_one(path));
        }
        let metadata = file.metadata().doing(Kind::Namespace, doing)?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// The namespace that this thread is in.
    pub fn current() -> Result<Self> {
        let doing = || "open this thread's own network namespace".to_owned();
        let file = File::open("/proc/thread-self/ns/net").doing(Kind::Io, doing)?;
        let metadata = file.metadata().doing(Kind::Io, doing)?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Whether both are the same namespace.
    pub fn is(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Device and inode of the namespace's file, which no other namespace has as long as this one is there.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The descriptor, for IFLA_NET_NS_FD.
    pub fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Moves this thread into the namespace for `work`, and back.
    pub fn within<T>(&self, home: &Self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.enter()?;
        let result = work();
        home.enter()?;
        result
    }

    /// Moves this thread into the namespace.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .doing(Kind::Kernel, || "enter the network namespace".to_owned())
            .map_err(|e| e.hint("run as root or grant CAP_SYS_ADMIN"))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn not_one(path: &Path) -> Box<Error> {
    Error::new(Kind::Namespace, format!("`{}` is not a network namespace", path.display()))
        .hint("CNI_NETNS must be a path such as /var/run/netns/NAME or /proc/PID/ns/net")
}
