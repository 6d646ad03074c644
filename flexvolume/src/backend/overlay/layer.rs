//! Opens the layers and looks at what they are.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use node::{Context, Error, Kind, Result};
use rustix::fs::{FileType, fstat};

use super::super::folder::{answers, fit, fit_to_make, root};
use super::{Place, taken};
use crate::apply::{Handle, Hands};
use crate::kernel::loop_device;
use crate::kernel::path::{self, Want};
use crate::kernel::superblock::{self, Content, Type};
use crate::observe::{self, On, Part};
use crate::plan::Lower;
use crate::policy::ImageFs;
use crate::record::Record;
use crate::target::Target;

/// A folder, or an image with a file system of one of these `kinds`.
pub fn lower(
    number: usize,
    place: &Place,
    kinds: &[ImageFs],
    kubelet_root: &Path,
    hands: &mut Hands<'_>,
) -> Result<Lower> {
    let mounts = answers(&place.root, &place.relative, hands)?;
    let root = root(&place.root)?;
    let found = path::beneath(root.as_fd(), &place.relative, Want::Any)?;
    let path = place.path();
    fit(found.as_fd(), &path, kubelet_root, Part::Itself, mounts)?;
    let doing = || format!("look at `{}`", path.display());
    let status = fstat(&found).map_err(std::io::Error::from).doing(Kind::Io, doing)?;
    let (found, lower) = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => (found, Lower::Folder { number, path: path.clone() }),
        FileType::RegularFile => {
            let file = File::from(path::reopen(found.as_fd(), false)?);
            let size = u64::try_from(status.st_size).unwrap_or(0);
            let kind = kind(superblock::probe(&file, size)?, kinds, &path)?;
            unwritten(&file, &path)?;
            (OwnedFd::from(file), Lower::Image { number, path: path.clone(), kind })
        }
        _ => {
            let why = "it is neither a folder nor a file";
            return Err(Error::caused(Kind::Config, format!("use `{}` as a layer", path.display()), why));
        }
    };
    hands.open.insert(Handle::Layer(number), found);
    Ok(lower)
}

/// The kernel's name for the file system, if images may have it.
fn kind(content: Content, kinds: &[ImageFs], path: &Path) -> Result<&'static str> {
    let (sort, name) = match content {
        Content::Filesystem(Type::Erofs) => (Some(ImageFs::Erofs), "erofs"),
        Content::Filesystem(Type::Squashfs) => (Some(ImageFs::Squashfs), "squashfs"),
        Content::Filesystem(Type::Ext2 | Type::Ext3 | Type::Ext4) => (Some(ImageFs::Ext4), "ext4"),
        Content::Filesystem(other) => (None, other.name()),
        Content::Other(name) => (None, name),
        Content::Empty => (None, "nothing"),
        Content::Unknown => (None, "no file system that is known here"),
    };
    match sort {
        Some(sort) if kinds.contains(&sort) => Ok(sort.name()),
        _ => {
            let allowed: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            let why = format!("{name} is in it");
            Err(Error::caused(Kind::Config, format!("use the image `{}` as a layer", path.display()), why)
                .hint(format!("a layer is a folder, or an image of {}", allowed.join(", "))))
        }
    }
}

/// Nobody may write to an image that is read here: what the kernel has read once, it does not read again.
fn unwritten(image: &File, path: &Path) -> Result<()> {
    let Some(device) = loop_device::over(image)?.into_iter().find(|n| !loop_device::is_read_only(*n)) else {
        return Ok(());
    };
    let doing = format!("use the image `{}` as a layer", path.display());
    Err(Error::caused(Kind::Conflict, doing, format!("/dev/loop{device} is there to write to it"))
        .hint("unmount the volume that writes to it first; `losetup -l` lists loop devices"))
}

/// The upper layer's folder, locked: the name of its lock, and whether the folder is missing.
pub fn upper(
    place: &Place,
    create: bool,
    kubelet_root: &Path,
    hands: &mut Hands<'_>,
) -> Result<(String, bool)> {
    let mounts = answers(&place.root, &place.relative, hands)?;
    let root = root(&place.root)?;
    let path = place.path();
    let status = fstat(&root).map_err(std::io::Error::from);
    let status = status.doing(Kind::Io, || format!("look at `{}`", place.root.display()))?;
    let key = format!("overlay:{}:{}/{}", status.st_dev, status.st_ino, place.relative.display());
    hands.lock_source(&key)?;
    alone(&key, &path, hands)?;
    let missing = match path::beneath(root.as_fd(), &place.relative, Want::Folder) {
        Err(error) if error.errno() == Some(libc::ENOENT) && create => {
            fit_to_make(root.as_fd(), &place.relative, &path, kubelet_root, mounts)?;
            true
        }
        Err(error) if error.errno() == Some(libc::ENOENT) => {
            let hint = format!(
                "make the folder, or have an administrator add `create: true` to the root `{}` in {}",
                place.root.display(),
                crate::policy::PATH
            );
            return Err(error.hint(hint));
        }
        other => {
            let found = other?;
            fit(found.as_fd(), &path, kubelet_root, Part::Itself, mounts)?;
            hands.open.insert(Handle::Upper, found);
            false
        }
    };
    hands.open.insert(Handle::UpperRoot, root);
    Ok((key, missing))
}

/// Whether no other volume that is mounted has the layer. The kernel would refuse it as well, as long as it
/// keeps an index, but it cannot say who has it.
fn alone(key: &str, path: &Path, hands: &Hands<'_>) -> Result<()> {
    let own = hands.target.as_ref().and_then(|target| path::real_path(target.as_fd()).ok());
    for (_, record) in Record::all()?.into_iter().filter(|(_, record)| record.key == key) {
        let Ok(target) = Target::parse(&record.target, &record.root) else { continue };
        if own.as_deref() == Some(record.target.as_path()) {
            continue;
        }
        if observe::target(&target).is_ok_and(|(_, on)| on != On::Nothing) {
            return Err(taken(
                path,
                format!("the pod `{}` of `{}` has it, mounted at `{target}`", record.pod, record.namespace),
            ));
        }
    }
    Ok(())
}
