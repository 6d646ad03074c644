//! Whether what was found below a root of the policy is fit for pods. The policy saw a path; what is there may
//! be something else by way of the root's symlinks or of mounts.

use std::os::fd::BorrowedFd;
use std::path::Path;

use node::{Error, Kind, Result};

use crate::kernel::path;
use crate::policy;

/// Refuses what is the node's own, the kubelet's or the kernel's. `shown` is the pod's word for it.
pub fn fit(found: BorrowedFd<'_>, shown: &Path, kubelet_root: &Path) -> Result<()> {
    let real = path::real_path(found)?;
    let why = match (policy::forbidden(&real, kubelet_root), path::is_kernel_filesystem(found)?) {
        (Some(what), _) => format!("it is `{}`: {what}", real.display()),
        (None, Some(kind)) => format!("a `{kind}` of the kernel is mounted there"),
        (None, None) => return Ok(()),
    };
    Err(Error::caused(Kind::Config, format!("use `{}` as a volume", shown.display()), why)
        .hint("no policy can allow it; choose a folder of its own for the data of pods"))
}
