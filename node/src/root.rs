//! Looking at a node whose root is mounted elsewhere: in a container, or from a rescue system.

use std::path::Path;

use nix::unistd::{chdir, chroot};

use crate::{Context, Kind, Result};

/// Makes `root` this process's own `/`, so that every path, and every link on the way, is the node's. For a
/// program that only looks and then ends.
pub fn enter(root: &Path) -> Result<()> {
    let doing = || format!("look at the node below `{}`", root.display());
    let hint = "name the folder that the node's `/` is mounted at, and run as root";
    chroot(root).and_then(|()| chdir("/")).doing(Kind::Config, doing).map_err(|e| e.hint(hint))
}
