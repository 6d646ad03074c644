//! Whether what was found below a root of the policy is fit for pods. The policy saw a path; what is there may
//! be something else by way of the root's symlinks or of mounts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use node::mountinfo::{self, Mount};
use node::{Error, Kind, Result};

use crate::apply::Hands;
use crate::kernel::path::{self, Want};
use crate::kernel::workshop;
use crate::observe::{self, Part};

const HINT: &str = "no policy can allow it; choose a folder of its own for the data of pods";

/// Sees that `relative` below `root` answers: it may lie on a share or on FUSE. Where that does not, a child waits
/// in the kernel, where no signal wakes it, and this process does not. Says what is mounted.
pub fn answers(root: &Path, relative: &Path, hands: &Hands<'_>) -> Result<Vec<Mount>> {
    let mounts = mountinfo::read()?;
    if is_at_hand(&root.join(relative), &mounts) {
        return Ok(mounts);
    }
    let look = || {
        let opened = path::open_root(root)?;
        let found = path::beneath(opened.as_fd(), relative, Want::Any)?;
        path::is_kernel_filesystem(found.as_fd()).map(|_| Vec::new())
    };
    match workshop::apart(hands.patience(), &hands.locked(), look) {
        Err(error) if error.kind() == Kind::TryAgain => {
            let path = root.join(relative);
            Err(Error::caused(Kind::TryAgain, format!("look at `{}`", path.display()), error))
        }
        // What else it met is met again, and told with its remedy.
        _ => mountinfo::read(),
    }
}

/// Whether a path is walked to without asking anybody: it leads through local file systems alone, and the kernel
/// knows each of its folders. What `/` lies on, this process could not have been started from if it did not answer.
fn is_at_hand(path: &Path, mounts: &[Mount]) -> bool {
    let on_the_way = |mount: &&Mount| mount.point != Path::new("/") && path.starts_with(&mount.point);
    mounts.iter().filter(on_the_way).all(|mount| path::is_local_kind(&mount.kind)) && path::is_known(path)
}

/// Opens a root of the policy. One that leads to the whole node, by a symlink, is none: what is made below it
/// and what is there are refused alike.
pub fn root(path: &Path) -> Result<OwnedFd> {
    // One without a symlink is what its name says.
    if let Some(root) = path::open_straight(path).filter(|_| path != Path::new("/")) {
        return Ok(root);
    }
    let root = path::open_root(path)?;
    if path::real_path(root.as_fd())? == Path::new("/") {
        let doing = format!("use the root `{}`", path.display());
        return Err(Error::caused(Kind::Config, doing, "it is `/`: the whole node").hint(HINT));
    }
    Ok(root)
}

/// Refuses what is the node's own, the kubelet's or the kernel's. `shown` is the pod's word for it.
/// `mounts` is what [`answers`] has found.
pub fn fit(
    found: BorrowedFd<'_>,
    shown: &Path,
    kubelet_root: &Path,
    part: Part<'_>,
    mounts: Vec<Mount>,
) -> Result<()> {
    let Some(why) = observe::off_limits(found, kubelet_root, part, mounts)? else { return Ok(()) };
    Err(Error::caused(Kind::Config, format!("use `{}` as a volume", shown.display()), why).hint(HINT))
}

/// The same for the folder `relative` below `root` that is missing: the deepest of the folders that lead to it,
/// in which the others will be made.
pub fn fit_to_make(
    root: BorrowedFd<'_>,
    relative: &Path,
    shown: &Path,
    kubelet_root: &Path,
    mounts: Vec<Mount>,
) -> Result<OwnedFd> {
    for folder in relative.ancestors().skip(1) {
        match path::beneath(root, folder, Want::Folder) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            found => {
                let (found, new) = (found?, relative.strip_prefix(folder).unwrap_or(relative));
                fit(found.as_fd(), shown, kubelet_root, Part::NewFolder(new), mounts)?;
                return Ok(found);
            }
        }
    }
    // The root itself, which is open, was deleted.
    Err(Error::new(Kind::Mismatch, format!("find the folder that `{}` is to be made in", shown.display())))
}
