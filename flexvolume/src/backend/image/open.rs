//! Opens an image once. Everything after that goes by the descriptor: what happens to the name meanwhile
//! does not matter.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};
use rustix::fs::Dir;

use super::super::folder::{answers, fit, root};
use super::options::Place;
use crate::apply::{Handle, Hands};
use crate::kernel::path::{self, Want};
use crate::observe::Part;

/// An image, or where it is missing.
#[derive(Debug)]
pub struct Opened {
    /// Its path without a symlink.
    pub path: PathBuf,
    /// The key of its lock: the folder and the name, which are there before the image is.
    pub lock: String,
    /// The image, to read it; `None` where it is missing.
    pub file: Option<File>,
}

/// Opens the image at `place` under its lock. Its folder goes into `hands`.
pub fn open(place: &Place, hands: &mut Hands<'_>) -> Result<Opened> {
    let mounts = answers(&place.root, &place.folder, hands)?;
    let root = root(&place.root)?;
    let folder = path::beneath(root.as_fd(), &place.folder, Want::Folder).map_err(|e| match e.errno() {
        Some(libc::ENOENT) => e.hint("make the folder on the node: only images are made here"),
        _ => e,
    })?;
    fit(folder.as_fd(), &place.root.join(&place.folder), &place.kubelet_root, Part::Itself, mounts)?;
    let status = rustix::fs::fstat(&folder).doing(Kind::Io, || "look at the image's folder".to_owned())?;
    let lock = format!("image {}:{}/{}", status.st_dev, status.st_ino, place.name);
    hands.lock_source(&lock)?;
    let path = path::real_path(folder.as_fd())?.join(&place.name);
    let file = match path::beneath(folder.as_fd(), Path::new(&place.name), Want::Read) {
        Err(error) if error.errno() == Some(libc::ENOENT) => None,
        other => Some(File::from(other?)),
    };
    hands.open.insert(Handle::ImageFolder, folder);
    Ok(Opened { path, lock, file })
}

/// What makers of this image have left that were killed, after a reboot too, when no record names it any more. The
/// image's lock is held, so that nobody is at work on them.
pub fn abandoned(image: &Path, hands: &Hands<'_>) -> Result<Vec<PathBuf>> {
    let doing = || format!("list the folder of `{}`", image.display());
    let folder = path::reopen(hands.opened(Handle::ImageFolder)?, false)?;
    let entries = Dir::new(folder).map_err(std::io::Error::from).doing(Kind::Io, doing)?;
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|other| is_scratch_of(other, &name)).map(|other| image.with_file_name(other)).collect())
}

/// The name of an image that is being made for the volume `id`.
pub fn scratch(image: &Path, id: &str) -> PathBuf {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    image.with_file_name(format!(".{name}.{id}.new"))
}

fn is_scratch_of(other: &str, name: &str) -> bool {
    let id = other.strip_prefix('.').and_then(|rest| rest.strip_prefix(name));
    let id = id.and_then(|rest| rest.strip_prefix('.')).and_then(|rest| rest.strip_suffix(".new"));
    id.is_some_and(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// In bytes.
pub fn length(file: &File) -> Result<u64> {
    file.metadata().map(|m| m.len()).doing(Kind::Io, || "look at the image".to_owned())
}

/// An image without a file system is nobody's order to make one.
pub fn empty(path: &Path) -> Box<Error> {
    let doing = format!("take `{}` for a volume", path.display());
    Error::caused(Kind::Config, doing, "there is no file system in it").hint(
        "run mkfs on it, or remove it and set `create: ifMissing` and `size`: an image is only made where none is",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::digest;

    #[test]
    fn only_the_hidden_files_of_the_same_image_are_its_makers() {
        let id = digest(b"a volume");
        let made = scratch(Path::new("/srv/a.ext4"), &id);
        let made = made.file_name().unwrap().to_str().unwrap();
        assert!(is_scratch_of(made, "a.ext4"));
        for other in ["a.ext4", ".a.ext4.new", &format!(".b.a.ext4.{id}.new"), &format!(".a.ext4.x.{id}.new")]
        {
            assert!(!is_scratch_of(other, "a.ext4"), "{other}");
        }
    }
}
