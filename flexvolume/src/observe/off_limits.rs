//! Whether what was found for a pod is the node's own, the kubelet's or the kernel's.
//!
//! The policy compares names. A symlink (of the kubelet's root, say, to a larger disk) or a bind mount gives the
//! same files another name, so here file systems and places in them are compared.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use node::mountinfo::{self, Mount};
use node::{Context, Error, Kind, Result};
use rustix::fs::FileType;

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
/// `mounts` are those of the moment when it was looked for.
pub fn off_limits(
    found: BorrowedFd<'_>,
    kubelet_root: &Path,
    part: Part<'_>,
    mounts: Vec<Mount>,
) -> Result<Option<String>> {
    let real = path::real_path(found)?;
    // What contains something of the node's can have a new folder all the same.
    let named = if let Part::NewFolder(name) = part { real.join(name) } else { real.clone() };
    if let Some(what) = policy::forbidden(&named, kubelet_root) {
        return Ok(Some(format!("it is `{}`: {what}", named.display())));
    }
    if let Some(kind) = path::is_kernel_filesystem(found)? {
        return Ok(Some(format!("a `{kind}` of the kernel is mounted there")));
    }
    let mut node = Node { mounts, is_fresh: false };
    let own = node.place(found, &real)?.map(|place| (real.as_path(), place.part(part)));
    let taken = node.taken(kubelet_root)?;
    let below: Vec<&Mount> =
        mountinfo::below(&node.mounts, &real).filter(|_| part == Part::WithMountsBelow).collect();
    if let Some(mount) = below.iter().find(|mount| path::is_kernels(&mount.kind)) {
        let (kind, point) = (&mount.kind, mount.point.display());
        return Ok(Some(format!("a `{kind}` of the kernel is mounted at `{point}`")));
    }
    let below = below.iter().map(|mount| (mount.point.as_path(), Place::mounted(mount)));
    let shown: Vec<(&Path, Place)> = own.into_iter().chain(below).collect();
    Ok(taken.into_iter().find_map(|(place, folder, what)| {
        let (point, _) = shown.iter().find(|(_, other)| other.touches(&place))?;
        let (point, folder) = (point.display(), folder.display());
        Some(format!("the files at `{point}` are, lie in or contain those at `{folder}`: {what}"))
    }))
}

type Taken = Vec<(Place, PathBuf, &'static str)>;
/// A folder that is open, and where it really is; `None` where there is none.
type Open = Option<(OwnedFd, PathBuf)>;

/// The node's mounts.
struct Node {
    mounts: Vec<Mount>,
    /// Whether they were listed once more.
    is_fresh: bool,
}

impl Node {
    /// The places that no policy can give away, those that this node has.
    fn taken(&mut self, kubelet_root: &Path) -> Result<Taken> {
        let own = policy::FOLDERS.iter().map(|(folder, what)| (Path::new(*folder), *what));
        let (mut taken, mut above) = (Taken::new(), BTreeMap::new());
        for (folder, what) in own.chain([(kubelet_root, "the kubelet's folder")]) {
            let place = self.place_of(folder, &mut above)?;
            taken.extend(place.map(|place| (place, folder.to_owned(), what)));
        }
        Ok(taken)
    }

    /// Where the folder of this name is; `above` remembers the folders that hold those that were asked for.
    ///
    /// Some forty are asked for at each mount. One that is no symlink is where its name says, in the folder that
    /// holds it; so all there is to ask for is its mount, which is one call and not eight.
    fn place_of<'f>(
        &mut self,
        folder: &'f Path,
        above: &mut BTreeMap<&'f Path, Open>,
    ) -> Result<Option<Place>> {
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            return self.place_behind(folder);
        };
        let parent = match above.entry(parent) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(open(parent)?),
        };
        let Some((parent, real)) = parent else { return Ok(None) };
        match mount::listed_at(parent.as_fd(), name) {
            Ok((FileType::Directory, Some(id))) => self.at(id, &real.join(name)),
            Ok((FileType::Directory | FileType::Symlink, _)) => self.place_behind(folder),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error).doing(Kind::Io, || format!("look at `{}`", folder.display())),
        }
    }

    /// The same wherever the name leads.
    fn place_behind(&mut self, folder: &Path) -> Result<Option<Place>> {
        match open(folder)? {
            Some((opened, real)) => self.place(opened.as_fd(), &real),
            None => Ok(None),
        }
    }

    /// Where an open file is whose path is `real`; `None` for one that is on no mount of this namespace.
    fn place(&mut self, file: BorrowedFd<'_>, real: &Path) -> Result<Option<Place>> {
        let id = mount::listed_id(file).doing(Kind::Kernel, || "ask for the id of a mount".to_owned())?;
        self.at(id, real)
    }

    /// What lies at the path `real` on the mount of this number. One that has come since the mounts were listed
    /// (automatically, when its folder was opened) is looked for once more.
    fn at(&mut self, id: u32, real: &Path) -> Result<Option<Place>> {
        if !self.is_fresh && self.mounts.iter().all(|mount| mount.id != id) {
            (self.mounts, self.is_fresh) = (mountinfo::read()?, true);
        }
        Ok(self.mounts.iter().find(|mount| mount.id == id).map(|mount| Place::on(mount, real)))
    }
}

fn open(folder: &Path) -> Result<Open> {
    // Without a symlink on the way a folder is where its name says.
    if let Some(opened) = path::open_straight(folder) {
        return Ok(Some((opened, folder.to_owned())));
    }
    let missing = |error: &Error| matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR));
    match path::open_root(folder) {
        Err(error) if missing(&error) => Ok(None),
        opened => {
            let opened = opened?;
            let real = path::real_path(opened.as_fd())?;
            Ok(Some((opened, real)))
        }
    }
}

/// A file system and a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    device: (u32, u32),
    path: PathBuf,
}

impl Place {
    /// What has the path `real` on a mount.
    fn on(mount: &Mount, real: &Path) -> Self {
        let inside = real.strip_prefix(&mount.point).unwrap_or(Path::new(""));
        Self { device: mount.device, path: mount.root.join(inside) }
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
