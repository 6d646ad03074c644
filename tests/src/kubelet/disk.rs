//! What the kubelet asks of folders and mount points, with Go's words for what goes wrong.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::call::try_tool;

/// What is known of a path.
#[derive(Debug)]
pub(crate) enum Presence {
    There,
    Missing,
    /// stat(2) fails, because of a mount whose server or daemon is gone, or for another reason.
    Unknown(String),
}

/// Whether the path exists, links followed.
pub(crate) fn presence(path: &Path) -> Presence {
    match fs::metadata(path) {
        Ok(_) => Presence::There,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Presence::Missing,
        Err(e) => Presence::Unknown(told("stat", path, &e)),
    }
}

/// Whether something is mounted there; `None` where nothing is there at all. The server of a network
/// filesystem is not asked, so that a dead one counts as mounted.
pub(crate) fn is_mount_point(path: &Path) -> Result<Option<bool>, String> {
    match statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()) {
        Ok(found) => Ok(Some(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(told("statx", path, &e.into())),
    }
}

/// Makes the folder and its parents, 0750.
pub(crate) fn make_folders(path: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|e| told("mkdir", path, &e))
}

/// Go's os.Remove: a file, or an empty folder.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    let Err(file) = fs::remove_file(path) else { return Ok(()) };
    let Err(folder) = fs::remove_dir(path) else { return Ok(()) };
    let why = if folder.kind() == io::ErrorKind::NotADirectory { file } else { folder };
    Err(told("remove", path, &why))
}

/// umount(8), then the folder: what the kubelet does itself where a driver does not.
pub(crate) fn clean_up_mount_point(path: &Path) -> Result<(), String> {
    match is_mount_point(path)? {
        None => return Ok(()),
        Some(false) => {}
        Some(true) => unmount(path)?,
    }
    remove(path)
}

/// umount(8).
pub(crate) fn unmount(path: &Path) -> Result<(), String> {
    let answer = try_tool(&["umount", &path.to_string_lossy()]);
    if answer.ok() {
        return Ok(());
    }
    Err(format!("unmount failed: {}", answer.stderr.trim()))
}

/// mount(8) with these words.
pub(crate) fn mount(words: &[&str]) -> Result<(), String> {
    let answer = try_tool(&[&["mount"], words].concat());
    if answer.ok() {
        return Ok(());
    }
    Err(format!("mount failed: {}", answer.stderr.trim()))
}

/// Gives a tree to a group, as the kubelet does for a pod with an fsGroup. Links are not followed.
pub(crate) fn give_to_group(path: &Path, group: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if found.is_symlink() {
        return Ok(());
    }
    let more = if found.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode((found.mode() & 0o7777) | more))?;
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to_group(&entry?.path(), group)?;
        }
    }
    Ok(())
}

fn told(verb: &str, path: &Path, why: &io::Error) -> String {
    format!("{verb} {}: {}", path.display(), words(why))
}

/// An error as Go words it: in lower case.
pub(crate) fn words(why: &io::Error) -> String {
    match why.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => why.to_string(),
    }
}
