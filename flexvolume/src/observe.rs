//! What is there before anything is done.

mod off_limits;

use std::os::fd::{AsFd, OwnedFd};

use node::{Context, Error, Kind, Result};
use rustix::fs::Dir;

use crate::kernel::{mount, path};
use crate::target::Target;

pub use off_limits::{Part, off_limits};

/// What is on a volume's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Nothing is mounted.
    Nothing,
    /// Something is mounted and answers.
    Mount,
    /// Something is mounted whose server or daemon is gone: what the kernel says of it (errno).
    Dead(i32),
}

/// What a mount whose other side is gone answers.
pub(crate) const GONE: [i32; 5] = [libc::ENOTCONN, libc::ESTALE, libc::EIO, libc::EHOSTDOWN, libc::EACCES];

/// Opens the volume's folder without following any symlink, and looks at what is on it.
pub fn target(target: &Target) -> Result<(OwnedFd, On)> {
    let root = path::open_root(target.root())?;
    let folder = path::beneath(root.as_fd(), &target.relative(), path::Want::Folder)?;
    let on = match mount::is_root(folder.as_fd()) {
        Ok(true) => On::Mount,
        Ok(false) => On::Nothing,
        Err(error) => match error.raw_os_error().filter(|errno| GONE.contains(errno)) {
            Some(errno) => On::Dead(errno),
            None => return Err(error).doing(Kind::Kernel, || format!("look at `{target}`")),
        },
    };
    Ok((folder, on))
}

/// The names in a volume's folder on which nothing is mounted any more; none where it is not there, or no folder. What is
/// still mounted is not looked into.
pub fn names(target: &Target) -> Result<Vec<String>> {
    let doing = || format!("list `{target}`");
    let (folder, on) = match self::target(target) {
        // What lies behind a symlink is not the volume's.
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    if on != On::Nothing {
        return Err(Error::caused(Kind::Conflict, doing(), "something is mounted there again")
            .hint("the kubelet will try again"));
    }
    let folder = path::reopen(folder.as_fd(), false)?;
    let entries = Dir::new(folder).map_err(std::io::Error::from).doing(Kind::Io, doing)?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name != "." && name != "..").collect())
}
