//! Whether what was found below a root of the policy is fit for pods. The policy saw a path; what is there may
//! be something else by way of the root's symlinks or of mounts.

use std::os::fd::BorrowedFd;
use std::path::Path;

use node::{Error, Kind, Result};

use crate::observe;

/// Refuses what is the node's own, the kubelet's or the kernel's; with `recursive`, what is mounted below it, too.
/// `shown` is the pod's word for it.
pub fn fit(found: BorrowedFd<'_>, shown: &Path, kubelet_root: &Path, recursive: bool) -> Result<()> {
    let Some(why) = observe::off_limits(found, kubelet_root, recursive)? else { return Ok(()) };
    Err(Error::caused(Kind::Config, format!("use `{}` as a volume", shown.display()), why)
        .hint("no policy can allow it; choose a folder of its own for the data of pods"))
}
