//! Takes away what is mounted on a volume's folder.

use node::{Error, Kind, Result};
use std::ffi::OsStr;
use std::os::fd::AsFd;

use super::Hands;
use crate::kernel::mount::{self, How};
use crate::kernel::path;
use crate::target::Target;

/// No volume is mounted so often on one folder.
const LAYERS: usize = 64;

/// Detaches mounts from the folder until none is left. A folder that is not there has none.
pub fn detach(target: &Target, _hands: &mut Hands<'_>) -> Result<()> {
    let root = match path::open_root(target.root()) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        other => other?,
    };
    let parent = match path::beneath(root.as_fd(), &target.parent(), path::Want::Folder) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        other => other?,
    };
    for _ in 0..LAYERS {
        if !mount::detach(parent.as_fd(), OsStr::new(target.volume()), How::Plain)? {
            return Ok(());
        }
    }
    Err(Error::new(Kind::Kernel, format!("unmount `{target}` for the {LAYERS}th time")))
}
