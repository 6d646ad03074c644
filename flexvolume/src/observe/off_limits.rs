//! Whether what was found for a pod is the node's own, the kubelet's or the kernel's.
//!
//! The policy compares names. A symlink (of the kubelet's root, say, to a larger disk) or a bind mount gives the
//! same files another name, so here file systems and places in them are compared.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use node::mountinfo::{self, Mount};
use node::{Context, Kind, Result};

use crate::kernel::{mount, path};
use crate::policy;

/// What of a folder or file a pod is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'p> {
    /// What lies on its own file system.
    Itself,
    /// That and what is mounted below it.
    WithMountsBelow,
    /// A new folder of this name in it, and nothing that is there already.
    NewFolder(&'p Path),
}

/// Why no pod may have the folder or file that `found` holds, in words for a person; `None` where one may.
pub fn off_limits(found: BorrowedFd<'_>, kubelet_root: &Path, part: Part<'_>) -> Result<Option<String>> {
    let real = path::real_path(found)?;
    // What contains something of the node's can have a new folder all the same.
    let named = if let Part::NewFolder(name) = part { real.join(name) } else { real.clone() };
    if let Some(what) = policy::forbidden(&named, kubelet_root) {
        return Ok(Some(format!("it is `{}`: {what}", named.display())));
    }
    if let Some(kind) = path::is_kernel_filesystem(found)? {
        return Ok(Some(format!("a `{kind}` of the kernel is mounted there")));
    }
    let mounts = mountinfo::read()?;
    let below: Vec<&Mount> =
        mountinfo::below(&mounts, &real).filter(|_| part == Part::WithMountsBelow).collect();
    if let Some(mount) = below.iter().find(|mount| path::is_kernels(&mount.kind)) {
        let (kind, point) = (&mount.kind, mount.point.display());
        return Ok(Some(format!("a `{kind}` of the kernel is mounted at `{point}`")));
    }
    let own = Place::of(found, &mounts)?.map(|place| (real.as_path(), place.part(part)));
    let below = below.iter().map(|mount| (mount.point.as_path(), Place::mounted(mount)));
    let shown: Vec<(&Path, Place)> = own.into_iter().chain(below).collect();
    Ok(taken(kubelet_root, &mounts)?.into_iter().find_map(|(place, folder, what)| {
        let (point, _) = shown.iter().find(|(_, other)| other.touches(&place))?;
        let (point, folder) = (point.display(), folder.display());
        Some(format!("the files at `{point}` are, lie in or contain those at `{folder}`: {what}"))
    }))
}

type Taken = Vec<(Place, PathBuf, &'static str)>;

/// The places that no policy can give away, those that this node has.
fn taken(kubelet_root: &Path, mounts: &[Mount]) -> Result<Taken> {
    let own = policy::FOLDERS.iter().map(|(folder, what)| (Path::new(*folder), *what));
    let mut taken = Taken::new();
    for (folder, what) in own.chain([(kubelet_root, "the kubelet's folder")]) {
        let opened = match path::open_root(folder) {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => continue,
            other => other?,
        };
        taken.extend(Place::of(opened.as_fd(), mounts)?.map(|place| (place, folder.to_owned(), what)));
    }
    Ok(taken)
}

/// A file system and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    device: (u32, u32),
    path: PathBuf,
}

impl Place {
    /// Where an open file is; `None` for one that is on no mount of this namespace.
    fn of(file: BorrowedFd<'_>, mounts: &[Mount]) -> Result<Option<Self>> {
        let id = mount::listed_id(file).doing(Kind::Kernel, || "ask for the id of a mount".to_owned())?;
        let Some(mount) = mounts.iter().find(|mount| mount.id == id) else { return Ok(None) };
        let real = path::real_path(file)?;
        let inside = real.strip_prefix(&mount.point).unwrap_or(Path::new(""));
        Ok(Some(Self { device: mount.device, path: mount.root.join(inside) }))
    }

    /// The place that the part is at.
    fn part(self, part: Part<'_>) -> Self {
        match part {
            Part::Itself | Part::WithMountsBelow => self,
            Part::NewFolder(name) => Self { path: self.path.join(name), ..self },
        }
    }

    /// What a mount shows.
    fn mounted(mount: &Mount) -> Self {
        Self { device: mount.device, path: mount.root.clone() }
    }

    /// Whether one is, lies in, or contains the other.
    fn touches(&self, other: &Self) -> bool {
        let nested = self.path.starts_with(&other.path) || other.path.starts_with(&self.path);
        self.device == other.device && nested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_touch_on_one_file_system_only() {
        let place = |minor, path: &str| Place { device: (8, minor), path: path.into() };
        let table = [
            (place(1, "/data/kubelet"), place(1, "/data"), true),
            (place(1, "/data"), place(1, "/data/kubelet"), true),
            (place(1, "/data"), place(1, "/data"), true),
            (place(1, "/data2"), place(1, "/data"), false),
            (place(2, "/data"), place(1, "/data"), false),
            (place(1, "/"), place(1, "/data"), true),
            (place(1, "/data").part(Part::NewFolder(Path::new("new"))), place(1, "/data/kubelet"), false),
            (
                place(1, "/data/kubelet").part(Part::NewFolder(Path::new("new"))),
                place(1, "/data/kubelet"),
                true,
            ),
        ];
        for (one, other, expect) in table {
            assert_eq!(one.touches(&other), expect, "{one:?} {other:?}");
        }
    }
}
