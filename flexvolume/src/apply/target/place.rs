//! A volume's folder, reached from the folder that holds it, whatever is mounted on it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use node::mountinfo::{self, Mount};
use node::{Context, Error, Kind, Result};

use crate::kernel::mount::{self, How};
use crate::kernel::path::{self, Want};
use crate::observe::GONE;
use crate::policy::PATH;
use crate::target::Target;

/// The folder's name in its folder, which is held open. Nothing here asks the file system that is mounted.
pub struct Place<'a> {
    target: &'a Target,
    parent: OwnedFd,
}

impl<'a> Place<'a> {
    /// Opens the folder that holds it; `None` where that is not there.
    ///
    /// Nothing is ever mounted below a symlink, which no mount of ours walks through, so behind one nothing is
    /// there, either. Where the kubelet's folders were moved behind one with the mount in them, the kubelet
    /// could not remove the volume's folder: that is told.
    pub fn open(target: &'a Target) -> Result<Option<Self>> {
        // Below what is not a folder there is nothing, either.
        let missing = |error: &Error| matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR));
        let root = match path::open_root(target.root()) {
            Err(error) if missing(&error) => return Ok(None),
            other => other?,
        };
        match path::beneath(root.as_fd(), &target.parent(), Want::Folder) {
            Err(error) if missing(&error) => Ok(None),
            Err(error) if error.errno() == Some(libc::ELOOP) => not_moved(target).map(|()| None),
            other => Ok(Some(Self { target, parent: other? })),
        }
    }

    /// The folder that holds it.
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    fn name(&self) -> &OsStr {
        OsStr::new(self.target.volume())
    }

    /// The root of what is mounted last (`O_PATH`). As long as it is open, the mount is busy.
    pub fn top(&self) -> Result<OwnedFd> {
        path::beneath(self.parent(), Path::new(self.name()), Want::Any)
    }

    /// Whether something is mounted. An answer that only a mount can give counts, too.
    pub fn is_mounted(&self) -> Result<bool> {
        let top = match self.top() {
            // Nothing can be mounted on a symlink itself.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ELOOP)) => return Ok(false),
            other => other?,
        };
        match mount::is_root(top.as_fd()) {
            Ok(is) => Ok(is),
            Err(error) if is_of_a_dead_one(&error) => Ok(true),
            Err(error) => Err(error).doing(Kind::Kernel, || format!("look at `{}`", self.target)),
        }
    }

    /// Unmounts what is mounted last; whether something was.
    pub fn unmount(&self, how: How) -> Result<bool> {
        mount::detach(self.parent(), self.name(), how)
    }

    /// The same in a child, which keeps `locks`, until `deadline`.
    pub fn unmount_apart(&self, how: How, deadline: Instant, locks: &[BorrowedFd<'_>]) -> Result<bool> {
        mount::detach_apart(self.parent(), self.name(), how, deadline, locks)
    }

    /// Where it is now: the kernel lists mounts by paths without symlinks.
    fn path(&self) -> Result<PathBuf> {
        Ok(path::real_path(self.parent())?.join(self.name()))
    }

    /// The numbers of the mounts at it and below it.
    pub fn mounts(&self) -> Result<Vec<u64>> {
        let (path, mounts) = (self.path()?, mountinfo::read()?);
        let all = mountinfo::at(&mounts, &path).chain(mountinfo::below(&mounts, &path));
        Ok(all.map(|mount| u64::from(mount.id)).collect())
    }

    /// The points below it on which something is mounted, relative to the folder that holds it; those that
    /// lie deepest first.
    pub fn below(&self) -> Result<Vec<PathBuf>> {
        let (path, mounts) = (self.path()?, mountinfo::read()?);
        let holder = path.parent().unwrap_or(Path::new("/"));
        let relative = |mount: &Mount| mount.point.strip_prefix(holder).ok().map(Path::to_owned);
        let points: BTreeSet<PathBuf> = mountinfo::below(&mounts, &path).filter_map(relative).collect();
        // A path sorts behind the paths that lead to it.
        Ok(points.into_iter().rev().collect())
    }

    /// Unmounts what is mounted on `points`, and never what a symlink leads to; says what is gone. For a
    /// child.
    pub fn unmount_below(&self, points: &[PathBuf]) -> String {
        let mut gone = Vec::new();
        for point in points {
            let (Some(folder), Some(name)) = (point.parent(), point.file_name()) else { continue };
            let Ok(folder) = path::beneath(self.parent(), folder, Want::Folder) else { continue };
            let mut some = false;
            while let Ok(true) = mount::detach(folder.as_fd(), name, How::Plain) {
                some = true;
            }
            gone.extend(some.then(|| format!("`{}`", point.display())));
        }
        gone.join(", ")
    }
}

/// Sees that the volume, whose folder is behind a symlink, is not mounted under another name. What is there
/// may be anybody's, so that it is not touched.
fn not_moved(target: &Target) -> Result<()> {
    let name: PathBuf = [target.uid(), "volumes", target.driver(), target.volume()].iter().collect();
    let mounts = mountinfo::read()?;
    let Some(moved) = mounts.iter().find(|mount| mount.point.ends_with(&name)) else { return Ok(()) };
    let point = moved.point.display();
    let why = format!("a symlink stands in the way, and the volume is mounted at `{point}`");
    Err(Error::caused(Kind::Config, format!("find what is mounted at `{target}`"), why).hint(format!(
        "run `umount {point}`, and set `kubeletRoot` in {PATH} to a folder below which there is no symlink"
    )))
}

fn is_of_a_dead_one(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| GONE.contains(&errno))
}
