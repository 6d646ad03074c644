//! The layers of an overlay, and what is made of them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use node::{Context, Kind, Result, store};
use rustix::fs::{Gid, Mode, Stat, Uid, fchmod, fchown, fstat};

use super::{Handle, Hands, hands};
use crate::kernel::loop_device::{self, Wish};
use crate::kernel::mount::{self, Parameter, Tree};
use crate::kernel::overlay::{UPPER, WORK, lay};
use crate::kernel::path::{self, Want};
use crate::plan::{Face, Layers, Lower, Upper};
use crate::record::STATE;

/// Folders that root alone looks into: what a pod makes set-user-id there is nobody's to run.
const CLOSED: u32 = 0o700;
/// The bits that chmod(2) sets.
const PERMISSIONS: u32 = 0o7777;

/// Takes a lower layer.
pub fn lower(hands: &mut Hands<'_>, lower: &Lower) -> Result<()> {
    let tree = match lower {
        Lower::InHand => hands.take_tree()?,
        Lower::Folder { number, .. } => {
            mount::clone_tree(hands.opened(Handle::Layer(*number))?, false).map_err(hands::needs_trees)?
        }
        Lower::Image { number, kind, .. } => image(hands.opened(Handle::Layer(*number))?, kind)?,
    };
    hands.lower.push(tree);
    Ok(())
}

/// Takes the folder of the upper layer in hand.
pub fn upper(hands: &mut Hands<'_>, upper: &Upper) -> Result<()> {
    if upper.missing {
        let root = hands.opened(Handle::UpperRoot)?;
        let made = path::make_folders(root, &upper.relative, CLOSED, Some((0, 0)))?;
        hands.open.insert(Handle::Upper, made);
    }
    hands.copy_detached(Handle::Upper)
}

/// Lays what is in hand over the lower layers.
pub fn layer(hands: &mut Hands<'_>, layers: &Layers) -> Result<()> {
    let upper = hands.take_tree()?;
    let lower = std::mem::take(&mut hands.lower);
    prepare(&upper, lower.first(), layers.face)?;
    let parameters: Vec<Parameter> = layers.settings.iter().map(hands::parameter).collect();
    let stage = Path::new(STATE).join("stage");
    store::make_folder(&stage)?;
    let overlay = lay(&stage, &lower, &upper, &parameters, &hands.locked(), hands.patience())?;
    hands.hold(overlay);
    Ok(())
}

/// Makes the two folders. The root folder of an overlay is the upper layer's: a new one looks like the lower
/// layer's, so that it does not shut out who could read that. The kernel's folder is made last: where it is
/// there, the other one has got its looks.
fn prepare(upper: &Tree, topmost: Option<&Tree>, face: Face) -> Result<()> {
    let doing = || "prepare the upper layer".to_owned();
    let tree = upper.as_fd();
    let ready = match path::beneath(tree, Path::new(WORK), Want::Folder) {
        Err(error) if error.errno() == Some(libc::ENOENT) => false,
        other => other.map(|_| true)?,
    };
    let folder = path::make_folders(tree, Path::new(UPPER), CLOSED, Some((0, 0)))?;
    let mut wanted = face;
    if !ready && let Some(topmost) = topmost {
        let model: Stat = fstat(topmost).map_err(io::Error::from).doing(Kind::Io, doing)?;
        wanted.mode = wanted.mode.or(Some(model.st_mode & PERMISSIONS));
        wanted.uid = wanted.uid.or(Some(model.st_uid));
        wanted.gid = wanted.gid.or(Some(model.st_gid));
    }
    put(folder.as_fd(), wanted).map_err(io::Error::from).doing(Kind::Kernel, doing)?;
    path::make_folders(tree, Path::new(WORK), CLOSED, Some((0, 0))).map(drop)
}

/// Owner first: chown(2) clears bits that chmod(2) sets.
fn put(folder: BorrowedFd<'_>, face: Face) -> rustix::io::Result<()> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let open = rustix::fs::openat(folder, c".", flags, Mode::empty())?;
    if face.uid.is_some() || face.gid.is_some() {
        fchown(&open, face.uid.map(Uid::from_raw), face.gid.map(Gid::from_raw))?;
    }
    face.mode.map_or(Ok(()), |mode| fchmod(&open, Mode::from_raw_mode(mode)))
}

/// Mounts the file system in a file, never to be written.
fn image(file: BorrowedFd<'_>, kind: &str) -> Result<Tree> {
    if kind == "erofs" {
        // Since Linux 6.12 (CONFIG_EROFS_FS_BACKED_BY_FILE) without a loop device.
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        match mount::make(kind, Some(&source), &[], true) {
            Err(error) if error.errno() == Some(libc::ENOTBLK) => {}
            other => return other,
        }
    }
    let file = file.try_clone_to_owned().map(File::from);
    let file = file.doing(Kind::Io, || "keep the image open".to_owned())?;
    let device = loop_device::attach(&file, Wish { read_only: true, direct_io: false })?;
    // A journal that is not empty is left alone: replaying it would write.
    let unwritten = Parameter::Flag("noload".to_owned());
    let parameters = if kind == "ext4" { vec![unwritten] } else { Vec::new() };
    mount::make(kind, device.path().to_str(), &parameters, true)
}
