//! Opens an image once. Everything after that goes by the descriptor: what happens to the name meanwhile
//! does not matter.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};

use super::super::folder::{answers, fit};
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
    answers(&place.root, &place.folder, hands)?;
    let root = path::open_root(&place.root)?;
    let folder = path::beneath(root.as_fd(), &place.folder, Want::Folder).map_err(|e| match e.errno() {
        Some(libc::ENOENT) => e.hint("make the folder on the node: only images are made here"),
        _ => e,
    })?;
    fit(folder.as_fd(), &place.root.join(&place.folder), &place.kubelet_root, Part::Itself)?;
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
