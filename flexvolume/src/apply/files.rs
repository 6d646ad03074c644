//! Files inside a tree that nobody sees yet.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use node::{Context, Error, Kind, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::Hands;

/// Writes the secrets `keys` as files of `mode` that belong to `owner`.
pub fn populate(hands: &Hands<'_>, keys: &[String], mode: u32, owner: (u32, u32)) -> Result<()> {
    let root = hands.tree()?.as_fd();
    written(hands, root, keys, mode, owner).map_err(|error| match error.errno() {
        Some(libc::ENOSPC) => too_small(hands, root, keys, error),
        _ => error,
    })
}

fn too_small(hands: &Hands<'_>, root: BorrowedFd<'_>, keys: &[String], error: Box<Error>) -> Box<Error> {
    let Ok(disk) = rustix::fs::fstatvfs(root) else { return error };
    // Each file takes whole blocks, and the root folder is a file, too.
    let block = usize::try_from(disk.f_frsize).unwrap_or(1).max(1);
    let blocks = |key: &String| hands.secrets.get(key).unwrap_or_default().len().div_ceil(block);
    let needed: usize = keys.iter().map(|key| blocks(key) * block).sum();
    let (size, files) = (disk.f_blocks * disk.f_frsize, disk.f_files.saturating_sub(1));
    error.hint(format!(
        "raise `size` or `inodes`: the Secret takes {needed} bytes in {} files, and the volume has {size} bytes \
         and {files} files",
        keys.len()
    ))
}

fn written(
    hands: &Hands<'_>,
    root: BorrowedFd<'_>,
    keys: &[String],
    mode: u32,
    owner: (u32, u32),
) -> Result<()> {
    for key in keys {
        let doing = || format!("write the secret `{key}`");
        let content = hands.secrets.get(key).unwrap_or_default();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(root, key.as_str(), flags, Mode::RUSR)
            .doing(Kind::Kernel, doing)
            .map_err(larger)?;
        let mut file = File::from(fd);
        file.write_all(content).doing(Kind::Kernel, doing).map_err(larger)?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        rustix::fs::fchown(file.as_fd(), Some(uid), Some(gid)).doing(Kind::Kernel, doing)?;
        // After the owner: chown would clear what chmod sets; and the umask has no say in it.
        rustix::fs::fchmod(file.as_fd(), Mode::from_raw_mode(mode)).doing(Kind::Kernel, doing)?;
    }
    Ok(())
}

/// What to do where the volume is too small for the Secret.
fn larger(error: Box<Error>) -> Box<Error> {
    if error.errno() != Some(libc::ENOSPC) {
        return error;
    }
    error.hint("raise the options `size` or `inodes`, or name fewer secrets in `populate`")
}
